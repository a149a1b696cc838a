//! A fixed buffer for a reply.

use super::message::CLASSIC_PAYLOAD;

/// A reply under construction. The largest has 8 real IPv6 addresses of the longest name: header
/// 12, question 255 + 4, 8 records of 12 + 16, OPT 11, together 506 bytes. So none is ever
/// truncated, with or without EDNS.
pub struct ReplyBuffer {
    bytes: [u8; Self::CAPACITY],
    len: usize,
}

impl ReplyBuffer {
    const CAPACITY: usize = CLASSIC_PAYLOAD as usize;

    /// An empty buffer. It can be reused: each answer clears it.
    pub fn new() -> Self {
        Self { bytes: [0; Self::CAPACITY], len: 0 }
    }

    /// The message.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends bytes, which always fit. If a bug made a reply too long, it would be truncated
    /// instead of stopping the process.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        debug_assert!(self.len + bytes.len() <= Self::CAPACITY, "a reply outgrew its buffer");
        let free = &mut self.bytes[self.len..];
        let len = bytes.len().min(free.len());
        free[..len].copy_from_slice(&bytes[..len]);
        self.len += len;
    }

    pub(crate) fn push_u16(&mut self, value: u16) {
        self.push(&value.to_be_bytes());
    }

    pub(crate) fn push_u32(&mut self, value: u32) {
        self.push(&value.to_be_bytes());
    }

    /// Sets the count of a section (0 question to 3 additional).
    pub(crate) fn set_count(&mut self, section: usize, count: u8) {
        self.bytes[5 + 2 * section] = count;
    }
}

impl Default for ReplyBuffer {
    fn default() -> Self {
        Self::new()
    }
}
