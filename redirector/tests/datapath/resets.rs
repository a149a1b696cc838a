//! Backends that accept a connect and reset the connection before a byte arrives.

use std::{net::SocketAddr, time::Duration};

use redirector::datapath::{EjectionCause, EventKind};
use testbed::{
    Executor, ExecutorOptions,
    customer::{AbruptServer, BannerServer, Ending},
    process,
    topology::LOAD_BALANCERS,
};

use crate::rig::{Bed, INDEX, LIMIT, PORT, VIP, backend};

const RESET: EjectionCause = EjectionCause::Reset;

/// A bed whose only backend ends connections like this.
fn bed_with(ending: Ending) -> (Bed, AbruptServer) {
    let mut bed = Bed::new();
    let server = abrupt(&bed, ending);
    bed.put(&[], &LOAD_BALANCERS[..1]);
    (bed, server)
}

/// A server at the first load balancer's address.
fn abrupt(bed: &Bed, ending: Ending) -> AbruptServer {
    bed.rig.customer.abrupt_server(SocketAddr::from((LOAD_BALANCERS[0], PORT)), ending).unwrap()
}

/// Runs a script with a connected socket `s` in `executor`. What ended it, and after how many
/// milliseconds: the errno of the call that reported it, which may be the connect, or 0.
fn connected(executor: &Executor, script: &str) -> (i32, u64) {
    let script = format!(
        "import ctypes, os, socket, struct, subprocess, time\n\
         libc = ctypes.CDLL(None)\n\
         began, error = time.monotonic(), 0\n\
         try:\n\
         \x20s = socket.create_connection(('{VIP}', {PORT}), 10)\n\
         {}\n\
         except OSError as e: error = e.errno\n\
         print(error, int((time.monotonic() - began) * 1000))",
        script.lines().map(|line| format!(" {line}\n")).collect::<String>()
    );
    let mut command = executor.command("/usr/bin/python3");
    command.args(["-c", &script]);
    let output = process::finish(command, LIMIT).unwrap().success().unwrap().stdout;
    let (error, took) = output.trim().split_once(' ').unwrap();
    (error.parse().unwrap(), took.parse().unwrap())
}

/// Waits until `bed` has counted `number` connections as ended.
fn wait_for_ends(bed: &Bed, number: u64) {
    process::until("the end of each connection", LIMIT, || Ok(bed.counters().closed == number))
        .unwrap();
}

/// What a client does with a connection that the backend resets.
const RESETS: &[(&str, Ending, &str)] = &[
    ("at once", Ending::ResetAtOnce, "s.recv(100)"),
    ("after a request", Ending::ResetAtRequest, "s.send(b'hello'); s.recv(100)"),
    ("after a long request", Ending::ResetAtRequest, "s.send(bytes(4000)); s.recv(100)"),
    ("after requests", Ending::ResetAtRequest, "s.send(b'a'); s.send(b'b'); s.recv(100)"),
    (
        "late, after a request",
        Ending::ResetAfter(Duration::from_millis(1500)),
        "s.send(b'hello'); s.recv(100)",
    ),
];

/// The errnos of a call on a connection that was reset: ECONNRESET, and EPIPE of a later send.
const WAS_RESET: [i32; 2] = [104, 32];

#[test]
fn a_reset_before_a_byte_speaks_against_the_backend() {
    for (name, ending, script) in RESETS {
        // Of a silent client only a reset within a second counts, and this host may be busy.
        let in_time = (0..10).any(|_| is_counted_as_reset(name, *ending, script));
        assert!(in_time, "{name}: each of ten resets came late");
    }
}

/// Whether the reset came in time to be counted; then it was.
fn is_counted_as_reset(name: &str, ending: Ending, script: &str) -> bool {
    let (mut bed, _server) = bed_with(ending);
    bed.datapath.set_event_sampling(Some(0)).unwrap();
    let mut reader = bed.datapath.take_event_reader().expect("the first call");
    let (error, took) = connected(&bed.executor, script);
    assert!(WAS_RESET.contains(&error), "{name}: {error}");
    wait_for_ends(&bed, 1);
    if ending == Ending::ResetAtOnce && took >= 900 {
        return false;
    }
    let c = bed.counters();
    assert_eq!((c.established, c.reset, c.closed), (1, 1, 1), "{name}: {c:?}");
    let status = bed.datapath.backends(INDEX).unwrap().remove(0);
    assert_eq!((status.counters.reset, status.counters.closed), (1, 1), "{name}");
    let unhealthy = bed.datapath.unhealthy_backends().unwrap();
    assert_eq!((unhealthy.len(), unhealthy[0].cause), (1, RESET), "{name}");
    assert!(unhealthy[0].client.is_some(), "{name}: for its own cgroup only");
    let mut events = Vec::new();
    process::until("both events", LIMIT, || {
        events.extend(reader.read(10));
        Ok(events.len() >= 2)
    })
    .unwrap();
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::Established, EventKind::Reset], "{name}");
    assert_eq!(events[1].rx_bytes, 0, "{name}");
    true
}

/// What a client does with a connection, so that nobody is to blame for its end.
const OTHER_ENDS: &[(&str, Ending, &str)] = &[
    ("the client closes at once", Ending::Wait, "s.close()"),
    ("it shuts down", Ending::Wait, "s.shutdown(socket.SHUT_RDWR)"),
    ("SO_LINGER 0", Ending::Wait, "linger(); s.close()"),
    ("SO_LINGER 0 after a request", Ending::Wait, "request(); linger(); s.close()"),
    ("AF_UNSPEC", Ending::Wait, "unspec()"),
    ("the server closes without a byte", Ending::Finish, "s.recv(100)"),
    ("and resets what comes then", Ending::Finish, "s.recv(9); s.send(b'a'); time.sleep(.2)"),
    (
        "a byte arrived before the reset",
        Ending::ResetAfterByte,
        "s.recv(1); s.send(b'a'); s.recv(100)",
    ),
    (
        "the client has sent nothing for a second",
        Ending::ResetAfter(Duration::from_millis(1300)),
        "s.recv(100)",
    ),
];

#[test]
fn no_other_end_speaks_against_the_backend() {
    let helpers = "def linger(): s.setsockopt(1, 13, struct.pack('ii', 1, 0))\n\
         def unspec(): libc.connect(s.fileno(), bytes(16), 16)\n\
         def request():\n\
         \x20s.send(b'hello')\n\
         \x20while s.getsockopt(6, 11, 104)[24:28] != bytes(4): time.sleep(.01)\n";
    for (name, ending, script) in OTHER_ENDS {
        let (mut bed, _server) = bed_with(*ending);
        connected(&bed.executor, &format!("{helpers}{script}"));
        wait_for_ends(&bed, 1);
        let c = bed.counters();
        assert_eq!((c.established, c.reset, c.closed), (1, 0, 1), "{name}: {c:?}");
        assert_eq!(bed.datapath.unhealthy_backends().unwrap(), [], "{name}");
    }
}

#[test]
fn silence_and_an_administrator_are_no_reset() {
    let (mut bed, _server) = bed_with(Ending::Wait);
    // TCP_USER_TIMEOUT, with data that is not acknowledged; keepalive probes.
    for (number, script) in [
        "s.setsockopt(6, 18, 400); silence(); s.send(b'hello'); s.recv(100)",
        "s.setsockopt(1, 9, 1); s.setsockopt(6, 4, 1); s.setsockopt(6, 5, 1); \
            s.setsockopt(6, 6, 1); silence(); s.recv(100)",
    ]
    .iter()
    .enumerate()
    {
        let flag = bed.executor.sandbox().home().join(format!("connected{number}"));
        let script = format!(
            "def silence():\n\
             \x20open('{0}', 'w').close()\n\
             \x20while os.path.exists('{0}'): time.sleep(.01)\n{script}",
            flag.display()
        );
        let output = std::thread::scope(|scope| {
            let client = scope.spawn(|| connected(&bed.executor, &script));
            process::until("the client connects", LIMIT, || Ok(flag.exists())).unwrap();
            bed.rig.customer.silence(LOAD_BALANCERS[0]).unwrap();
            std::fs::remove_file(&flag).unwrap();
            client.join().unwrap()
        });
        assert_eq!(output.0, 110, "{script}");
        bed.rig.customer.unsilence(LOAD_BALANCERS[0]).unwrap();
        wait_for_ends(&bed, number as u64 + 1);
    }
    connected(
        &bed.executor,
        "s.send(b'hello'); time.sleep(.2)\n\
         subprocess.run(['ss', '-K', 'dport', '=', '8080'], check=True, capture_output=True)\n\
         s.recv(100)",
    );
    wait_for_ends(&bed, 3);
    assert_eq!(bed.counters().reset, 0);
    assert_eq!(bed.datapath.unhealthy_backends().unwrap(), []);
}

/// How many of `number` connections of `executor`, each with a request, got an answer.
fn served(executor: &Executor, number: u32) -> u32 {
    let script = format!(
        "import socket\n\
         served = 0\n\
         for n in range({number}):\n\
         \x20try:\n\
         \x20\x20with socket.create_connection(('{VIP}', {PORT}), 10) as s:\n\
         \x20\x20\x20s.send(b'GET / HTTP/1.0\\r\\n\\r\\n'); served += s.recv(1) != b''\n\
         \x20except ConnectionResetError: pass\n\
         print(served)"
    );
    let mut command = executor.command("/usr/bin/python3");
    command.args(["-c", &script]);
    let seen = process::finish(command, LIMIT).unwrap().success().unwrap();
    seen.stdout.trim().parse().unwrap()
}

/// A bed with a backend that resets each request, and one that serves.
fn bed_with_one_of_two() -> (Bed, AbruptServer, BannerServer) {
    let mut bed = Bed::new();
    let servers = (abrupt(&bed, Ending::ResetAtRequest), bed.server(1, "two"));
    bed.put(&[], &LOAD_BALANCERS);
    (bed, servers.0, servers.1)
}

/// For whom the first backend is ejected, and after how many resets.
fn ejected(bed: &Bed) -> Vec<(bool, u8)> {
    let backends = bed.datapath.backends(INDEX).unwrap();
    assert!(backends[1].ejections.is_empty(), "{backends:?}");
    let of_first = backends[0].ejections.iter();
    of_first
        .map(|at| {
            assert_eq!(at.cause, RESET);
            (at.client.is_none(), at.failures)
        })
        .collect()
}

#[test]
fn a_backend_that_resets_gets_few_connects() {
    let (mut bed, server, _two) = bed_with_one_of_two();
    let stranger = bed.rig.executor(ExecutorOptions::pod("stranger")).unwrap();
    // It is tried again after 1, 2, 4 … s, and each connect that it accepts changes nothing.
    let began = std::time::Instant::now();
    let mut lost = 0;
    while began.elapsed() < Duration::from_secs(4) {
        lost += 40 - served(&bed.executor, 40);
    }
    assert_eq!((u64::from(lost), bed.counters().reset), (server.accepted(), server.accepted()));
    let seconds = began.elapsed().as_secs();
    assert!(
        (1..=u64::from(seconds.ilog2()) + 2).contains(&u64::from(lost)),
        "{lost} in {seconds} s"
    );
    // The executor's own provocations keep the backend from nobody else.
    assert!(ejected(&bed).iter().all(|&(for_all, _)| !for_all));
    server.set(Ending::Serve);
    let accepted = server.accepted();
    assert_eq!(served(&stranger, 40), 40);
    assert!(server.accepted() > accepted, "the others use it");
    // A probe that is accepted shows nothing; a connection that is served shows all.
    let failures = bed.datapath.unhealthy_backends().unwrap()[0].failures;
    bed.datapath.reinstate(backend(LOAD_BALANCERS[0])).unwrap();
    assert_eq!(bed.datapath.unhealthy_backends().unwrap()[0].failures, failures);
    process::until("a connection is served", LIMIT, || {
        assert_eq!(served(&bed.executor, 5), 5);
        Ok(bed.datapath.unhealthy_backends()?.is_empty())
    })
    .unwrap();
}

#[test]
fn two_cgroups_that_are_reset_eject_for_all() {
    let (bed, server, _two) = bed_with_one_of_two();
    let other = bed.rig.executor(ExecutorOptions::pod("other")).unwrap();
    let victim = bed.rig.executor(ExecutorOptions::pod("victim")).unwrap();
    let is_for_all = || ejected(&bed).iter().any(|&(for_all, _)| for_all);
    // Each time for longer, so that a busy host sees it, too.
    process::until("an ejection for all", LIMIT, || {
        served(&bed.executor, 10);
        served(&other, 10);
        let accepted = server.accepted();
        let all = is_for_all() && served(&victim, 10) == 10 && is_for_all();
        assert!(!all || server.accepted() == accepted, "the victim avoids it");
        Ok(all)
    })
    .unwrap();
}

#[test]
fn resets_eject_nothing_with_the_option_off() {
    let (mut bed, server, _two) = bed_with_one_of_two();
    bed.datapath.set_eject_on_reset(false).unwrap();
    bed.datapath.set_connect_timeout(Duration::from_millis(600)).unwrap();
    let lost = 100 - served(&bed.executor, 100);
    assert!((20..=80).contains(&lost), "{lost}");
    assert_eq!((bed.counters().reset, server.accepted()), (lost.into(), lost.into()));
    assert_eq!(bed.datapath.unhealthy_backends().unwrap(), []);
    bed.datapath.set_eject_on_reset(true).unwrap();
    process::until("a reset", LIMIT, || Ok(served(&bed.executor, 10) < 10)).unwrap();
    assert_eq!(bed.datapath.unhealthy_backends().unwrap().len(), 1);
}
