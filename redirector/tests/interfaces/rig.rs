//! A node with interfaces that come and go, and a datapath that attaches to them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use aya::maps::{HashMap, Map, MapData};
use redirector::{
    datapath::{
        self, Datapath, InterfaceAttachment, InterfaceRole, InterfaceTarget, Settings, TcHook,
        Version,
    },
    pool::Pool,
};
use redirector_common::{abi, names, packet::interface::Interface};
use testbed::{
    Executor, ExecutorOptions, Rig,
    foreign_filter::{CONTINUES, ForeignFilter, tcx_programs},
};

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
        let namespace = self.namespace();
        self.shell(&format!("ip link add {name} type veth peer name {name} netns {namespace}"));
        self.index(name)
    }

    /// The namespace of the veths' other ends.
    pub(crate) fn namespace(&self) -> String {
        self.sandbox.sandbox().namespaces().net_path()
    }

    /// Guests' interfaces, many of them: pairs, both ends of which are on the node.
    pub(crate) fn pairs(&self, count: u32) -> Vec<InterfaceTarget> {
        let line = |n: u32| {
            let (a, b) = (10_000 + 2 * n, 10_001 + 2 * n);
            format!("link add many{a} index {a} type veth peer name many{b} index {b}")
        };
        let lines: Vec<_> = (0..count).map(line).collect();
        self.shell(&format!("ip -batch - <<'END'\n{}\nEND", lines.join("\n")));
        let end = |index: u32| target(&format!("many{index}"), index, InterfaceRole::Guest);
        (10_000..10_000 + 2 * count).map(end).collect()
    }

    /// A filter of another owner.
    pub(crate) fn add_foreign_filter(&mut self, device: &str, direction: &str, priority: u16) {
        self.add_foreign_filter_for("all", device, direction, priority);
    }

    /// The same, for one protocol.
    pub(crate) fn add_foreign_filter_for(
        &mut self,
        protocol: &str,
        device: &str,
        direction: &str,
        priority: u16,
    ) {
        let path = PathBuf::from(format!("/sys/fs/bpf/foreign-{device}-{direction}"));
        self.run(|_| ForeignFilter::returning(CONTINUES).unwrap().pin(&path).unwrap());
        self.shell(&format!(
            "tc qdisc add dev {device} clsact 2>/dev/null || true; \
             tc filter add dev {device} {direction} prio {priority} protocol {protocol} \
                bpf direct-action object-pinned {}",
            path.display()
        ));
    }

    /// What runs on an interface's hooks, ingress first: filters by name and ID, links by the
    /// program's ID.
    pub(crate) fn order(&mut self, index: u32) -> Vec<String> {
        if self.hook == TcHook::Tcx {
            let listed = self.run(|_| [true, false].map(|ingress| tcx_programs(index, ingress)));
            return listed.into_iter().flat_map(Result::unwrap).map(|id| id.to_string()).collect();
        }
        let links = self.shell("ip -o link show");
        let prefix = format!("{index}: ");
        let line = links.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap();
        let name = line.split([':', '@']).next().unwrap();
        let filters = self.shell(&format!(
            "for way in ingress egress; do tc filter show dev {name} $way; done | grep handle | \
                sed 's/.*handle 0x[0-9a-f]* \\([a-z_]*\\).* id \\([0-9]*\\).*/\\1 \\2/'"
        ));
        filters.lines().map(str::to_owned).collect()
    }

    /// Counts expired flows of a guest, as an agent does.
    pub(crate) fn count_flows(&mut self, index: u32, expired: u64) {
        let mut map = self.elements();
        let element = map.get(&index, 0).unwrap();
        map.insert(index, Interface { expired, ..element }, 0).unwrap();
    }

    /// The expired flows that were counted for an interface; none without an element.
    pub(crate) fn counted_flows(&mut self, index: u32) -> Option<u64> {
        self.elements().get(&index, 0).ok().map(|element| element.expired)
    }

    fn elements(&mut self) -> HashMap<MapData, u32, Interface> {
        let newest = self.names(&settings().bpffs).pop().unwrap();
        let path = settings().bpffs.join(format!("{newest}/maps/{}", names::INTERFACES));
        let map = self.run(|_| MapData::from_pin(path).unwrap());
        HashMap::try_from(Map::HashMap(map)).unwrap()
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
