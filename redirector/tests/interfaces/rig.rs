//! A node with interfaces that come and go, and a datapath that attaches to them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use redirector::{
    datapath::{
        self, Datapath, InterfaceAttachment, InterfaceRole, InterfaceTarget, Settings, TcHook,
        Version,
    },
    pool::Pool,
};
use redirector_common::{abi, names};
use testbed::{Executor, ExecutorOptions, Rig};

/// The time limit of a command.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn settings() -> Settings {
    let pool = Pool::new("198.18.0.0/16".parse().unwrap(), None, true).unwrap();
    Settings { bpffs: PathBuf::from("/sys/fs/bpf/redirector"), pool, debug_log: false }
}

/// A node and a datapath without cgroups.
pub(crate) struct Bed {
    // Before the rig: the namespaces live as long as their last user.
    pub(crate) datapath: Datapath,
    pub(crate) hook: TcHook,
    /// Where the other ends of the veths are.
    sandbox: Executor,
    pub(crate) rig: Rig,
}

impl Bed {
    pub(crate) fn new(hook: TcHook) -> Self {
        let rig = Rig::new().unwrap();
        let sandbox = rig.executor(ExecutorOptions::pod("guests")).unwrap();
        let datapath = open(&rig, hook, &Version::own());
        Self { datapath, hook, sandbox, rig }
    }

    /// Opens the datapath again, as a restarted agent of this version does.
    pub(crate) fn reopen(&mut self, version: &Version) {
        self.datapath = open(&self.rig, self.hook, version);
    }

    /// Runs `action` with the datapath in the node's namespaces.
    pub(crate) fn run<T: Send>(&mut self, action: impl FnOnce(&mut Datapath) -> T + Send) -> T {
        let datapath = &mut self.datapath;
        self.rig.node.sandbox().namespaces().run(|| action(datapath)).unwrap()
    }

    /// A line of shell on the node.
    pub(crate) fn shell(&self, line: &str) -> String {
        self.rig.node.sandbox().run(line, LIMIT).unwrap().success().unwrap().stdout
    }

    /// A veth whose peer is in a namespace of its own, and its index.
    pub(crate) fn veth(&self, name: &str) -> u32 {
        let namespace = self.sandbox.sandbox().namespaces().net_path();
        self.shell(&format!("ip link add {name} type veth peer name {name} netns {namespace}"));
        self.index(name)
    }

    pub(crate) fn index(&self, name: &str) -> u32 {
        let line = self.shell(&format!("ip -o link show {name}"));
        line.split(':').next().unwrap().parse().unwrap()
    }

    /// Attaches to a guest's interface.
    pub(crate) fn attach_guest(&mut self, name: &str, index: u32) {
        self.attach(&target(name, index, InterfaceRole::Guest));
    }

    pub(crate) fn attach(&mut self, target: &InterfaceTarget) {
        let failures = self.run(|datapath| {
            datapath.attach(&[]).unwrap();
            datapath.attach_interfaces(std::slice::from_ref(target)).unwrap()
        });
        assert!(failures.is_empty(), "{failures:?}");
    }

    /// What is attached, without the agent.
    pub(crate) fn inspected(&mut self) -> Vec<InterfaceAttachment> {
        self.run(|_| datapath::inspect(&settings().bpffs).unwrap().expect("pins").interfaces)
    }

    /// The pins of an interface.
    pub(crate) fn pins(&self, index: u32) -> Vec<String> {
        let dir = settings().bpffs.join(format!("v{}/interfaces/{index}", abi::ABI));
        self.names(&dir)
    }

    pub(crate) fn names(&self, dir: &Path) -> Vec<String> {
        let listed = self.shell(&format!("ls -1 {} 2>/dev/null || true", dir.display()));
        listed.lines().map(str::to_owned).collect()
    }
}

pub(crate) fn target(name: &str, index: u32, role: InterfaceRole) -> InterfaceTarget {
    InterfaceTarget { index, name: name.to_owned(), role, redirects: role == InterfaceRole::Guest }
}

pub(crate) fn open(rig: &Rig, hook: TcHook, version: &Version) -> Datapath {
    rig.node
        .sandbox()
        .namespaces()
        .run(|| {
            let mut datapath = Datapath::open_as(&settings(), version).unwrap();
            assert!(datapath.packet_error().is_none(), "{:?}", datapath.packet_error());
            if hook == TcHook::Clsact {
                datapath.force_clsact();
            }
            datapath
        })
        .unwrap()
}

/// The hooks that this kernel has.
pub(crate) fn hooks() -> Vec<TcHook> {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = text.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    match version >= (6, 6) {
        true => vec![TcHook::Tcx, TcHook::Clsact],
        false => vec![TcHook::Clsact],
    }
}

/// The names of a guest's programs.
pub(crate) const GUEST_PROGRAMS: [&str; 2] = [names::EGRESS, names::INGRESS];
