//! The parts of the DNS wire format (RFC 1035) that the hot path needs: the header, one question, a
//! walk over records, and a fixed buffer for a reply.
//!
//! The parsers neither allocate nor trust a length in a packet. `local` decides about answers.

mod message;
mod records;
mod reply;

pub(crate) use message::{
    CLASSIC_PAYLOAD, EDNS_PAYLOAD, HEADER_LEN, Header, LowerName, ParsedQuestion, class, flag,
    length_prefixed, question_type, rcode, rtype,
};
pub(crate) use records::{Edns, parse_edns};
pub use reply::ReplyBuffer;
