//! DNS wire format.

mod message;

pub use message::Reply;
pub(crate) use message::{
    CLASSIC_PAYLOAD, EDNS_PAYLOAD, Edns, HEADER, Header, LowerName, RawQuestion, asked_type, code,
    edns, flag, is_well_formed, rcode,
};
