//! One DNS server: when to repeat a query, when to leave EDNS out, when to use TCP.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name, RecordType},
};
use parking_lot::Mutex;
use tokio::time::{timeout, timeout_at};

use super::{
    chain::{CnameChain, Step},
    exchange::{EncodedQuery, Reply, UdpExchange, over_tcp},
    result::{Family, FamilyResult},
};
use crate::backend::address_policy::AddressPolicy;

/// Longest time for a server to answer a query, over UDP and again over TCP.
const TIMEOUT: Duration = Duration::from_secs(2);
/// When a query is sent again, for a lost packet: early enough for the answer to come within the
/// grace for the second family.
const REPEAT: Duration = Duration::from_millis(400);
/// When a server that has not answered is asked without EDNS: some drop such queries.
const WITHOUT_EDNS: Duration = Duration::from_secs(1);
/// How long a server that rejects or drops EDNS is asked without it.
const PLAIN_MEMORY: Duration = Duration::from_secs(600);

/// A DNS server.
#[derive(Debug)]
pub(super) struct Server {
    address: SocketAddr,
    /// Until when queries have no EDNS.
    plain_until: Mutex<Option<Instant>>,
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
enum ExchangeError {
    #[error("did not answer within {TIMEOUT:?}")]
    Timeout,
    #[error("answered with a malformed message")]
    Malformed,
    #[error("cannot be reached: {0}")]
    Io(#[from] io::Error),
}

impl Server {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, plain_until: Mutex::default() }
    }

    /// Looks up the addresses of one family, through CNAMEs.
    pub(super) async fn lookup(
        &self,
        name: &Name,
        family: Family,
        policy: &AddressPolicy,
    ) -> FamilyResult {
        let mut chain = CnameChain::new(name.clone(), family, policy);
        // The whole chain has the time of one query over UDP and TCP.
        let followed = timeout(2 * TIMEOUT, async {
            loop {
                match self.ask(chain.name(), family.record_type()).await {
                    Ok(answer) => match chain.follow(&answer) {
                        Step::Done(result) => return result,
                        // The chain has grown, and its length is limited.
                        Step::Query(_) => {}
                    },
                    Err(error) => return FamilyResult::Failed(error.to_string()),
                }
            }
        });
        let result = followed
            .await
            .unwrap_or_else(|_| FamilyResult::Failed(ExchangeError::Timeout.to_string()));
        self.attribute(result)
    }

    /// Names the server in a message.
    fn attribute(&self, result: FamilyResult) -> FamilyResult {
        match result {
            FamilyResult::Failed(error) => {
                FamilyResult::Failed(format!("{} {error}", self.address))
            }
            FamilyResult::Empty { reason, ttl } => {
                FamilyResult::Empty { reason: format!("{} {reason}", self.address), ttl }
            }
            found @ FamilyResult::Addresses { .. } => found,
        }
    }

    /// The answer to one question.
    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Message, ExchangeError> {
        let (query, answer) = self.over_udp(name, kind).await?;
        if !answer.metadata.truncation {
            return Ok(answer);
        }
        let reply = timeout(TIMEOUT, over_tcp(self.address, &query));
        match reply.await.map_err(|_| ExchangeError::Timeout)?? {
            Reply::Message(answer) => Ok(*answer),
            Reply::Malformed => Err(ExchangeError::Malformed),
        }
    }

    /// Asks with EDNS, and without it if the server rejects that or does not answer (RFC 6891
    /// section 6.2.2).
    async fn over_udp(
        &self,
        name: &Name,
        kind: RecordType,
    ) -> Result<(EncodedQuery, Message), ExchangeError> {
        let mut exchange = UdpExchange::open(self.address).await?;
        let start = tokio::time::Instant::now();
        let mut due = self.schedule();
        let mut sent: Vec<EncodedQuery> = Vec::new();
        loop {
            let next = start + due.front().map_or(TIMEOUT, |(after, _)| *after);
            let Ok(received) = timeout_at(next, exchange.receive(&sent)).await else {
                let (_, has_edns) = due.pop_front().ok_or(ExchangeError::Timeout)?;
                let query = EncodedQuery::new(name, kind, has_edns)?;
                exchange.send(&query).await?;
                sent.push(query);
                continue;
            };
            let (number, reply) = received?;
            let query = sent.swap_remove(number);
            if query.has_edns && rejects_edns(&reply) {
                sent.retain(|query| !query.has_edns);
                due = VecDeque::from([(start.elapsed(), false)]);
                continue;
            }
            let Reply::Message(answer) = reply else { return Err(ExchangeError::Malformed) };
            self.remember(query.has_edns, &answer);
            return Ok((query, *answer));
        }
    }

    /// When to send the query, after the start, and whether with EDNS.
    fn schedule(&self) -> VecDeque<(Duration, bool)> {
        let is_plain = self.plain_until.lock().is_some_and(|until| Instant::now() < until);
        if is_plain {
            return [(Duration::ZERO, false), (REPEAT, false), (WITHOUT_EDNS, false)].into();
        }
        [
            (Duration::ZERO, true),
            (REPEAT, true),
            (WITHOUT_EDNS, false),
            (WITHOUT_EDNS + REPEAT, false),
        ]
        .into()
    }

    fn remember(&self, has_edns: bool, answer: &Message) {
        let is_answer =
            matches!(answer.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain);
        let mut plain_until = self.plain_until.lock();
        if has_edns {
            *plain_until = None;
        } else if is_answer && plain_until.is_none_or(|until| until <= Instant::now()) {
            *plain_until = Some(Instant::now() + PLAIN_MEMORY);
        }
    }
}

/// Whether a reply to a query with EDNS asks for one without.
fn rejects_edns(reply: &Reply) -> bool {
    let Reply::Message(message) = reply else { return true };
    match message.metadata.response_code {
        ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS => true,
        // RFC 2671 section 5.3 allowed this code as well.
        ResponseCode::ServFail => message.edns.is_none(),
        _ => false,
    }
}
