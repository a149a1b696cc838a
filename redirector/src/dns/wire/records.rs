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

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &[u8] = b"\x01q\0\0\x01\0\x01";
    const OPT: &[u8] = b"\0\0\x29\x04\xd0\0\0\x80\0\0\0";

    fn address(owner: &[u8]) -> Vec<u8> {
        [owner, b"\0\x01\0\x01\0\0\0\x3c\0\x04\xcb\0\x71\x07"].concat()
    }

    /// Parses a message of these records, with their numbers in each section.
    fn parse(records: &[u8], [answer, authority, additional]: [u16; 3]) -> Result<bool, Malformed> {
        let message = [&[0; HEADER_LEN], QUESTION, records].concat();
        let counts = [1, answer, authority, additional];
        let edns =
            parse_edns(&message, HEADER_LEN + QUESTION.len(), &Header { id: 0, flags: 0, counts })?;
        let expected = Edns { payload: 1232, version: 0, dnssec_ok: true };
        assert!(edns.is_none_or(|edns| edns == expected), "{edns:?}");
        Ok(edns.is_some())
    }

    #[test]
    fn an_opt_record_is_found_after_other_records() {
        for owner in [&b"\0"[..], b"\x01a\x02bc\0", b"\xc0\x0c", b"\x03www\xc0\x0c"] {
            let one = address(owner);
            for counts in [[1, 0, 1], [0, 1, 1], [0, 0, 2]] {
                assert_eq!(parse(&[&one, OPT].concat(), counts), Ok(true), "{owner:?} {counts:?}");
            }
            assert_eq!(parse(&[&one, &one, OPT].concat(), [1, 1, 1]), Ok(true), "{owner:?}");
            assert_eq!(parse(&[OPT, &one].concat(), [1, 0, 1]), Ok(false), "in another section");
        }
    }

    #[test]
    fn a_cut_record_is_malformed_and_bytes_after_it_are_ignored() {
        let record = address(b"\x01a\xc0\x0c");
        for length in 0..record.len() {
            assert_eq!(parse(&record[..length], [1, 0, 0]), Err(Malformed), "{length} bytes");
        }
        for rest in [0, 1, 40] {
            assert_eq!(parse(&[&record[..], &vec![0xff; rest]].concat(), [1, 0, 0]), Ok(false));
        }
    }

    #[test]
    fn a_name_points_backwards_into_the_message() {
        let start = (HEADER_LEN + QUESTION.len()) as u8;
        for target in HEADER_LEN as u8..start {
            assert_eq!(parse(&address(&[0xc0, target]), [1, 0, 0]), Ok(false), "to {target}");
        }
        for pointer in [[0xc0, 0], [0xc0, HEADER_LEN as u8 - 1], [0xc0, start], [0xc1, 12]] {
            assert_eq!(parse(&address(&pointer), [1, 0, 0]), Err(Malformed), "{pointer:?}");
        }
        for kind in [0x40, 0x80, 0xbf] {
            assert_eq!(parse(&address(&[kind, 12]), [1, 0, 0]), Err(Malformed), "{kind}");
        }
    }

    #[test]
    fn a_name_has_at_most_255_bytes() {
        let name = |last: u8| {
            let labels = [63, 63, 63, last].map(|length| [vec![length], vec![b'a'; length.into()]]);
            [labels.concat().concat(), vec![0]].concat()
        };
        assert_eq!((name(61).len(), name(62).len()), (255, 256));
        assert_eq!(parse(&address(&name(61)), [1, 0, 0]), Ok(false));
        assert_eq!(parse(&address(&name(62)), [1, 0, 0]), Err(Malformed));
    }
}
