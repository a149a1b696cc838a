//! A tenant that floods or spoofs leaves others unharmed.

use std::env;
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use testbed::Executor;
use testbed::topology::{INTERNAL_NAME, LOAD_BALANCERS, RESOLVER_ADDRESS};

use crate::field::{Field, LIMIT, client, resolv};
use crate::loads::{Loaded, for_seconds};

/// The variable with the seconds of each attack; a minute is 60.
const VARIABLE: &str = "REDIRECTOR_TEST_ATTACK_SECONDS";
/// Without the variable.
const SECONDS: f64 = 4.0;
/// The port from which the victim keeps a connection.
const PORT: u16 = 40_000;

/// Connects to the registry from [`PORT`], and asks it for something at the end of the attack. In a
/// long one it asks every twenty seconds, as the registry closes silent connections after a minute.
const HOLDER: &str = "
import http.client, socket, ssl, sys, time
name, ca, port, seconds = sys.argv[1:]
held = socket.socket()
held.bind(('', int(port)))
held.settimeout(10)
held.connect((name, 443))
connection = http.client.HTTPConnection(name)
left = float(seconds)
while left > 0:
    time.sleep(min(left, 20))
    left -= 20
    if not connection.sock:
        tls = ssl.create_default_context(cafile=ca)
        connection.sock = tls.wrap_socket(held, server_hostname=name)
    connection.request('GET', '/')
    response = connection.getresponse()
    response.read()
    assert connection.sock, 'the registry has closed the connection'
print(response.status, connection.sock.getsockname()[1])
";

/// Connects once from each of the first ports of a flood, and prints those that got no greeting.
const FROM_EACH_PORT: &str = "
import socket, sys
for port in range(1025, 1125):
    s = socket.socket()
    s.settimeout(5)
    try:
        s.bind(('', port))
        s.connect((sys.argv[1], 8080))
        assert b'lb' in b''.join(iter(lambda: s.recv(100), b''))
    except (OSError, AssertionError) as error:
        sys.exit('port %d: %r' % (port, error))
    s.close()
print('all greeted')
";

/// The address of the pod with this number: the rig numbers its executors from 1.
fn pod_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 61, number, 2)
}

/// Seconds of an attack.
fn attack_seconds() -> f64 {
    env::var(VARIABLE).map_or(SECONDS, |text| text.parse().unwrap())
}

/// Runs a flood in `attacker`, with this source and target.
fn flood(attacker: &Executor, arguments: &str) -> u64 {
    let seconds = attack_seconds();
    let line = format!("{} flood --seconds {seconds} {arguments}", client());
    let limit = LIMIT + Duration::from_secs_f64(seconds);
    let finished = attacker.run(&line, limit).unwrap().success().unwrap();
    finished.stdout.trim().parse().unwrap()
}

/// The victim's connects, look-ups and its connection of before survive an attack.
fn assert_unharmed(attack: impl Fn(&Field, &Executor) -> u64 + Sync) {
    let field = Field::with_registry();
    let attacker = field.guest_pod("attacker");
    let victim = field.guest_pod("victim");
    let process = field.host_executor("host", resolv());
    let script = victim.sandbox().home().join("holder.py");
    std::fs::write(&script, HOLDER).unwrap();
    let hold = format!(
        "/usr/bin/python3 {} {INTERNAL_NAME} {} {PORT} {}",
        script.display(),
        field.rig.customer.ca_path().display(),
        attack_seconds() + 1.0,
    );
    let guests = [
        Loaded { name: "victim", guest: &victim, rate: 40 },
        Loaded { name: "host process", guest: &process, rate: 40 },
    ];
    let limit = LIMIT + Duration::from_secs_f64(attack_seconds());
    thread::scope(|scope| {
        let held = scope.spawn(|| victim.run(&hold, limit).unwrap().text());
        // The connection exists before the attack begins.
        thread::sleep(Duration::from_millis(700));
        for_seconds(&field, &guests, attack_seconds(), || {
            let sent = attack(&field, &attacker);
            assert!(sent > 200, "the attack was only {sent} packets");
            println!("attack: {sent} packets");
        });
        assert_eq!(held.join().unwrap(), format!("200 {PORT}\n"));
    });
    field.assert_contained();
}

#[test]
fn a_flood_of_syns_harms_no_other_guest() {
    assert_unharmed(|field, attacker| {
        let (source, vip) = (pod_address(1), field.vip(INTERNAL_NAME));
        flood(attacker, &format!("--kind syn --source {source} --target {vip}:443"))
    });
}

#[test]
fn a_flood_of_queries_harms_no_other_guest() {
    assert_unharmed(|_, attacker| {
        let source = pod_address(1);
        let target = format!("{RESOLVER_ADDRESS}:53");
        flood(attacker, &format!("--kind dns --source {source} --target {target}"))
    });
}

/// SYNs with the address and the port of the victim's connection.
#[test]
fn spoofed_syns_leave_the_connection_of_the_victim_alone() {
    assert_unharmed(|field, attacker| {
        let (source, vip) = (pod_address(2), field.vip(INTERNAL_NAME));
        let options = format!("--source-port {PORT} --rate 2000 --kind syn --target {vip}:443");
        flood(attacker, &format!("--source {source} {options}"))
    });
}

/// Connection tracking of the node remembers SYNs that nobody answers for two minutes, by addresses
/// and ports alone, and takes a later connection with those of such a SYN for invalid. A node that
/// drops false source addresses is safe from it.
#[test]
fn spoofed_syns_to_silent_backends_leave_later_connects_alone() {
    let field = Field::new();
    let filter = "sysctl -qw net.ipv4.conf.all.rp_filter=1";
    field.rig.node.sandbox().run(filter, LIMIT).unwrap().success().unwrap();
    let attacker = field.guest_pod("attacker");
    let victim = field.guest_pod("victim");
    for address in LOAD_BALANCERS {
        field.rig.customer.silence(address).unwrap();
    }
    let (source, vip) = (pod_address(2), field.vip(INTERNAL_NAME));
    let options = format!("--rate 2000 --kind syn --target {vip}:8080");
    let sent = flood(&attacker, &format!("--source {source} {options}"));
    assert!(sent > 400, "the attack was only {sent} packets");
    for address in LOAD_BALANCERS {
        field.rig.customer.unsilence(address).unwrap();
    }
    field.await_eligible();
    let line = format!("/usr/bin/python3 -c \"{FROM_EACH_PORT}\" {vip}");
    let connected = victim.run(&line, LIMIT).unwrap();
    assert_eq!(connected.text().trim(), "all greeted", "{}", field.log_tail());
}

/// Queries with the victim's address: their answers go where they came from.
#[test]
fn answers_to_spoofed_queries_do_not_reach_the_victim() {
    assert_unharmed(|_, attacker| {
        let (source, target) = (pod_address(2), format!("{RESOLVER_ADDRESS}:53"));
        flood(attacker, &format!("--rate 5000 --kind dns --source {source} --target {target}"))
    });
}
