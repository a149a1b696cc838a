//! DNS wire format (RFC 1035), as far as the hot path needs it: the header, one question, a walk
//! over records, and a fixed buffer for a reply.
//!
//! Nothing here allocates or trusts a length from a packet. Which answer a query gets is decided
//! elsewhere.

mod message;
mod records;
mod reply;

pub(crate) use message::{
    CLASSIC_PAYLOAD, EDNS_PAYLOAD, HEADER_LEN, Header, LowerName, ParsedQuestion, class, flag,
    length_prefixed, question_type, rcode, rtype,
};
pub(crate) use records::{Edns, is_well_formed, parse_edns};
pub use reply::ReplyBuffer;
