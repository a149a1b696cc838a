//! What reads: `route list`, `route show`, `route export`, `status`.

use std::sync::mpsc as threads;

use super::*;

#[test]
fn routes_are_listed_as_a_table_json_and_yaml() {
    let list =
        || RouteList { version: VERSION, routes: vec![view(vec![backend(7, 0), backend(8, 3)])] };
    let rig = Rig::with_agent(move |command| match command {
        Command::Routes(reply) => reply.send(Ok(list())).expect("somebody waits"),
        other => unexpected(other),
    });
    let ended = rig.run(&["route", "list"]);
    let expected = "\
SOURCE      VIP         DESTINATION  BACKENDS  OPEN  ESTABLISHED  FAILED  ORIGIN
a.internal  198.18.0.7  lb.public    1 of 2       1            7       2  command line
";
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Done, expected));
    let json: RouteList =
        serde_json::from_str(&rig.run(&["route", "list", "-o", "json"]).out).expect("JSON");
    let yaml: RouteList =
        serde_yaml_ng::from_str(&rig.run(&["route", "ls", "--output", "yaml"]).out).expect("YAML");
    assert_eq!((json, yaml), (list(), list()));
    let colourful = rig.run_with(&["route", "list"], "", true).out;
    assert!(colourful.contains("\x1b["), "{colourful:?}");
}

#[test]
fn a_route_is_shown_with_its_backends() {
    let rig = Rig::with_agent(|command| match command {
        Command::Route(source, reply) if source.to_string() == "a.internal" => {
            let show =
                RouteShow { version: VERSION, route: view(vec![backend(7, 0), backend(8, 3)]) };
            reply.send(Ok(show)).expect("somebody waits");
        }
        Command::Route(source, reply) => {
            reply.send(Err(ApiError::no_route(&source))).expect("somebody waits")
        }
        other => unexpected(other),
    });
    let expected = "\
a.internal
  vip            198.18.0.7
  destination    lb.public
  ports          443, 80:8080
  resolver       dns.upstreams
  source ips     the kernel's choice
  on no backend  refuse
  idle timeout   off
  origin         command line
  live           yes
  addresses      fresh, TTL 30 s
  connects       9 started, 7 established, 1 open, 2 refused by the backend
  traffic        1.5 KiB received, 0 B sent on closed connections

BACKEND      STATE                               OPEN  ESTABLISHED  RESET  REFUSED TIMED OUT OTHER
203.0.113.7  eligible                               1            7      0        2         0     0
203.0.113.8  ejected after 3 failures, retry in 4 s 1            7      0        2         0     0
";
    let ended = rig.run(&["route", "show", "a.internal"]);
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!((ended.exit, squeezed(&ended.out)), (Exit::Done, squeezed(expected)));
    let ended = rig.run(&["route", "show", "b.internal"]);
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Failed, ""));
    assert_eq!(
        ended.err,
        "redirector: there is no route for b.internal: `redirector route list` shows the routes\n"
    );
}

#[test]
fn status_has_a_summary_first_and_an_exit_code() {
    let problem = || Problem {
        code: api::ProblemCode::Unresolved,
        source: None,
        message: "lb.public does not resolve".into(),
        remedy: Some("check the name".into()),
        degrades: true,
    };
    let (degraded, is_degraded) = threads::channel::<bool>();
    let rig = Rig::with_agent(move |command| match command {
        Command::Status(reply) => {
            let problems =
                if is_degraded.try_recv().unwrap_or_default() { vec![problem()] } else { vec![] };
            reply.send(Ok(status(problems))).expect("somebody waits");
        }
        other => unexpected(other),
    });
    let ended = rig.run(&["status"]);
    let expected = "\
redirecting 1 route for 1 cgroup; 1 backend ejected

agent      version 0.1.0, pid 4711, up 2 h 1 min
config     /etc/redirector/redirector.toml, loaded 1970-01-01 00:00:00 UTC
dns        169.254.20.53:53 answers 1 name
upstreams  10.0.0.2:53 (ejected: it failed), 10.0.0.3:53
intercept  sockets: queries to 10.96.0.10 (12) go to the shim
datapath   ABI 1, 1 program at /sys/fs/bpf/redirector, heartbeat 120 ms ago
pool       198.18.0.0/16
upgraded   from version 0.0.9 (ABI 1) on 1970-01-01 00:00:00 UTC
cgroup2    /sys/fs/cgroup
attached   /sys/fs/cgroup/kubepods
draining   2 cgroups with open sockets, followed until they close
uncovered  /sys/fs/cgroup/docker (preset docker, 2 connections)
           /sys/fs/cgroup/a.service (1 connection)
ports      12000 in use from 192.0.2.9 to 203.0.113.7:443
packets    1 name answered 6 times, 2 connects of guests moved to another backend
interfaces names and connects by packet: veth1
           names of attached cgroups by packet: lo
           failed: tap0: no memory
flows      3 open, 1 half-open, 0 refused (most open: veth1 3 of 16384)

SOURCE      VIP         DESTINATION  BACKENDS  OPEN  ESTABLISHED  FAILED  ORIGIN
a.internal  198.18.0.7  lb.public    1 of 2       1            7       2  command line
";
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Done, expected));
    degraded.send(true).expect("the script listens");
    let ended = rig.run(&["status"]);
    assert_eq!(ended.exit, Exit::Failed);
    assert!(
        ended.out.contains("\n\n! lb.public does not resolve\n    check the name\n\nagent "),
        "{}",
        ended.out
    );
    degraded.send(true).expect("the script listens");
    let ended = rig.run(&["status", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!(
        (ended.exit, &json["version"], &json["state"]),
        (Exit::Failed, &1.into(), &"degraded".into())
    );
}

#[test]
fn without_agent_and_pins_every_command_exits_with_4() {
    let rig = Rig::without_agent();
    for arguments in [
        &["status"][..],
        &["route", "list"],
        &["route", "add", "b.internal", "lb.public"],
        &["route", "export"],
    ] {
        let ended = rig.run(arguments);
        assert_eq!((ended.exit, ended.out.as_str()), (Exit::Absent, ""), "{arguments:?}");
        let socket = rig.at("run/control.sock");
        let words = format!(
            "redirector: no agent answers on {}, and nothing of it is in the kernel: start it with \
                `redirector run`, or name its configuration with --config\n",
            socket.display()
        );
        assert_eq!(ended.err, words, "{arguments:?}");
    }
}

#[test]
fn the_agent_is_found_despite_a_broken_configuration() {
    let rig = Rig::with_agent(|command| match command {
        Command::Export(reply) => reply
            .send(Ok(Export {
                version: VERSION,
                wildcards: "one_label".into(),
                routes: vec![definition(&["443"])],
            }))
            .expect("somebody waits"),
        other => unexpected(other),
    });
    let broken = std::fs::read_to_string(rig.at("redirector.toml")).expect("read") + "sauce = 1\n";
    std::fs::write(rig.at("redirector.toml"), broken).expect("written");
    assert_eq!(rig.run(&["config", "check"]).exit, Exit::Usage);
    let ended = rig.run(&["route", "export"]);
    let expected = "wildcards = \"one_label\"\n\n[[routes]]\nsource = \"a.internal\"\n\
        destination = \"lb.public\"\nports = [\"443\"]\n";
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Done, expected), "{ended:?}");
}

#[test]
fn an_agent_of_another_version_is_reported() {
    let rig = Rig::with_agent(|command| match command {
        Command::Status(reply) => {
            let mut status = status(vec![]);
            status.agent.as_mut().expect("an agent").version = "9.8.7".into();
            reply.send(Ok(status)).expect("somebody waits");
        }
        other => unexpected(other),
    });
    let ended = rig.run(&["status"]);
    let words = format!(
        "agent      version 9.8.7 (this command is {}: restart the agent to upgrade it), pid 4711",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(ended.exit, Exit::Done);
    assert!(ended.out.contains(&words), "{}", ended.out);
}
