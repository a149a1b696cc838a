//! Options of redirected sockets: source address, connect timeout, keepalive.

use std::{
    io::{BufRead, BufReader},
    net::IpAddr,
    process::Stdio,
    time::{Duration, Instant},
};

use redirector::plan::{Change, PlannedRoute};
use testbed::topology::LOAD_BALANCERS;

use crate::rig::{Bed, INDEX, PORT, VIP};

/// Long enough for a retransmission timeout and for another one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A route to both load balancers with `sources` and `idle` seconds.
fn put(bed: &mut Bed, sources: &[IpAddr], idle: Option<u64>) {
    let route = PlannedRoute {
        backends: Some(LOAD_BALANCERS.map(IpAddr::from).to_vec()),
        sources: sources.to_vec(),
        idle_timeout: idle.map(Duration::from_secs),
        ..PlannedRoute::default()
    };
    bed.datapath.apply(&[Change::Put { index: INDEX, route }]).unwrap();
}

/// Gives the pod two more addresses, and returns them with its first one.
fn pod_addresses(bed: &Bed) -> [IpAddr; 3] {
    let listed = bed.run("ip -4 -o addr show dev eth0").success().unwrap().stdout;
    let first: std::net::Ipv4Addr =
        listed.split_whitespace().nth(3).unwrap().split('/').next().unwrap().parse().unwrap();
    let [a, b, c, _] = first.octets();
    for last in [3, 4] {
        bed.run(&format!("ip addr add {a}.{b}.{c}.{last}/24 dev eth0")).success().unwrap();
    }
    [first.into(), [a, b, c, 3].into(), [a, b, c, 4].into()]
}

/// The source address of each of `count` connects.
fn sources(bed: &Bed, count: usize, before: &str) -> Vec<IpAddr> {
    let script = format!(
        "import socket\nfor n in range({count}):\n s = socket.socket()\n {before}\n \
            s.connect(('{VIP}', {PORT})); print(s.getsockname()[0]); s.close()"
    );
    bed.python(&script).lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn connects_are_made_from_the_source_addresses_in_turn() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    let [_, three, four] = pod_addresses(&bed);
    put(&mut bed, &[three, four], None);
    let seen = sources(&bed, 20, "");
    for pair in seen.windows(2) {
        assert!(pair[0] != pair[1] && pair.iter().all(|ip| [three, four].contains(ip)), "{seen:?}");
    }
    assert!(bed.connects(200).flawless());
    let counters = bed.counters();
    assert_eq!((counters.established, counters.source_ip_failed), (220, 0), "{counters:?}");
}

#[test]
fn a_bound_socket_keeps_its_address_and_port() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    let [first, three, _] = pod_addresses(&bed);
    put(&mut bed, &[three], None);
    assert_eq!(sources(&bed, 2, &format!("s.bind(('{first}', 0))")), [first; 2]);
    // Bound to an address with the port left open until connect (IP_BIND_ADDRESS_NO_PORT), and to a
    // port without an address.
    assert_eq!(
        sources(&bed, 2, &format!("s.setsockopt(0, 24, 1); s.bind(('{first}', 0))")),
        [first; 2]
    );
    assert_eq!(sources(&bed, 2, "s.bind(('0.0.0.0', 0))"), [first; 2]);
    assert_eq!(sources(&bed, 2, ""), [three; 2]);
    assert_eq!((bed.counters().established, bed.counters().source_ip_failed), (8, 0));
}

#[test]
fn a_dual_stack_socket_is_bound_to_the_mapped_source_address() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    let [_, three, _] = pod_addresses(&bed);
    put(&mut bed, &[three], None);
    let script = format!(
        "import socket; s = socket.socket(socket.AF_INET6); s.connect(('::ffff:{VIP}', {PORT})); \
            print(s.getsockname()[0])"
    );
    assert_eq!(bed.python(&script).trim(), format!("::ffff:{three}"));
    assert_eq!(bed.counters().source_ip_failed, 0);
}

#[test]
fn a_missing_source_address_costs_no_connect() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    put(&mut bed, &["192.0.2.77".parse().unwrap()], None);
    assert!(bed.connects(100).flawless());
    let counters = bed.counters();
    assert_eq!((counters.established, counters.source_ip_failed), (100, 100), "{counters:?}");
}

#[test]
fn sources_and_idle_timeout_are_read_back_by_the_next_process() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    put(
        &mut bed,
        &["192.0.2.77".parse().unwrap(), "fd00::1".parse().unwrap(), "fd00::2".parse().unwrap()],
        Some(350),
    );
    let before = bed.datapath.plan();
    assert_eq!(before.routes[&INDEX].sources.len(), 3);
    bed.datapath = crate::rig::attached(&bed.rig);
    assert_eq!(bed.datapath.plan(), before);
}

#[test]
fn a_silent_backend_is_ejected_within_600_ms() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    bed.datapath.set_connect_timeout(CONNECT_TIMEOUT).unwrap();
    bed.rig.customer.silence(LOAD_BALANCERS[0]).unwrap();
    // Sixteen at once: each selects the silent backend with probability one half.
    let script = format!(
        "import errno, socket, threading, time\n\
         def go():\n\
         \x20began, s = time.monotonic(), socket.socket()\n\
         \x20try: s.connect(('{VIP}', {PORT})); end = 'ok'\n\
         \x20except OSError as e: end = errno.errorcode[e.errno]\n\
         \x20print(end, time.monotonic() - began, flush=True)\n\
         threads = [threading.Thread(target=go) for n in range(16)]\n\
         print('go', flush=True)\n\
         for t in threads: t.start()\n"
    );
    let mut command = bed.executor.command("/usr/bin/python3");
    let mut child = command.args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "go");
    let began = Instant::now();
    while bed.datapath.unhealthy_backends().unwrap().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(5), "never ejected");
        std::thread::sleep(Duration::from_millis(1));
    }
    let ejected_after = began.elapsed();
    let ends: Vec<(String, f64)> = lines
        .map(|line| line.unwrap())
        .map(|line| {
            line.split_once(' ')
                .map(|(end, seconds)| (end.to_owned(), seconds.parse().unwrap()))
                .unwrap()
        })
        .collect();
    assert!(child.wait().unwrap().success());
    // Directly after it no connect selects the silent backend: the ejection begins with the end of
    // the last failure.
    assert!(bed.connects(200).flawless());
    let timed_out: Vec<f64> =
        ends.iter().filter(|(end, _)| end == "ETIMEDOUT").map(|(_, seconds)| *seconds).collect();
    assert_eq!(
        (ends.len(), ends.iter().filter(|(end, _)| end == "ok").count()),
        (16, 16 - timed_out.len()),
        "{ends:?}"
    );
    assert!(
        !timed_out.is_empty() && timed_out.iter().all(|seconds| (2.0..=3.0).contains(seconds)),
        "{ends:?}"
    );
    assert!(ejected_after < Duration::from_millis(600), "{ejected_after:?}");
    assert_eq!(bed.counters().timed_out, timed_out.len() as u64);
}

#[test]
fn the_only_backend_gets_the_kernels_own_time() {
    let mut bed = Bed::new();
    bed.datapath.set_connect_timeout(Duration::from_millis(300)).unwrap();
    bed.rig.customer.silence(LOAD_BALANCERS[0]).unwrap();
    bed.put(&[], &LOAD_BALANCERS[..1]);
    let gave_up = bed.run(&format!("curl -sS --connect-timeout 2 http://{VIP}:{PORT}/"));
    assert_eq!(gave_up.status.code(), Some(28), "{}", gave_up.text());
    assert_eq!((bed.counters().timed_out, bed.counters().aborted), (0, 1));
}

#[test]
fn keepalive_is_below_the_idle_timeout_or_the_applications() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    let keepalive = |bed: &Bed, before: &str| {
        let script = format!(
            "import socket\ns = socket.socket()\n{before}\ns.connect(('{VIP}', {PORT}))\n\
             print(s.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),\n\
             \x20*(s.getsockopt(6, n) for n in (4, 5, 6)))"
        );
        bed.python(&script).trim().to_owned()
    };
    assert_eq!(keepalive(&bed, ""), "0 7200 75 9");
    put(&mut bed, &[], Some(350));
    assert_eq!(keepalive(&bed, ""), "1 233 23 5");
    assert_eq!(
        keepalive(&bed, "s.setsockopt(1, socket.SO_KEEPALIVE, 1); s.setsockopt(6, 4, 600)"),
        "1 233 23 9",
        "what is too long is lowered"
    );
    // As JVMs, libpq and botocore do.
    assert_eq!(keepalive(&bed, "s.setsockopt(1, socket.SO_KEEPALIVE, 1)"), "1 233 23 9");
    let short = "s.setsockopt(6, 4, 60); s.setsockopt(6, 5, 10); s.setsockopt(6, 6, 3)";
    assert_eq!(keepalive(&bed, short), "1 60 10 3", "what is short enough stays");
    put(&mut bed, &[], Some(5));
    assert_eq!(keepalive(&bed, ""), "1 3 1 5");
}

/// `Socket.setKeepAlive` sets no times.
#[test]
fn a_jvms_keepalive_is_below_the_idle_timeout() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    put(&mut bed, &[], Some(350));
    let program = "import java.net.*; import jdk.net.ExtendedSocketOptions;\n\
        public class Keep {\n\
        public static void main(String[] words) throws Exception {\n\
        try (Socket s = new Socket()) {\n\
        s.setKeepAlive(true);\n\
        s.connect(new InetSocketAddress(words[0], 8080));\n\
        System.out.println(s.getKeepAlive() + \" \"\n\
        + s.getOption(ExtendedSocketOptions.TCP_KEEPIDLE) + \" \"\n\
        + s.getOption(ExtendedSocketOptions.TCP_KEEPINTERVAL));\n\
        } } }";
    assert_eq!(bed.java("Keep", program).trim(), "true 233 23");
}

#[test]
fn syn_retransmissions_are_lowered_and_restored() {
    let mut bed = Bed::new();
    bed.datapath.set_connect_timeout(Duration::from_millis(1500)).unwrap();
    bed.rig.customer.silence(LOAD_BALANCERS[0]).unwrap();
    bed.rig.customer.silence(LOAD_BALANCERS[1]).unwrap();
    bed.put(&[], &LOAD_BALANCERS);
    // Both are selected, and ejected. The later connects wait no longer than these.
    bed.python(&format!(
        "import socket, threading\n\
         def go():\n\
         \x20try: socket.create_connection(('{VIP}', {PORT}))\n\
         \x20except OSError: pass\n\
         for n in range(16): threading.Thread(target=go).start()"
    ));
    assert_eq!(bed.datapath.unhealthy_backends().unwrap().len(), 2);
    for (set, after) in [(0, 6), (5, 5), (1, 1), (0, 6)] {
        let script = format!(
            "import errno, socket, time\n\
             s, began = socket.socket(), time.monotonic()\n\
             if {set}: s.setsockopt(6, 7, {set})\n\
             try: s.connect(('{VIP}', {PORT}))\n\
             except OSError as e: print(errno.errorcode[e.errno], end=' ')\n\
             print(time.monotonic() - began < 5, s.getsockopt(6, 7))"
        );
        assert_eq!(bed.python(&script).trim(), format!("ETIMEDOUT True {after}"));
    }
    assert!(bed.counters().all_ejected >= 1, "{:?}", bed.counters());
}

#[test]
fn a_failed_connect_does_not_leave_the_socket_bound() {
    let mut bed = Bed::new();
    let [first, three, _] = pod_addresses(&bed);
    let [dead, other] = LOAD_BALANCERS;
    let _two = bed.server(1, "two");
    for (family, prefix) in [("AF_INET", ""), ("AF_INET6", "::ffff:")] {
        let route = PlannedRoute {
            backends: Some(vec![dead.into()]),
            sources: vec![three],
            ..PlannedRoute::default()
        };
        bed.datapath.apply(&[Change::Put { index: INDEX, route }]).unwrap();
        let script = format!(
            "import socket\ns = socket.socket(socket.{family})\n\
             for address in ('{VIP}', '{other}'):\n\
             \x20try: s.connect(('{prefix}' + address, {PORT}))\n\
             \x20except ConnectionRefusedError: pass\n\
             \x20print(s.getsockname()[0])"
        );
        let seen = bed.python(&script);
        assert_eq!(
            seen.lines().collect::<Vec<_>>(),
            [format!("{prefix}{three}"), format!("{prefix}{first}")]
        );
    }
}
