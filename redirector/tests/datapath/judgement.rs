//! Who may eject a backend, and on what evidence.

use std::time::Duration;

use testbed::topology::LOAD_BALANCERS;

use crate::rig::{Bed, PORT, VIP};

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
    let script = "import java.net.*;\n\
        public class Connect {\n\
        public static void main(String[] words) throws Exception {\n\
        try { new Socket().connect(new InetSocketAddress(words[0], 8080), 200); }\n\
        catch (SocketTimeoutException expected) { System.out.println(\"timed out\"); }\n\
        } }";
    let run = format!(
        "d=$(mktemp -d) && cat > $d/Connect.java <<'END' && java $d/Connect.java {VIP}; \
        rm -r $d\n{script}\nEND\n"
    );
    assert_eq!(bed.run(&run).success().unwrap().stdout.trim(), "timed out");
    assert_aborted(&mut bed, "Java", count + 1);
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
