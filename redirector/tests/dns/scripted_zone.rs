//! A zone that says what a test wants, and a follower of one name in it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{
        RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, SOA},
    },
};
use redirector::{
    backend::{Follower, FollowerSettings, Resolved, Target},
    config::Upstream,
    route::{Destination, SourceName},
};
use tempfile::TempDir;

use crate::{
    message::{bytes, name_of, parsed},
    scripted_upstream::{Asked, Do, Mock},
    shim::SOON,
};

pub(crate) const NAME: &str = "artifactory.public.company.net";

/// What an authoritative server says, changed by a test as it goes.
#[derive(Clone)]
pub(crate) struct Zone(Arc<Mutex<Says>>);

#[derive(Clone)]
pub(crate) enum Says {
    /// Records: owner, data, TTL.
    Records(Vec<(&'static str, RData, u32)>),
    Code(ResponseCode),
    Nothing,
    /// As the first, but never about AAAA.
    OnlyV4(Vec<(&'static str, RData, u32)>),
}

impl Zone {
    pub(crate) fn new(says: Says) -> Self {
        Self(Arc::new(Mutex::new(says)))
    }

    pub(crate) fn say(&self, says: Says) {
        *self.0.lock().expect("not poisoned") = says;
    }

    pub(crate) async fn serve(&self) -> Mock {
        let zone = self.clone();
        Mock::start(move |asked| zone.answer(asked)).await
    }

    pub(crate) fn answer(&self, asked: &Asked) -> Vec<Do> {
        let query = parsed(&asked.query);
        let question = &query.queries[0];
        let mut reply = Message::response(query.metadata.id, OpCode::Query);
        reply.metadata.recursion_available = true;
        reply.add_query(question.clone());
        let says = self.0.lock().expect("not poisoned").clone();
        let records = match says {
            Says::Nothing => return vec![],
            Says::OnlyV4(_) if question.query_type() == RecordType::AAAA => return vec![],
            Says::Code(code) => {
                reply.metadata.response_code = code;
                vec![]
            }
            Says::Records(records) | Says::OnlyV4(records) => records,
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
        vec![Do::Send(bytes(&reply))]
    }
}

pub(crate) fn v4(address: &str) -> RData {
    RData::A(A(address.parse().expect("an address")))
}

pub(crate) fn v6(address: &str) -> RData {
    RData::AAAA(AAAA(address.parse().expect("an address")))
}

pub(crate) fn one(address: &str, ttl: u32) -> Says {
    Says::Records(vec![(NAME, v4(address), ttl)])
}

pub(crate) fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|text| text.parse().expect("an address")).collect()
}

pub(crate) fn source() -> SourceName {
    "artifactory.internal.company.net".parse().expect("a source")
}

pub(crate) fn by_name(name: &str) -> Target {
    Target { destination: Destination::Name(name.into()), resolver: None }
}

pub(crate) fn only(target: Target) -> BTreeMap<SourceName, Target> {
    BTreeMap::from([(source(), target)])
}

pub(crate) struct Rig {
    pub(crate) follower: Follower,
    pub(crate) directory: Folder,
}

/// A temporary folder that goes although a save of the follower, which is dropped just before, is
/// still under way in it.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let filled_meanwhile = || {
            std::fs::remove_dir_all(self.path())
                .is_err_and(|error| error.kind() == std::io::ErrorKind::DirectoryNotEmpty)
        };
        for _ in 0..200 {
            if !filled_meanwhile() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Rig {
    pub(crate) fn start(servers: &[SocketAddr]) -> Self {
        let directory = Folder::new();
        Self { follower: start(servers, &state_file(directory.path())), directory }
    }

    /// Follows NAME and waits for its first answer.
    pub(crate) async fn follow(servers: &[SocketAddr]) -> (Self, Resolved) {
        let rig = Self::start(servers);
        rig.follower.set_targets(only(by_name(NAME)));
        let resolved = rig.follower.settle(&source(), SOON).await;
        (rig, resolved)
    }

    pub(crate) fn now(&self) -> Resolved {
        Resolved::clone(&self.follower.current()[&source()])
    }

    /// Waits until the published state is as wanted.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&Resolved) -> bool) -> Resolved {
        let mut updates = self.follower.subscribe();
        let found = tokio::time::timeout(
            SOON,
            updates.wait_for(|all| all.get(&source()).is_some_and(|known| wanted(known))),
        )
        .await;
        assert!(found.is_ok(), "{what} never came; last: {:?}", self.now());
        self.now()
    }
}

/// Below a folder of its own: a save makes that one when it is missing, and nothing above it.
pub(crate) fn state_file(directory: &Path) -> PathBuf {
    directory.join("state/addresses.json")
}

pub(crate) fn start(servers: &[SocketAddr], state_file: &Path) -> Follower {
    let upstreams = servers.iter().map(|server| Upstream::Server(*server)).collect();
    Follower::start(FollowerSettings { upstreams, own: vec![], state_file: state_file.into() })
        .expect("started")
}
