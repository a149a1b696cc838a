//! How tenants misbehave. Each attack runs until it is dropped.

use std::process::{Child, Command, Stdio};

use anyhow::Result;
use testbed::{Executor, binaries, process};

use crate::fault::Attack;
use crate::field::{Field, PORT, SILENT, TENANTS_NAME, UNLISTED, UPSTREAMS};

/// Connects in every way in which a failure is the caller's own: its address or device is
/// loopback's, it signs segments, its packets live for one hop, or it has a private network in
/// which the load balancers' addresses are its own.
const MISBOUND: &str = "
import os, socket, struct, subprocess, sys, time
vip, port = sys.argv[1], int(sys.argv[2])
def loopback(s): s.bind(('127.0.0.1', 0))
def device(s): s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo')
def one_hop(s): s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
def signed(s):
    for address in ('203.0.113.7', '203.0.113.8'):
        peer = struct.pack('=HH4s120x', socket.AF_INET, 0, socket.inet_aton(address))
        s.setsockopt(socket.IPPROTO_TCP, 14, peer + struct.pack('=xxHI80s', 4, 0, b'four'))
private = '''ip link set lo up; for a in 7 8; do ip addr add 203.0.113.$a/32 dev lo; done
ip route add default dev lo; while sleep 0.2; do timeout 2 bash -c \"</dev/tcp/%s/%d\"; done
''' % (vip, port)
subprocess.Popen(['unshare', '-n', 'sh', '-c', private], stderr=subprocess.DEVNULL)
sockets = []
while True:
    for prepare in (loopback, device, one_hop, signed):
        s = socket.socket()
        s.setblocking(False)
        try:
            prepare(s)
            s.connect_ex((vip, port))
        except OSError:
            pass
        sockets.append(s)
    # Each lives for four seconds: until its SYN is sent again, and again.
    sockets, old = sockets[-800:], sockets[:-800]
    for s in old:
        s.close()
    time.sleep(0.02)
";

/// Sends half a request on each of a thousand connections, and holds them.
const HALF_REQUESTS: &str = "
import os, socket, time
os.setgid(65534); os.setuid(65534)
held = []
while True:
    try:
        s = socket.create_connection(('127.0.0.1', 9464), 5)
        s.sendall(b'GET /healthz HTTP/1.1\\r\\nhost:')
        held.append(s)
    except OSError:
        held = held[200:]
        time.sleep(0.2)
";

/// Sends queries to many addresses again and again, from sockets that stay open.
const CROWD: &str = "
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
query = b'\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\5crowd\\7example\\0\\0\\1\\0\\1'
while True:
    for n in range(1, 255):
        for address in ('203.0.113.%d' % n, '192.0.2.%d' % n):
            s.sendto(query, (address, 53))
    time.sleep(0.05)
";

/// Sends queries for names of its own to a resolver, and waits for no answer.
const SILENT_FLOOD: &str = "
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
n = 0
while True:
    n += 1
    label = b'n%d' % n
    query = b'\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0' + bytes([len(label)]) + label
    s.sendto(query + b'\\7example\\0\\0\\1\\0\\1', (sys.argv[1], 53))
    if n % 20 == 0:
        time.sleep(0.005)
";

/// An attack that runs.
#[derive(Debug)]
pub(crate) struct Running(Vec<Child>);

impl Running {
    /// Begins an attack; `observed`: against the route under observation, else the tenants' own.
    pub(crate) fn start(field: &Field, attack: Attack, observed: bool) -> Result<Self> {
        let vip = if observed { field.vips.observed } else { field.vips.tenants };
        let flood = |kind: &str, source, target: String, rate: u32| -> Result<Command> {
            let mut command = field.stranger.command(binaries::client()?);
            command.args(["flood", "--kind", kind, "--seconds", "86400", "--name", TENANTS_NAME]);
            command.arg("--source").arg(format!("{source}")).arg("--target").arg(target);
            command.arg("--rate").arg(rate.to_string());
            Ok(command)
        };
        let own = Field::address(&field.stranger)?;
        let resolver = format!("{}:53", UPSTREAMS[0]);
        let commands = match attack {
            Attack::SynFlood => vec![flood("syn", own, format!("{vip}:{PORT}"), 20_000)?],
            Attack::QueryFlood => vec![flood("dns", own, resolver, 20_000)?],
            Attack::SpoofedSyns => {
                let victim = field.clients.iter().find(|place| place.name == "guest");
                let source = victim.map_or(Ok(own), |place| Field::address(&place.executor))?;
                vec![flood("syn", source, format!("{vip}:{PORT}"), 2000)?]
            }
            Attack::RefusedConnects => {
                let mut command = field.tenant.command(binaries::client()?);
                let target = format!("20000/denied/{vip}:{UNLISTED}");
                command.args(["operations", "--task", &target]).stdin(Stdio::piped());
                vec![command]
            }
            Attack::MisboundConnects => {
                vec![python(&field.tenant, MISBOUND, &[&vip.to_string(), &PORT.to_string()])]
            }
            Attack::HalfRequests => {
                (0..3).map(|_| python(&field.neighbour, HALF_REQUESTS, &[])).collect()
            }
            Attack::ResolverCrowd => vec![python(&field.tenant, CROWD, &[])],
            Attack::SilentResolver => (0..3)
                .map(|_| python(&field.tenant, SILENT_FLOOD, &[&SILENT.to_string()]))
                .collect(),
        };
        let mut running = Self(Vec::new());
        for mut command in commands {
            command.stdout(Stdio::null());
            running.0.push(process::spawn_lasting(command)?);
        }
        Ok(running)
    }

    /// Whether each of its processes still runs: an attack that ended was none.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.0.iter_mut().all(|child| matches!(child.try_wait(), Ok(None)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.0 {
            process::kill_tree(child.id());
            let _ = child.wait();
        }
    }
}

fn python(executor: &Executor, script: &str, arguments: &[&str]) -> Command {
    let mut command = executor.command("/usr/bin/python3");
    command.arg("-c").arg(script).args(arguments);
    command
}
