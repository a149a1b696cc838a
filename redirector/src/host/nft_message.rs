//! The wire format of nf_tables' netlink messages, as far as one rule needs it: less code than a
//! library for all of it would add to the agent.

use rtnetlink::packet_core::NLM_F_REQUEST;

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u8 = 10;
/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
const BATCH: [u16; 2] = [0x10, 0x11];
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;
/// The length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// Attributes: `{ length, kind, value }`, each padded to four bytes; numbers are big-endian.
#[derive(Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.0.extend(((4 + value.len()) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(crate) fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// A string, which ends with a zero.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    pub(crate) fn nested(&mut self, kind: u16, value: Self) -> &mut Self {
        self.bytes(kind | NESTED, &value.0)
    }

    /// An expression of a rule.
    pub(crate) fn expression(&mut self, name: &str, data: Self) -> &mut Self {
        let mut expression = Self::default();
        expression.text(1, name).nested(2, data);
        self.nested(1, expression)
    }
}

/// A message of nf_tables.
pub(crate) struct Message {
    kind: u16,
    flags: u16,
    family: u8,
    pub(crate) attributes: Attributes,
}

impl Message {
    pub(crate) fn new(kind: u8, family: u8, flags: u16) -> Self {
        let kind = u16::from_be_bytes([SUBSYSTEM, kind]);
        Self { kind, flags, family, attributes: Attributes::default() }
    }

    pub(crate) fn into_bytes(self, sequence: u32) -> Vec<u8> {
        let body = [&[self.family, 0, 0, 0], self.attributes.0.as_slice()].concat();
        message((self.kind, self.flags, sequence), &body)
    }
}

/// Messages that the kernel executes together, or none of them.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self { bytes: edge(BATCH[0], 1), sequence: 2 }
    }

    pub(crate) fn push(&mut self, message: Message) {
        self.bytes.extend(message.into_bytes(self.sequence));
        self.sequence += 1;
    }

    /// With its end.
    pub(crate) fn committed(mut self) -> Vec<u8> {
        self.bytes.extend(edge(BATCH[1], self.sequence));
        self.bytes
    }

    /// Without its end.
    pub(crate) fn unfinished(self) -> Vec<u8> {
        self.bytes
    }
}

/// The begin or the end of a batch.
fn edge(kind: u16, sequence: u32) -> Vec<u8> {
    message((kind, NLM_F_REQUEST, sequence), &[0, 0, 0, SUBSYSTEM])
}

fn message((kind, flags, sequence): (u16, u16, u32), body: &[u8]) -> Vec<u8> {
    let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    // The sender: the kernel knows it.
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes
}

/// The messages in a datagram, each with its type; a truncated one ends them.
pub(crate) fn split(mut datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*datagram.first_chunk()?) as usize;
        let message = datagram.get(..length).filter(|message| message.len() >= HEADER)?;
        datagram = &datagram[length.next_multiple_of(4).min(datagram.len())..];
        Some((u16::from_ne_bytes([message[4], message[5]]), &message[HEADER..]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let mut inner = Attributes::default();
        inner.text(1, "ab").number(2, 7);
        let mut outer = Attributes::default();
        outer.nested(3, inner);
        let head = |length: u16, kind: u16| [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        let expected =
            [head(20, 3 | NESTED), head(7, 1), b"ab\0\0".to_vec(), head(8, 2), vec![0, 0, 0, 7]];
        assert_eq!(outer.0, expected.concat());
    }

    #[test]
    fn a_datagram_is_split_into_its_messages() {
        let bytes = [edge(BATCH[0], 1), edge(BATCH[1], 2)].concat();
        let kinds: Vec<u16> = split(&bytes).map(|(kind, _)| kind).collect();
        assert_eq!(kinds, BATCH);
        assert_eq!(split(&bytes[..25]).count(), 1, "a truncated message is none");
        assert_eq!(split(&[9, 0, 0, 0, 1]).count(), 0);
    }
}
