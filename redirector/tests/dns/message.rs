//! Queries and replies: from hickory-proto, or byte by byte.

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};

/// A query for an absolute name, with recursion desired.
pub(crate) fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name_of(name), kind));
    message
}

/// The message in wire format.
pub(crate) fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().expect("a message that can be written")
}

/// Parses a message.
pub(crate) fn parsed(bytes: &[u8]) -> Message {
    Message::from_vec(bytes).expect("a message that hickory-proto reads")
}

/// An absolute name.
pub(crate) fn name_of(text: &str) -> Name {
    let mut name = Name::from_ascii(text).expect("a name");
    name.set_fqdn(true);
    name
}

/// The reply to a query, with these records.
pub(crate) fn reply(query: &[u8], code: ResponseCode, records: &[RData]) -> Vec<u8> {
    let query = parsed(query);
    let mut reply = Message::response(query.metadata.id, OpCode::Query);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = code;
    reply.add_queries(query.queries.clone());
    for data in records {
        reply.add_answer(Record::from_rdata(query.queries[0].name().clone(), 60, data.clone()));
    }
    bytes(&reply)
}

/// A query from raw parts: the header's fields, then `rest`.
pub(crate) fn raw_query(id: u16, flags: u16, counts: [u16; 4], rest: &[u8]) -> Vec<u8> {
    let words = [id, flags, counts[0], counts[1], counts[2], counts[3]];
    words.iter().flat_map(|word| word.to_be_bytes()).chain(rest.iter().copied()).collect()
}

/// A question in wire format, with the name's case preserved.
pub(crate) fn raw_question(name: &str, kind: u16, class: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).expect("a short label"));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&class.to_be_bytes());
    bytes
}

/// An OPT record.
pub(crate) fn raw_opt(payload: u16, version: u8, dnssec_ok: bool) -> Vec<u8> {
    let [high, low] = payload.to_be_bytes();
    vec![0, 0, 41, high, low, 0, version, if dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]
}
