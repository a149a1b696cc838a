//! The command line against an agent that is a script: what it asks, what it prints, and how it
//! ends.

mod changing;
mod events;
mod reading;
mod reference;
mod top;
mod whole;

use std::{
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
    sync::mpsc as threads,
    thread::JoinHandle,
};

use tokio_util::sync::CancellationToken;

use super::{Exit, io::Env};
use crate::{
    control::{
        ApiError, Command, ErrorCode, Handle, Limits, Server,
        api::{self, *},
    },
    route::{RawRoute, RouteOrigin},
};

/// A configuration whose directories are its own, and perhaps an agent behind its socket.
struct Rig {
    directory: tempfile::TempDir,
    agent: Option<(CancellationToken, JoinHandle<()>)>,
    /// The columns of the terminal.
    width: Option<u16>,
}

/// How an invocation ended and what it printed.
#[derive(Debug)]
struct Ended {
    exit: Exit,
    out: String,
    err: String,
}

impl Rig {
    fn without_agent() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let rig = Self { directory, agent: None, width: None };
        let at = |name: &str| rig.at(name).display().to_string();
        let text = format!(
            "[agent]\nrun_dir = \"{}\"\nstate_dir = \"{}\"\nbpffs = \"{}\"\n\n[[routes]]\nsource = \
                \"a.internal\"\ndestination = \"lb.public\"\n",
            at("run"),
            at("state"),
            at("bpffs")
        );
        std::fs::write(rig.at("redirector.toml"), text).expect("written");
        rig
    }

    /// With an agent that answers every command by `script`.
    fn with_agent(script: impl Fn(Command) + Send + 'static) -> Self {
        let mut rig = Self::without_agent();
        std::fs::create_dir(rig.at("run")).expect("made");
        let (socket, stop) = (rig.at("run/control.sock"), CancellationToken::new());
        let (bound, is_bound) = threads::channel();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let server = Server::bind(&socket, Limits::default()).await.expect("bound");
                bound.send(()).expect("somebody waits");
                let (sender, mut queue) = tokio::sync::mpsc::channel(8);
                let handle = Handle::new(sender, std::time::Duration::from_secs(5));
                let serving = tokio::spawn(server.serve(handle, stopped));
                while let Some(command) = queue.recv().await {
                    script(command);
                }
                serving.await.expect("ends well");
            });
        });
        is_bound.recv_timeout(std::time::Duration::from_secs(10)).expect("it binds");
        rig.agent = Some((stop, thread));
        rig
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(arguments, "", false)
    }

    fn run_with(&self, arguments: &[&str], input: &str, colour: bool) -> Ended {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = self.run_into(arguments, input, colour, &mut out, &mut err);
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Ended { exit, out: text(out), err: text(err) }
    }

    fn run_into(
        &self,
        arguments: &[&str],
        input: &str,
        colour: bool,
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> Exit {
        let config = self.at("redirector.toml");
        let words = ["redirector", "--config"]
            .map(OsString::from)
            .into_iter()
            .chain([config.into_os_string()]);
        let arguments: Vec<_> = words.chain(arguments.iter().map(OsString::from)).collect();
        let mut env = Env {
            input: &mut input.as_bytes(),
            out,
            err,
            colour,
            width: self.width,
            variable: &|_| None,
        };
        super::main(arguments, &mut env)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.agent.take() {
            stop.cancel();
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the agent's script has panicked");
        }
    }
}

fn definition(ports: &[&str]) -> RawRoute {
    let mut raw: RawRoute =
        serde_json::from_str(r#"{"source": "a.internal", "destination": "lb.public"}"#)
            .expect("a route");
    raw.ports = (!ports.is_empty()).then(|| ports.iter().map(ToString::to_string).collect());
    raw
}

fn backend(last: u8, failures: u32) -> BackendView {
    BackendView {
        address: [203, 0, 113, last].into(),
        cause: (failures > 0).then_some(crate::datapath::EjectionCause::Connect),
        state: if failures == 0 { BackendState::Eligible } else { BackendState::Ejected },
        failures,
        retry_in_ms: (failures > 0).then_some(4000),
        ejections: vec![],
        counters: Some(BackendCounters {
            started: 9,
            established: 7,
            refused: 2,
            closed: 6,
            ..BackendCounters::default()
        }),
    }
}

fn view(backends: Vec<BackendView>) -> RouteView {
    RouteView {
        source: Some("a.internal".parse().expect("a source")),
        vip: VipView { index: 7, ipv4: Some([198, 18, 0, 7].into()), ipv6: None },
        origin: Some(RouteOrigin::CommandLine),
        definition: Some(definition(&["443", "80:8080"])),
        live: true,
        resolution: Some(Resolution {
            state: ResolutionState::Fresh,
            error: None,
            resolved_at: None,
            ttl_seconds: Some(30),
            rejected: vec![],
            left_out: vec![],
        }),
        backends,
        counters: Some(Counters {
            started: 9,
            established: 7,
            refused: 2,
            closed: 6,
            rx_bytes: 1536,
            ..Counters::default()
        }),
        answers: api::AnswerCounts { packet: 6, shim: 1 },
    }
}

fn interface(name: &str, connects: ServedBy) -> InterfaceInfo {
    InterfaceInfo {
        index: 7,
        name: Some(name.into()),
        kind: "veth".into(),
        names: ServedBy::Packet,
        connects,
        failed: false,
        reason: None,
        hook: Some("tcx".into()),
        programs: vec!["rd_ingress".into()],
        reattached: 0,
        preceded_by: vec![],
        flows: (connects == ServedBy::Packet).then_some(FlowsInfo {
            open: 3,
            half_open: 1,
            refused: 0,
            limit: 16384,
        }),
    }
}

fn upstream(address: &str, ejected: bool) -> UpstreamInfo {
    UpstreamInfo {
        looping_zones: Vec::new(),
        address: address.parse().expect("an address"),
        ejected,
        loops: false,
        queries: 9,
        failures: 2,
    }
}

fn status(problems: Vec<Problem>) -> api::Status {
    let at = AttachmentInfo {
        cgroup: Some("/sys/fs/cgroup/kubepods".into()),
        cgroup_id: 42,
        programs: vec!["rd_connect4".into()],
        live: true,
    };
    let status = api::Status {
        version: VERSION,
        state: State::Ok,
        summary: String::new(),
        problems,
        agent: Some(AgentInfo {
            pid: 4711,
            version: "0.1.0".into(),
            started_at: jiff::Timestamp::UNIX_EPOCH,
            uptime_seconds: 7260,
            standby: None,
        }),
        config: Some(ConfigInfo {
            path: "/etc/redirector/redirector.toml".into(),
            loaded_at: jiff::Timestamp::UNIX_EPOCH,
            error: None,
            restart_needed_for: vec![],
        }),
        dns: Some(DnsInfo {
            listen: vec!["169.254.20.53:53".parse().expect("an address")],
            names: 1,
            counters: [].into(),
            upstreams: vec![upstream("10.0.0.2:53", true), upstream("10.0.0.3:53", false)],
            interception: Some(InterceptionInfo {
                on: true,
                reason: None,
                way: InterceptWay::Sockets,
                resolvers: vec![InterceptedResolver {
                    address: [10, 96, 0, 10].into(),
                    intercepted: 12,
                }],
                bypassed_heartbeat_stale: 0,
            }),
        }),
        datapath: Some(DatapathInfo {
            abi: 1,
            pins: "/sys/fs/bpf/redirector".into(),
            pool_ipv4: "198.18.0.0/16".into(),
            pool_ipv6: None,
            heartbeat_age_ms: Some(120),
            programs: vec!["rd_connect4".into()],
            attachments: vec![at],
            cgroup2_mount: Some("/sys/fs/cgroup".into()),
            uncovered: vec![
                UncoveredCgroup {
                    cgroup: "/sys/fs/cgroup/docker".into(),
                    preset: Some("docker".into()),
                    connections: 2,
                },
                UncoveredCgroup {
                    cgroup: "/sys/fs/cgroup/a.service".into(),
                    preset: None,
                    connections: 1,
                },
            ],
            source_ports: [12_000, 999]
                .map(|ports| SourcePortsInfo {
                    source: [192, 0, 2, 9].into(),
                    backend: ([203, 0, 113, 7], 443).into(),
                    ports,
                })
                .into(),
            draining_cgroups: 2,
            upgraded: Some(UpgradeInfo {
                at: jiff::Timestamp::UNIX_EPOCH,
                from_version: Some("0.0.9".into()),
                from_abi: 1,
                to_version: "0.1.0".into(),
                to_abi: 2,
            }),
            packet: PacketInfo {
                answers_names: true,
                names: 1,
                counters: [("names_answered".to_owned(), 6), ("flows_moved".to_owned(), 2)].into(),
                interfaces: vec![
                    interface("veth1", ServedBy::Packet),
                    interface("lo", ServedBy::Cgroup),
                    InterfaceInfo {
                        failed: true,
                        names: ServedBy::None,
                        reason: Some("no memory".into()),
                        ..interface("tap0", ServedBy::None)
                    },
                ],
                ..PacketInfo::default()
            },
            ..DatapathInfo::default()
        }),
        events: Some(EventsInfo {
            emitted: 20,
            lost: 0,
            suppressed: 0,
            sampling_ratio: 1,
            readers: 0,
        }),
        routes: vec![view(vec![backend(7, 0), backend(8, 3)])],
    };
    status.concluded()
}

fn unexpected(command: Command) {
    panic!("an unexpected command: {command:?}");
}
