//! Who may eject a backend, and on what evidence.

use std::time::Duration;

use testbed::{Executor, ExecutorOptions, topology::LOAD_BALANCERS};

use crate::rig::{Bed, INDEX, LIMIT, PORT, VIP, backend};

/// Ends a connect before its backend answers, in Python: `s` is connecting.
const ABORTS: &[(&str, &str)] = &[
    ("close", "s.close()"),
    ("shutdown", "s.shutdown(socket.SHUT_RDWR)"),
    ("AF_UNSPEC, as .NET cancels", "libc.connect(s.fileno(), bytes(16), 16)"),
];

/// The connects of a script, which has begun `count` to a silent backend, and has ended them.
#[track_caller]
fn assert_aborted(bed: &mut Bed, name: &str, count: u64) {
    let c = bed.counters();
    assert_eq!((c.started, c.aborted), (count, count), "{name}: {c:?}");
    assert_eq!(bed.datapath.unhealthy_backends().unwrap(), [], "{name}");
}

#[test]
fn an_application_that_gives_up_ejects_no_backend() {
    let mut bed = Bed::new();
    bed.rig.customer.silence(LOAD_BALANCERS[0]).unwrap();
    bed.put(&[], &LOAD_BALANCERS[..1]);
    let mut count = 0;
    for (name, abort) in ABORTS {
        for protocol in [0, 262] {
            // The parent of an MPTCP socket ignores a shutdown while it connects.
            if protocol == 262 && *name != "close" {
                continue;
            }
            bed.python(&format!(
                "import ctypes, socket\n\
                 libc = ctypes.CDLL(None)\n\
                 s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, {protocol})\n\
                 s.setblocking(False)\n\
                 assert s.connect_ex(('{VIP}', {PORT})) == 115\n\
                 {abort}"
            ));
            count += 1;
            assert_aborted(&mut bed, name, count);
        }
    }
    let java = "import java.net.*;\n\
        public class Connect {\n\
        public static void main(String[] words) throws Exception {\n\
        try { new Socket().connect(new InetSocketAddress(words[0], 8080), 200); }\n\
        catch (SocketTimeoutException expected) { System.out.println(\"timed out\"); }\n\
        } }";
    let node = format!(
        "node -e \"const s = require('net').connect({PORT}, '{VIP}'); \
         setTimeout(() => {{ s.destroy(); console.log('timed out'); }}, 200)\""
    );
    // skopeo is a Go program; its time-out ends the context of its dialer.
    let go = format!(
        "skopeo --command-timeout 300ms --insecure-policy inspect --no-creds \
         docker://{VIP}:{PORT}/team/hello:1.0 || true"
    );
    // Go reports the context's end, or the dialer's own deadline, which is the same moment.
    let ends_of_go = &["deadline exceeded", "i/o timeout"][..];
    assert_eq!(bed.java("Connect", java).trim(), "timed out");
    count += 1;
    assert_aborted(&mut bed, "Java", count);
    for (name, line, expected) in [("Node", node, &["timed out"][..]), ("Go", go, ends_of_go)] {
        let seen = bed.run(&line).success().unwrap().text();
        assert!(expected.iter().any(|words| seen.contains(words)), "{name}: {seen}");
        count += 1;
        assert_aborted(&mut bed, name, count);
    }
}

/// .NET's own clients give up after 200 ms: an HTTP client with a time-out, a socket and a TCP
/// client that are closed meanwhile.
#[cfg(target_arch = "x86_64")]
const DOTNET: &str = "
import os, pathlib, sys, tempfile
os.environ['DOTNET_SYSTEM_GLOBALIZATION_INVARIANT'] = '1'
import dotnetcore2, clr_loader, pythonnet
config = pathlib.Path(tempfile.mkdtemp()) / 'config.json'
config.write_text('{\"runtimeOptions\": {\"tfm\": \"netcoreapp3.1\", \"framework\": \
{\"name\": \"Microsoft.NETCore.App\", \"version\": \"3.1.0\"}}}')
root = pathlib.Path(dotnetcore2.__file__).parent / 'bin'
runtime = clr_loader.get_coreclr(runtime_config=str(config), dotnet_root=str(root))
pythonnet.set_runtime(runtime)
import clr
clr.AddReference('System.Net.Http')
from System import TimeSpan
from System.Net import IPEndPoint, IPAddress
from System.Net.Http import HttpClient
from System.Net.Sockets import Socket, SocketTaskExtensions, SocketType, ProtocolType, TcpClient
vip, port = sys.argv[1], int(sys.argv[2])
def http():
    client = HttpClient()
    client.Timeout = TimeSpan.FromMilliseconds(200)
    client.GetAsync(f'http://{vip}:{port}/').Wait()
def closed(socket, task):
    assert not task.Wait(200)
    socket.Dispose()
    task.Wait()
def socket():
    socket = Socket(SocketType.Stream, ProtocolType.Tcp)
    at = IPEndPoint(IPAddress.Parse(vip), port)
    closed(socket, SocketTaskExtensions.ConnectAsync(socket, at))
def tcp_client():
    client = TcpClient()
    closed(client, client.ConnectAsync(vip, port))
for way in http, socket, tcp_client:
    try: way()
    except Exception as error: print(way.__name__, str(error).splitlines()[0])
";

#[test]
#[cfg(target_arch = "x86_64")]
fn dotnet_that_gives_up_ejects_no_backend() {
    let mut bed = Bed::new();
    bed.rig.customer.silence(LOAD_BALANCERS[0]).unwrap();
    bed.put(&[], &LOAD_BALANCERS[..1]);
    let mut command = bed.executor.command(testbed::packages::python_tool("python").unwrap());
    command.args(["-c", DOTNET, VIP, &PORT.to_string()]);
    let seen = testbed::process::finish(command, LIMIT).unwrap().success().unwrap().text();
    let ends =
        ["http One or more errors occurred. (A task was canceled.)", "socket ", "tcp_client "];
    assert_eq!(seen.lines().count(), ends.len(), "{seen}");
    assert!(seen.lines().zip(ends).all(|(line, end)| line.starts_with(end)), "{seen}");
    assert!(!seen.contains("refused") && !seen.contains("unreachable"), "{seen}");
    assert_aborted(&mut bed, ".NET", 3);
}

/// Connects without blocking, reads the SYN from a TUN device and answers it as a router that
/// reports the host as unreachable.
const UNREACHABLE: &str = "
import errno, fcntl, os, select, socket, struct, subprocess
tun = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(tun, 0x400454ca, struct.pack('16sH22x', b'far', 0x1001))
for line in ('link set far up', 'route add BACKEND/32 dev far'):
    subprocess.run(['ip', *line.split()], check=True)
s = socket.socket()
s.setblocking(False)
assert s.connect_ex(('198.18.0.7', 8080)) == errno.EINPROGRESS
syn = b''
while syn[16:20] != socket.inet_aton('BACKEND'):
    syn = os.read(tun, 2000)
def checksum(data):
    total = sum(struct.unpack(f'!{len(data) // 2}H', data))
    total = (total & 0xffff) + (total >> 16)
    return ~(total + (total >> 16)) & 0xffff
error = struct.pack('!BBHI', 3, 1, 0, 0) + syn[:28]
error = error[:2] + struct.pack('!H', checksum(error)) + error[4:]
ends = syn[16:20], syn[12:16]
header = struct.pack('!BBHHHBBH4s4s', 69, 0, 20 + len(error), 1, 0, 64, 1, 0, *ends)
header = header[:10] + struct.pack('!H', checksum(header)) + header[12:]
os.write(tun, header + error)
select.select([], [s], [], 10)
print(errno.errorcode[s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)])
";

#[test]
fn an_icmp_error_before_a_retransmission_is_a_failure() {
    let mut bed = Bed::new();
    let [dead, _] = LOAD_BALANCERS;
    bed.put(&[], &[dead]);
    let script = UNREACHABLE.replace("BACKEND", &dead.to_string());
    assert_eq!(bed.python(&script).trim(), "EHOSTUNREACH");
    let c = bed.counters();
    assert_eq!((c.unreachable, c.started), (1, 1), "{c:?}");
    assert_eq!(bed.datapath.unhealthy_backends().unwrap().len(), 1);
}

#[test]
fn a_reset_speaks_against_the_backend() {
    let mut bed = Bed::new();
    bed.put(&[], &LOAD_BALANCERS[..1]);
    assert_eq!(bed.greeting(VIP, PORT), "ECONNREFUSED");
    assert_eq!((bed.counters().refused, bed.counters().started), (1, 1));
    assert_eq!(bed.datapath.unhealthy_backends().unwrap().len(), 1);
}

#[test]
fn a_socket_on_loopback_or_a_device_ejects_no_backend() {
    let mut bed = Bed::new();
    bed.datapath.set_connect_timeout(Duration::from_millis(600)).unwrap();
    let (_one, _two) = (bed.server(0, "one"), bed.server(1, "two"));
    bed.put(&[], &LOAD_BALANCERS);
    for (family, address, bind) in [
        ("AF_INET", VIP.to_owned(), "s.bind(('127.0.0.1', 0))"),
        ("AF_INET6", format!("::ffff:{VIP}"), "s.bind(('::ffff:127.0.0.1', 0))"),
        ("AF_INET", VIP.to_owned(), "s.setsockopt(1, socket.SO_BINDTODEVICE, b'lo')"),
    ] {
        let script = format!(
            "import socket\n\
             for n in range(4):\n\
             \x20s = socket.socket(socket.{family})\n\
             \x20{bind}\n\
             \x20try: s.connect(('{address}', {PORT}))\n\
             \x20except OSError as e: print(e)"
        );
        let seen = bed.python(&script);
        assert_eq!(seen.lines().count(), 4, "{bind}: {seen}");
        assert_eq!(bed.datapath.unhealthy_backends().unwrap(), [], "{bind}");
    }
    let c = bed.counters();
    assert_eq!((c.started, c.established), (12, 0), "{c:?}");
    assert!(c.timed_out + c.unsent == 12, "{c:?}");
}

/// What a tenant can do to its own connects so that they fail, in Python with a socket `s` or in
/// shell before it.
const ATTACKS: &[(&str, &str, &str)] = &[
    ("bound to loopback", "", "s.bind(('127.0.0.1', 0))"),
    ("bound to lo", "", "s.setsockopt(1, socket.SO_BINDTODEVICE, b'lo')"),
    (
        "TCP_MD5SIG",
        "",
        "[s.setsockopt(6, 14, struct.pack('HH4s120xBBHi80s', 2, 0, socket.inet_aton(at), 0, 0, 3, \
            0, b'key')) for at in LOAD_BALANCERS]",
    ),
    ("IP_TTL=1", "", "s.setsockopt(0, 2, 1)"),
    (
        "the backends' addresses on its own lo",
        "ip link set lo up; for at in LOAD_BALANCERS; do ip address add $at/32 dev lo; done; \
            ip route add 198.18.0.0/16 dev lo;",
        "pass",
    ),
    (
        "a policy of its own drops",
        "ip link add d0 type veth peer name d1; ip address add 192.0.2.1/24 dev d0; \
            ip link set d0 up; ip link set d1 up; ip route add default via 192.0.2.2; \
            ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:01 dev d0;",
        "pass",
    ),
];

/// Eight connects of `executor` to `port` at once, which fail within a second and a half.
fn attack(executor: &Executor, (network, socket): (&str, &str), port: u16) {
    let script = format!(
        "import socket, struct, time\n\
         LOAD_BALANCERS, all = {:?}, []\n\
         for n in range(8):\n\
         \x20s = socket.socket(); s.setblocking(False); all.append(s)\n\
         \x20{socket}\n\
         \x20s.connect_ex(('{VIP}', {port}))\n\
         time.sleep(1.5)\n\
         print(len(all))",
        LOAD_BALANCERS.map(|at| at.to_string())
    );
    let mut command = if network.is_empty() {
        let mut command = executor.command("/usr/bin/python3");
        command.args(["-c", &script]);
        command
    } else {
        let list = LOAD_BALANCERS.map(|at| at.to_string()).join(" ");
        let network = network.replace("LOAD_BALANCERS", &list);
        let mut command = executor.command("unshare");
        let line = format!("set -e; {network} exec /usr/bin/python3 -c \"$0\"");
        command.args(["-rn", "sh", "-c", &line, &script]);
        command
    };
    command.stdin(std::process::Stdio::null());
    let seen = testbed::process::finish(command, LIMIT).unwrap().success().unwrap();
    assert_eq!(seen.stdout.trim(), "8", "{}", seen.text());
}

/// Forty connects of `executor`, all of which must succeed, each within a second.
#[track_caller]
fn assert_served(executor: &Executor, what: &str) {
    let script = format!(
        "import socket, time\n\
         worst = 0\n\
         for n in range(40):\n\
         \x20began = time.monotonic()\n\
         \x20socket.create_connection(('{VIP}', {PORT}), 10).close()\n\
         \x20worst = max(worst, time.monotonic() - began)\n\
         print(worst < 1, worst)"
    );
    let mut command = executor.command("/usr/bin/python3");
    command.args(["-c", &script]);
    let seen = testbed::process::finish(command, LIMIT).unwrap().success().unwrap();
    assert!(seen.stdout.starts_with("True"), "{what}: {}", seen.text());
}

/// For whom each backend is ejected.
fn ejections(bed: &Bed) -> Vec<Option<u16>> {
    let backends = bed.datapath.backends(INDEX).unwrap();
    backends.iter().flat_map(|at| at.ejections.iter().map(|ejection| ejection.client)).collect()
}

#[test]
fn one_tenant_cannot_eject_a_backend_for_the_others() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    bed.datapath.set_connect_timeout(Duration::from_millis(600)).unwrap();
    let victim = bed.rig.executor(ExecutorOptions::pod("victim")).unwrap();
    for (name, network, socket) in ATTACKS {
        attack(&bed.executor, (network, socket), PORT);
        let before = bed.counters().all_ejected;
        let after = ejections(&bed);
        assert_served(&victim, name);
        assert!(after.iter().all(Option::is_some), "{name}: {after:?}");
        // A socket on loopback ejects nothing, even for its own cgroup.
        assert_eq!(after.is_empty(), name.starts_with("bound"), "{name}: {after:?}");
        assert_eq!(bed.counters().all_ejected, before, "{name}");
        for place in bed.datapath.unhealthy_backends().unwrap() {
            bed.datapath.reinstate(place.place()).unwrap();
        }
    }
}

#[test]
fn a_second_cgroup_or_the_prober_ejects_for_all() {
    let mut bed = Bed::new();
    let _two = bed.server(1, "two");
    bed.put(&[], &LOAD_BALANCERS);
    let other = bed.rig.executor(ExecutorOptions::pod("other")).unwrap();
    let victim = bed.rig.executor(ExecutorOptions::pod("victim")).unwrap();
    let took = Duration::from_millis(1);
    attack(&bed.executor, ("", "pass"), PORT);
    let unhealthy = bed.datapath.unhealthy_backends().unwrap();
    assert!(unhealthy.len() == 1 && unhealthy[0].client.is_some(), "{unhealthy:?}");
    attack(&other, ("", "pass"), PORT);
    assert_eq!(bed.datapath.unhealthy_backends().unwrap()[0].client, None);
    bed.datapath.extend_ejection(backend(LOAD_BALANCERS[0]), LIMIT).unwrap();
    assert_eq!(ejections(&bed), [None]);
    let refused = bed.counters().refused;
    assert_served(&victim, "ejected for all");
    assert_eq!(bed.counters().refused, refused);
    // The prober agrees, unless a connect was accepted meanwhile.
    bed.put(&[], &LOAD_BALANCERS[1..]);
    bed.put(&[], &LOAD_BALANCERS);
    let one = bed.server(0, "one");
    assert_served(&victim, "both work");
    drop(one);
    attack(&bed.executor, ("", "pass"), PORT);
    let place = backend(LOAD_BALANCERS[0]);
    bed.datapath.agree_on_failure(place, LIMIT).unwrap();
    assert!(bed.datapath.unhealthy_backends().unwrap()[0].client.is_some());
    bed.datapath.agree_on_failure(place, took).unwrap();
    assert_eq!(bed.datapath.unhealthy_backends().unwrap()[0].client, None);
}

#[test]
fn a_refused_port_does_not_eject_the_others() {
    let (mut bed, _one, _two) = Bed::with_two_servers();
    attack(&bed.executor, ("", "pass"), 80);
    let unhealthy = bed.datapath.unhealthy_backends().unwrap();
    assert!(unhealthy.len() == 2 && unhealthy.iter().all(|at| at.port == 80), "{unhealthy:?}");
    let before = bed.counters().all_ejected;
    let report = bed.connects(100);
    assert!(report.flawless() && report.banners.len() == 2, "{report:?}");
    assert_eq!(bed.counters().all_ejected, before);
}
