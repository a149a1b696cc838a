//! The decision about the reply to a query for a mapped name. It is that of the user-space
//! authority.

use super::{
    found::NameKind,
    header::ReplyCode,
    question::Question,
    record::{A, A_LEN, AAAA, AAAA_LEN, ANY, PTR, PTR_HEAD, SOA_LEN},
};

/// The record of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ReplyRecord {
    /// None: the reply is an error.
    None = 0,
    /// The VIP.
    A = 1,
    /// The IPv6 VIP.
    Aaaa = 2,
    /// The start of a zone, since there is no record of the type.
    Soa = 3,
    /// The source of a VIP.
    Ptr = 4,
}

impl ReplyRecord {
    /// Its octets; `target` is those of a PTR record's name.
    #[inline(always)]
    pub const fn length(self, target: u32) -> u32 {
        match self {
            Self::None => 0,
            Self::A => A_LEN,
            Self::Aaaa => AAAA_LEN,
            Self::Soa => SOA_LEN,
            Self::Ptr => PTR_HEAD + target,
        }
    }
}

/// The reply to a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its code.
    pub code: ReplyCode,
    /// Its record.
    pub record: ReplyRecord,
}

/// Decides about the reply. `has_ipv6` says that VIPs have an IPv6 address, too.
#[inline(always)]
pub const fn answer(kind: NameKind, question: Question, has_ipv6: bool) -> Answer {
    let record = match (kind, question.record_type()) {
        (NameKind::Live, A | ANY) => ReplyRecord::A,
        (NameKind::Live, AAAA) if has_ipv6 => ReplyRecord::Aaaa,
        (NameKind::Pointer, PTR | ANY) => ReplyRecord::Ptr,
        _ => ReplyRecord::Soa,
    };
    if question.has_other_version() {
        Answer { code: ReplyCode::BadVersion, record: ReplyRecord::None }
    } else if matches!(kind, NameKind::Pending) {
        Answer { code: ReplyCode::ServFail, record: ReplyRecord::None }
    } else {
        Answer { code: ReplyCode::NoError, record }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(record_type: u16) -> Question {
        let word = u64::from(record_type.to_be()) | 0x0100 << 16;
        Question::of(word).unwrap()
    }

    #[test]
    fn each_type_has_its_record() {
        let record = |kind, record_type, has_ipv6| {
            let answer = answer(kind, ask(record_type), has_ipv6);
            assert_eq!(answer.code, ReplyCode::NoError);
            answer.record
        };
        assert_eq!(record(NameKind::Live, A, false), ReplyRecord::A);
        assert_eq!(record(NameKind::Live, ANY, true), ReplyRecord::A);
        assert_eq!(record(NameKind::Live, AAAA, true), ReplyRecord::Aaaa);
        assert_eq!(record(NameKind::Live, AAAA, false), ReplyRecord::Soa);
        for other in [PTR, 6, 33, 64, 65, 252] {
            assert_eq!(record(NameKind::Live, other, true), ReplyRecord::Soa);
        }
        assert_eq!(record(NameKind::Pointer, PTR, true), ReplyRecord::Ptr);
        assert_eq!(record(NameKind::Pointer, ANY, true), ReplyRecord::Ptr);
        assert_eq!(record(NameKind::Pointer, A, true), ReplyRecord::Soa);
        assert_eq!(ReplyRecord::Ptr.length(20), 32);
        assert_eq!(ReplyRecord::None.length(20), 0);
    }

    #[test]
    fn errors_have_no_record() {
        let pending = answer(NameKind::Pending, ask(A), true);
        assert_eq!((pending.code, pending.record), (ReplyCode::ServFail, ReplyRecord::None));
        let version1 = [u64::from_le_bytes([0, 0, 41, 16, 0, 0, 1, 0]), 0];
        let question = ask(A).with_additional(version1, 11).unwrap();
        for kind in [NameKind::Live, NameKind::Pending, NameKind::Pointer] {
            let answer = answer(kind, question, true);
            assert_eq!((answer.code, answer.record), (ReplyCode::BadVersion, ReplyRecord::None));
        }
    }
}
