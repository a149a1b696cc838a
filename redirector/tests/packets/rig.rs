//! A node with a loaded datapath, and its programs one by one.

use std::{path::PathBuf, time::Duration};

use aya::{
    TestRunOptions,
    maps::{Array, Map, MapData},
    programs::{SchedClassifier, TestRun as _, loaded_programs},
};
use redirector::{
    datapath::{
        Datapath, InterfaceRole, InterfaceTarget, NameChange, PublishedName, Settings, Version,
    },
    pool::Pool,
};
use redirector_common::{abi, names, packet::name::NameSettings};
use testbed::Rig;

/// The time limit of a command.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// The TTL of answers.
pub(crate) const TTL: u32 = 30;

/// The verdict that leaves a packet to the next program (TC_ACT_UNSPEC).
pub(crate) const NEXT: i32 = -1;
/// The verdict that drops a packet (TC_ACT_SHOT).
pub(crate) const DROP: i32 = 2;
/// The verdict that sends a packet elsewhere (TC_ACT_REDIRECT).
pub(crate) const REDIRECT: i32 = 7;

pub(crate) fn settings() -> Settings {
    let pool =
        Pool::new("198.18.0.0/16".parse().unwrap(), Some("fd00:18::/112".parse().unwrap()), true)
            .unwrap();
    Settings { bpffs: PathBuf::from("/sys/fs/bpf/redirector"), pool, debug_log: false }
}

/// A node and a datapath that answers names.
pub(crate) struct Bed {
    // Before the rig: the namespaces live as long as their last user.
    pub(crate) datapath: Datapath,
    pub(crate) rig: Rig,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let rig = Rig::new().unwrap();
        let datapath = open(&rig);
        let mut bed = Self { datapath, rig };
        bed.datapath.set_name_settings(TTL, true).unwrap();
        bed
    }

    /// Opens the datapath again, as a restarted agent does.
    pub(crate) fn reopen(&mut self) {
        self.datapath = open(&self.rig);
    }

    /// Opens the datapath as an agent of the next version does, whose ABI is another one.
    pub(crate) fn upgrade(&mut self) {
        let newer = Version { abi: abi::ABI + 1, ..Version::own() };
        self.datapath = open_as(&self.rig, &newer);
    }

    /// Publishes a live name.
    pub(crate) fn publish(&mut self, source: &str, index: u32) {
        self.put(source, PublishedName::live(index));
    }

    pub(crate) fn put(&mut self, source: &str, name: PublishedName) {
        let source = source.parse().unwrap();
        self.datapath.publish_names(&[NameChange::Put { source, name }]).unwrap();
    }

    pub(crate) fn withdraw(&mut self, source: &str) {
        let source = source.parse().unwrap();
        self.datapath.publish_names(&[NameChange::Remove { source }]).unwrap();
    }

    /// A loaded program, to run it on single packets.
    pub(crate) fn program(&self, name: &'static str) -> Runner {
        let status = self.datapath.status();
        let id = status.programs.iter().find(|program| program.name == name).unwrap().id;
        let info = loaded_programs().map(Result::unwrap).find(|info| info.id() == id).unwrap();
        Runner(SchedClassifier::from_program_info(info, name.into()).unwrap())
    }

    /// Attaches to an interface of the node.
    pub(crate) fn attach(&mut self, name: &str, role: InterfaceRole) {
        let index = self.index(name);
        let target = InterfaceTarget {
            index,
            name: name.to_owned(),
            role,
            redirects: role == InterfaceRole::Guest,
        };
        let datapath = &mut self.datapath;
        let attach = || {
            datapath.attach(&[]).unwrap();
            datapath.attach_interfaces(std::slice::from_ref(&target)).unwrap()
        };
        let failures = self.rig.node.sandbox().namespaces().run(attach).unwrap();
        assert!(failures.is_empty(), "{failures:?}");
    }

    /// Detaches from an interface, as when it is gone.
    pub(crate) fn detach(&mut self, index: u32) {
        let datapath = &mut self.datapath;
        let detach = || datapath.detach_interfaces(&[index]).unwrap();
        self.rig.node.sandbox().namespaces().run(detach).unwrap();
    }

    /// The seed of the names' hash.
    pub(crate) fn seed(&self) -> u64 {
        let pin = settings().bpffs.join(format!("v{}/maps/{}", abi::ABI, names::NAME_SETTINGS));
        let read = || {
            let map = Map::Array(MapData::from_pin(pin).unwrap());
            let settings: Array<_, NameSettings> = map.try_into().unwrap();
            settings.get(&0, 0).unwrap().seed
        };
        self.rig.node.sandbox().namespaces().run(read).unwrap()
    }

    /// A line of shell on the node.
    pub(crate) fn shell(&self, line: &str) -> String {
        self.rig.node.sandbox().run(line, LIMIT).unwrap().success().unwrap().stdout
    }

    /// The index of an interface of the node.
    pub(crate) fn index(&self, name: &str) -> u32 {
        let line = self.shell(&format!("ip -o link show {name}"));
        line.split(':').next().unwrap().parse().unwrap()
    }
}

fn open(rig: &Rig) -> Datapath {
    open_as(rig, &Version::own())
}

fn open_as(rig: &Rig, version: &Version) -> Datapath {
    let open = || Datapath::open_as(&settings(), version).unwrap();
    let datapath = rig.node.sandbox().namespaces().run(open).unwrap();
    assert!(datapath.packet_error().is_none(), "{:?}", datapath.packet_error());
    datapath
}

/// A program that runs on single packets.
pub(crate) struct Runner(SchedClassifier);

impl Runner {
    /// The verdict about a frame; the frame becomes what the program made of it. It was received by
    /// a loopback interface, whose index is 1.
    pub(crate) fn run(&self, frame: &mut Vec<u8>) -> i32 {
        self.run_from(0, frame)
    }

    /// The same about a frame that came to the host by this interface; 0: the host sends it.
    pub(crate) fn run_from(&self, interface: u32, frame: &mut Vec<u8>) -> i32 {
        /// Octets of `struct __sk_buff`, and the offset of `ingress_ifindex` in it.
        const CONTEXT: usize = 192;
        const INGRESS: usize = 36;
        let mut context = [0; CONTEXT];
        context[INGRESS..INGRESS + 4].copy_from_slice(&interface.to_ne_bytes());
        let mut out = [0; 4096];
        let options = TestRunOptions {
            ctx_in: Some(&context),
            data_in: Some(&frame[..]),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        };
        let result = self.0.test_run(options).unwrap();
        frame.clear();
        frame.extend_from_slice(&out[..result.data_size_out as usize]);
        result.return_value.cast_signed()
    }

    /// The verdict about a frame, and the time of one run.
    pub(crate) fn timed(&self, frame: &[u8]) -> (i32, Duration) {
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        let result = self.0.test_run(options).unwrap();
        (result.return_value.cast_signed(), result.duration)
    }

    /// The time of one of `repeat` runs on the same frame, which the program must leave as it is.
    pub(crate) fn time(&self, frame: &[u8], repeat: u32) -> Duration {
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
        self.0.test_run(options).unwrap().duration
    }
}
