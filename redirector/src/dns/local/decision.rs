//! The possible decisions about a query.

/// What to do with a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send the reply buffer.
    Reply(ReplyKind),
    /// Ask an upstream.
    Forward(ForwardInfo),
    /// Send nothing: the message is not a query, or shorter than a header.
    Drop,
}

/// The kind of a reply of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// At least one record.
    Answered,
    /// No record of that type; the reply has an SOA.
    NoData,
    /// The query could not be parsed, or its EDNS version is unknown (BADVERS).
    FormErr,
    /// An opcode other than QUERY.
    NotImp,
    /// A class, a zone transfer or a client that we do not serve.
    Refused,
    /// SERVFAIL: the source's virtual address is not translated yet.
    Pending,
}

/// What the forwarder needs to know about a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardInfo {
    /// Offset of the byte after the question, which starts after the 12 bytes of the header.
    pub question_end: usize,
    /// UDP payload that the client accepts, in bytes: from its OPT record, else 512.
    pub udp_payload: u16,
}

/// How a client's queries are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerPolicy {
    /// Time to live of our records, in seconds.
    pub ttl: u32,
    /// Whether the client gets the destination's addresses instead of the virtual ones.
    pub real_addresses: bool,
}
