//! A walk over the records of a message, and the OPT record (RFC 6891).

use super::message::{HEADER_LEN, Header, MAX_NAME_LEN, Malformed, rtype};

/// Length of the type, class, TTL and data length of a record, in bytes.
const FIXED_LEN: usize = 10;

/// The content of an OPT record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edns {
    /// UDP payload size of the sender, in bytes.
    pub(crate) payload: u16,
    pub(crate) version: u8,
    pub(crate) dnssec_ok: bool,
}

/// Walks over every record from `at` on and returns the OPT record of the additional section. Bytes
/// after the last record are ignored.
///
/// # Errors
///
/// [`Malformed`], also for two OPT records or one with a name (RFC 6891 section 6.1.1).
pub(crate) fn parse_edns(
    message: &[u8],
    at: usize,
    header: &Header,
) -> Result<Option<Edns>, Malformed> {
    let mut at = at;
    for _ in 0..u32::from(header.counts[1]) + u32::from(header.counts[2]) {
        at = skip_record(message, at)?.end;
    }
    let mut found = None;
    for _ in 0..header.counts[3] {
        let record = skip_record(message, at)?;
        let fields = record.fields;
        if u16::from_be_bytes([fields[0], fields[1]]) == rtype::OPT {
            if found.is_some() || record.has_name {
                return Err(Malformed);
            }
            let payload = u16::from_be_bytes([fields[2], fields[3]]);
            found = Some(Edns { payload, version: fields[5], dnssec_ok: fields[6] & 0x80 != 0 });
        }
        at = record.end;
    }
    Ok(found)
}

/// A record of the walk.
struct Record<'a> {
    /// Type, class, TTL and data length.
    fields: &'a [u8; FIXED_LEN],
    /// Whether its name is not the root.
    has_name: bool,
    /// Offset in the message of the byte after the record.
    end: usize,
}

fn skip_record(message: &[u8], at: usize) -> Result<Record<'_>, Malformed> {
    let fixed = skip_name(message, at)?;
    let fields: &[u8; FIXED_LEN] =
        message.get(fixed..).and_then(|rest| rest.first_chunk()).ok_or(Malformed)?;
    let end = fixed + FIXED_LEN + usize::from(u16::from_be_bytes([fields[8], fields[9]]));
    if end > message.len() {
        return Err(Malformed);
    }
    Ok(Record { fields, has_name: fixed != at + 1, end })
}

/// The offset after a name. A name ends at its first compression pointer, which must point
/// backwards and is not followed, so that no loop is possible.
fn skip_name(message: &[u8], start: usize) -> Result<usize, Malformed> {
    let mut at = start;
    loop {
        let len = usize::from(*message.get(at).ok_or(Malformed)?);
        match len {
            0 => return Ok(at + 1),
            1..=63 => at += 1 + len,
            192..=255 => {
                let pointer = message[at..].first_chunk().ok_or(Malformed)?;
                let target = usize::from(u16::from_be_bytes(*pointer) & 0x3fff);
                let backwards = (HEADER_LEN..start).contains(&target);
                return if backwards { Ok(at + 2) } else { Err(Malformed) };
            }
            _ => return Err(Malformed),
        }
        if at - start >= MAX_NAME_LEN {
            return Err(Malformed);
        }
    }
}
