//! DNS messages.

use std::{
    net::{IpAddr, UdpSocket},
    str::FromStr as _,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};

use super::requests::Answer;

/// Longest time for an answer: the machine is emulated.
const LIMIT: Duration = Duration::from_secs(5);

/// Asks a resolver over UDP.
pub(crate) fn ask(resolver: IpAddr, name: &str, kind: &str) -> Result<Answer> {
    let socket = UdpSocket::bind(if resolver.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.set_read_timeout(Some(LIMIT))?;
    // `from_str` would make it lower case.
    let name = Name::from_ascii(name).context("not a name")?;
    let kind = RecordType::from_str(kind).context("not a type")?;
    let mut query = Message::new(0x1234, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name, kind));
    socket.send_to(&query.to_vec()?, (resolver, 53))?;
    let mut buffer = [0; 1500];
    let (length, from) = socket.recv_from(&mut buffer)?;
    let answer = Message::from_vec(&buffer[..length]).context("not a DNS message")?;
    ensure!(answer.metadata.id == 0x1234, "the ID differs");
    let question = answer.queries.first().context("no question")?;
    Ok(Answer {
        from: from.ip(),
        code: format!("{:?}", answer.metadata.response_code),
        records: answer.answers.iter().map(|record| record.data.to_string()).collect(),
        authorities: answer.authorities.len(),
        name: question.name().to_string().trim_end_matches('.').to_owned(),
    })
}

/// The answer to a query: one address.
pub(super) fn answer(query: &[u8], address: IpAddr) -> Result<Vec<u8>> {
    let query = Message::from_vec(query)?;
    let question = query.queries.first().context("no question")?.clone();
    let mut answer = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    answer.metadata.response_code = ResponseCode::NoError;
    let data = match address {
        IpAddr::V4(address) => RData::A(address.into()),
        IpAddr::V6(address) => RData::AAAA(address.into()),
    };
    answer.add_answer(Record::from_rdata(question.name().clone(), 60, data));
    answer.add_query(question);
    Ok(answer.to_vec()?)
}
