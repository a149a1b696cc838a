//! An authoritative server whose zone a test changes while it runs.

use std::sync::{Arc, Mutex};

use crate::{
    message::{bytes, name_of, parsed},
    scripted_upstream::{Action, ReceivedQuery, ScriptedUpstream},
};
use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{
        RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, SOA},
    },
};

pub(crate) const NAME: &str = "artifactory.public.company.net";

/// The zone of an authoritative server.
#[derive(Clone)]
pub(crate) struct ScriptedZone(Arc<Mutex<ZoneScript>>);

#[derive(Clone)]
pub(crate) enum ZoneScript {
    /// Records: owner, data, TTL.
    Records(Vec<(&'static str, RData, u32)>),
    Code(ResponseCode),
    NoReply,
    /// As `Records`, without a reply to AAAA.
    OnlyV4(Vec<(&'static str, RData, u32)>),
}

impl ScriptedZone {
    pub(crate) fn new(script: ZoneScript) -> Self {
        Self(Arc::new(Mutex::new(script)))
    }

    pub(crate) fn set(&self, script: ZoneScript) {
        *self.0.lock().expect("not poisoned") = script;
    }

    pub(crate) async fn serve(&self) -> ScriptedUpstream {
        let zone = self.clone();
        ScriptedUpstream::start(move |received| zone.answer(received)).await
    }

    pub(crate) fn answer(&self, received: &ReceivedQuery) -> Vec<Action> {
        let query = parsed(&received.query);
        let question = &query.queries[0];
        let mut reply = Message::response(query.metadata.id, OpCode::Query);
        reply.metadata.recursion_available = true;
        reply.add_query(question.clone());
        let script = self.0.lock().expect("not poisoned").clone();
        let records = match script {
            ZoneScript::NoReply => return vec![],
            ZoneScript::OnlyV4(_) if question.query_type() == RecordType::AAAA => return vec![],
            ZoneScript::Code(code) => {
                reply.metadata.response_code = code;
                vec![]
            }
            ZoneScript::Records(records) | ZoneScript::OnlyV4(records) => records,
        };
        let mut owner = question.name().to_lowercase();
        for (name, data, ttl) in records {
            let wanted = [RecordType::CNAME, question.query_type()].contains(&data.record_type());
            if name_of(name) == owner && wanted {
                if let RData::CNAME(CNAME(target)) = &data {
                    owner = target.clone();
                }
                reply.add_answer(Record::from_rdata(name_of(name), ttl, data));
            }
        }
        if reply.answers.is_empty() && reply.metadata.response_code != ResponseCode::ServFail {
            let soa = SOA::new(
                name_of("ns.company.net"),
                name_of("hostmaster.company.net"),
                1,
                3600,
                600,
                86400,
                1,
            );
            reply.add_authority(Record::from_rdata(name_of("company.net"), 1, RData::SOA(soa)));
        }
        vec![Action::Send(bytes(&reply))]
    }
}

pub(crate) fn v4(address: &str) -> RData {
    RData::A(A(address.parse().expect("an address")))
}

pub(crate) fn v6(address: &str) -> RData {
    RData::AAAA(AAAA(address.parse().expect("an address")))
}

pub(crate) fn one(address: &str, ttl: u32) -> ZoneScript {
    ZoneScript::Records(vec![(NAME, v4(address), ttl)])
}
