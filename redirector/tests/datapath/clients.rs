//! Every way to connect. `docs/matrix.md` lists which are redirected, and the peer of each.

use std::{
    io::{BufRead, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use redirector::{
    datapath::RouteCounters,
    plan::{Change, PlannedRoute},
};
use testbed::{Sandbox, process, topology::LOAD_BALANCERS};

use crate::rig::{Bed, INDEX, LIMIT, PORT, VIP, put};

/// A second route's index and VIP.
const OTHER: (u32, &str) = (8, "198.18.0.8");

/// The ways to connect, in Python, which passes them to the kernel unchanged.
const SCRIPT: &str = include_str!("clients.py");

fn command(sandbox: &Sandbox, way: &str, address: &str, more: &[&str]) -> Command {
    let mut command = sandbox.command("/usr/bin/python3");
    command.args(["-c", SCRIPT, way, address, &PORT.to_string()]).args(more);
    command
}

/// The output of a way to connect, from the executor to the VIP.
fn lines(bed: &Bed, way: &str, more: &[&str]) -> Vec<String> {
    let finished = process::finish(command(bed.executor.sandbox(), way, VIP, more), LIMIT).unwrap();
    finished
        .success()
        .unwrap_or_else(|error| panic!("{way}: {error:#}"))
        .stdout
        .lines()
        .map(str::to_owned)
        .collect()
}

/// A client that keeps its sockets until it is dropped.
struct Running {
    child: Child,
    /// Keeps the client's standard input open.
    _input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(sandbox: &Sandbox, way: &str, address: &str, more: &[&str]) -> Self {
        let mut child = command(sandbox, way, address, more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { _input: child.stdin.take(), child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("a line").unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The counters after every connection has ended: the last acknowledgement comes after the client
/// has exited.
#[track_caller]
fn settled(bed: &Bed) -> RouteCounters {
    let began = Instant::now();
    loop {
        let c = bed.counters();
        let ends = c.established + c.refused + c.timed_out + c.unreachable + c.aborted + c.unsent;
        if c.started == ends && c.closed == c.established {
            return c;
        }
        assert!(began.elapsed() < Duration::from_secs(5), "the counters do not balance: {c:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn every_way_to_connect_is_redirected_and_counted_once() {
    let (bed, _one, _two) = Bed::with_two_servers();
    let four = format!("{VIP}:{PORT}");
    let ways = [
        ("blocking", &four, 1),
        ("with_a_timeout", &four, 1),
        ("non_blocking", &four, 1),
        ("twice_while_under_way", &four, 1),
        ("io_uring", &four, 1),
        ("mapped", &format!("::ffff:{VIP}:{PORT}"), 1),
        ("bound_to_an_address", &four, 1),
        ("bound_to_an_address_without_a_port", &four, 1),
        ("bound_to_a_port", &four, 1),
        ("bound_to_a_device", &four, 1),
        ("connected_by_a_child", &four, 1),
        ("disconnected_and_connected_again", &four, 2),
    ];
    let mut before = RouteCounters::default();
    for (way, peer, count) in ways {
        let seen = lines(&bed, way, &[]);
        let good =
            |line: &String| ["one", "two"].iter().any(|banner| *line == format!("{peer} {banner}"));
        assert!(seen.len() == count && seen.iter().all(good), "{way}: {seen:?}");
        let after = settled(&bed);
        assert_eq!(
            (after.started - before.started, after.established - before.established),
            (count as u64, count as u64),
            "{way}"
        );
        before = after;
    }
    assert_eq!(
        (before.denied, before.passed, before.started - before.established),
        (0, 0, 0),
        "{before:?}"
    );
    assert_eq!(bed.rig.customer.leaked_packets().unwrap(), 0);
}

#[test]
fn fast_open_is_redirected_whether_its_syn_carries_data_or_not() {
    let mut bed = Bed::new();
    let [address, _] = LOAD_BALANCERS;
    let mut server =
        Running::start(bed.rig.customer.sandbox(), "serve_fast_open", &address.to_string(), &[]);
    assert_eq!(server.line(), "up");
    bed.put(&[], &[address]);
    let expected =
        |second: &str| [format!("{VIP}:{PORT} fast plain"), format!("{VIP}:{PORT} fast {second}")];
    // There is no cookie for the server's address yet: the first connect requests one. From then on
    // the SYN carries data.
    assert_eq!(lines(&bed, "fast_open_connect", &[]), expected("data-in-syn"));
    assert_eq!(
        lines(&bed, "fast_open_sendto", &[]),
        [&expected("data-in-syn")[1..], &expected("data-in-syn")[1..]].concat()
    );
    let counters = settled(&bed);
    assert_eq!((counters.started, counters.established), (4, 4), "{counters:?}");
    // A socket that connects and never writes has sent nothing.
    assert!(lines(&bed, "fast_open_abandoned", &[]).is_empty());
    let counters = settled(&bed);
    assert_eq!(
        (counters.started, counters.established, counters.unsent),
        (6, 5, 1),
        "{counters:?}"
    );
    drop(server);
}

/// The hooks see the first subflow, which is a socket of its own; getpeername is called for the
/// parent socket, which has no origin.
#[test]
fn the_peer_of_a_redirected_mptcp_socket_is_the_backend() {
    let (bed, _one, _two) = Bed::with_two_servers();
    let seen = lines(&bed, "mptcp", &[]);
    let counters = settled(&bed);
    assert_eq!((counters.started, counters.established), (1, 1), "{counters:?}");
    let backends = LOAD_BALANCERS
        .iter()
        .zip(["one", "two"])
        .map(|(address, banner)| format!("{address}:{PORT} {banner}"));
    assert!(seen.len() == 1 && backends.into_iter().any(|line| line == seen[0]), "{seen:?}");
}

#[test]
fn udp_probes_are_left_alone_on_every_port_and_in_either_family() {
    let (bed, _one, _two) = Bed::with_two_servers();
    let peers = |host: &str| [" 0".to_owned(), format!("{host} 9"), format!("{host} 443")];
    assert_eq!(
        lines(&bed, "udp_probe", &[]),
        [peers(VIP), peers(&format!("::ffff:{VIP}"))].concat()
    );
    assert_eq!(bed.counters(), RouteCounters::default());
}

#[test]
fn one_source_port_serves_two_vips_with_different_backends() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    let other = |backends: &[std::net::Ipv4Addr]| {
        let backends = Some(backends.iter().copied().map(Into::into).collect());
        Change::Put { index: OTHER.0, route: PlannedRoute { backends, ..PlannedRoute::default() } }
    };
    let [one, two] = LOAD_BALANCERS;
    bed.datapath.apply(&[put(&[], &[one]), other(&[two])]).unwrap();
    let both = [format!("{VIP}:{PORT} one"), format!("{}:{PORT} two", OTHER.1)];
    assert_eq!(lines(&bed, "from_one_port_to_two", &[OTHER.1]), both);
    // The second route also has the backend of the first: a connect that selects it fails, and the
    // next one of that socket selects the other.
    bed.datapath.apply(&[put(&[], &[one]), other(&[one, two])]).unwrap();
    for _ in 0..8 {
        let seen = lines(&bed, "from_one_port_to_two", &[OTHER.1]);
        assert!(
            seen == both || seen == [&["EADDRNOTAVAIL".to_owned()], &both[..]].concat(),
            "{seen:?}"
        );
    }
    // The same without another backend.
    bed.datapath.apply(&[put(&[], &[one]), other(&[one])]).unwrap();
    let refused = ["EADDRNOTAVAIL"; 4].map(str::to_owned);
    assert_eq!(lines(&bed, "from_one_port_to_two", &[OTHER.1]), [&refused, &both[..1]].concat());
    let counters = bed.datapath.route_counters(OTHER.0).unwrap();
    assert!(
        counters.unsent >= 4 && counters.started == counters.established + counters.unsent,
        "{counters:?}"
    );
    // It is ejected for this cgroup only.
    let backends = bed.datapath.backends(OTHER.0).unwrap();
    let ejections: Vec<_> = backends.iter().flat_map(|backend| &backend.ejections).collect();
    assert!(!ejections.is_empty(), "{backends:?}");
    assert!(ejections.iter().all(|ejection| ejection.client.is_some()), "{backends:?}");
}

#[test]
fn ten_thousand_open_sockets_are_all_counted() {
    const COUNT: u64 = 10_000;
    let mut bed = Bed::new();
    let customer = bed.rig.customer.sandbox();
    let mut servers =
        LOAD_BALANCERS.map(|address| Running::start(customer, "hold", &address.to_string(), &[]));
    assert!(servers.iter_mut().all(|server| server.line() == "up"));
    bed.put(&[], &LOAD_BALANCERS);
    let mut client = Running::start(bed.executor.sandbox(), "many", VIP, &[&COUNT.to_string()]);
    assert_eq!(client.line(), COUNT.to_string());
    let counters = bed.counters();
    assert_eq!(
        (counters.started, counters.established, counters.closed),
        (COUNT, COUNT, 0),
        "{counters:?}"
    );
    let shares: Vec<u64> = bed
        .datapath
        .backends(INDEX)
        .unwrap()
        .iter()
        .map(|backend| backend.counters.established)
        .collect();
    // Six standard deviations of fair draws are 300.
    assert!(
        shares.iter().sum::<u64>() == COUNT && shares[0].abs_diff(COUNT / 2) < 300,
        "{shares:?}"
    );
    drop(client);
    drop(servers);
    assert_eq!(settled(&bed).closed, COUNT);
}

/// The result of a connect in `user` with a socket that was created in `maker`.
fn passed(bed: &Bed, maker: &Sandbox, user: &Sandbox, name: &str) -> String {
    // Abstract sockets belong to the network namespace, which both share.
    let path = bed.executor.sandbox().home().join(name).display().to_string();
    let mut sender = Running::start(maker, "give", VIP, &[&path]);
    assert_eq!(sender.line(), "up");
    process::finish(command(user, "take", VIP, &[&path]), LIMIT)
        .unwrap()
        .success()
        .unwrap()
        .stdout
        .trim()
        .to_owned()
}

#[test]
fn a_socket_belongs_to_the_cgroup_that_created_it() {
    let (bed, _one, _two) = Bed::with_two_servers();
    bed.run("ip route add unreachable 198.18.0.0/16").success().unwrap();
    let (inside, outside) = (bed.executor.sandbox(), bed.executor.outside());
    let redirected = ["one", "two"].map(|banner| format!("{VIP}:{PORT} {banner}"));
    assert!(redirected.contains(&passed(&bed, inside, inside, "in-in")));
    assert!(redirected.contains(&passed(&bed, inside, outside, "in-out")));
    assert_eq!(passed(&bed, outside, inside, "out-in"), "EHOSTUNREACH");
    let counters = settled(&bed);
    assert_eq!((counters.started, counters.established), (2, 2), "{counters:?}");
    assert_eq!(bed.rig.customer.leaked_packets().unwrap(), 0);
}
