//! Replies of upstreams arrive byte for byte except the ID: every common record type from a real
//! name server, and malformed replies from a scripted one.

use std::{
    net::{SocketAddr, UdpSocket as StdSocket},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    message::{raw_opt, raw_query, raw_question},
    running_shim::{RunningShim, framed, read},
    scripted_upstream::{Action, ScriptedUpstream},
};

/// nsd with one zone on a loopback port. Dropping it stops nsd.
struct Nsd {
    address: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Drop for Nsd {
    fn drop(&mut self) {
        // SIGTERM also ends its children.
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::TERM,
        );
        let _ = self.child.wait();
    }
}

const RECORDS: &[(&str, &str)] = &[
    ("a", "A 192.0.2.1"),
    ("a", "A 192.0.2.2"),
    ("aaaa", "AAAA 2001:db8::1"),
    ("cname", "CNAME a"),
    ("dname", "DNAME elsewhere.example."),
    ("mx", "MX 10 a"),
    ("ns", "NS a"),
    ("ptr", "PTR a"),
    ("srv", "SRV 0 5 443 a"),
    ("naptr", "NAPTR 100 10 \"U\" \"E2U+sip\" \"!^.*$!sip:x@example.com!\" ."),
    ("caa", "CAA 0 issue \"ca.example.net\""),
    ("sshfp", "SSHFP 4 2 123456789abcdef67890123456789abcdef67890123456789abcdef123456789"),
    ("tlsa", "TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
    ("https", "HTTPS 1 . alpn=h2 ipv4hint=192.0.2.1"),
    ("svcb", "SVCB 1 a port=8443"),
    ("loc", "LOC 52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m"),
    ("hinfo", "HINFO \"x\" \"y\""),
    ("rp", "RP a a"),
    ("uri", "URI 10 1 \"ftp://x.example/\""),
    ("unknown", "TYPE65280 \\# 4 0a000001"),
    ("ds", "DS 60485 13 2 D4B7D520E7BB5F0F67674A0CCEB1E3E0614B93C4F9E99B8383F6A1E4469DA50A"),
    (
        "dnskey",
        "DNSKEY 257 3 13 \
            mdsswUyr3DPW132mOi8V9xESWE8jTo0dxCjjnopKl+GqJxpVXckHAeF+KkxLbxILfDLUT0rAK9iU\
            zy1L53eKGQ==",
    ),
    (
        "a",
        "RRSIG A 13 3 60 20400101000000 20200101000000 1 corpus.example. \
            c2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJlc2ln\
            bmF0dXJlcw==",
    ),
    ("nsec", "NSEC ptr A RRSIG NSEC"),
    ("nsec3param", "NSEC3PARAM 1 0 0 -"),
];

/// Names and query types; 65280 is unassigned.
const TYPES: &[(&str, u16)] = &[
    ("a", 1),
    ("a", 255),
    ("a", 46),
    ("aaaa", 28),
    ("cname", 1),
    ("cname", 5),
    ("below.dname", 1),
    ("mx", 15),
    ("ns", 2),
    ("ptr", 12),
    ("srv", 33),
    ("naptr", 35),
    ("caa", 257),
    ("sshfp", 44),
    ("tlsa", 52),
    ("https", 65),
    ("svcb", 64),
    ("loc", 29),
    ("hinfo", 13),
    ("rp", 17),
    ("uri", 256),
    ("unknown", 65280),
    ("ds", 43),
    ("dnskey", 48),
    ("nsec", 47),
    ("nsec3param", 51),
    ("big", 16),
    ("empty.a", 1),
    ("nothing", 1),
    ("", 6),
    ("", 2),
];

impl Nsd {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut zone = String::from(
            "$ORIGIN corpus.example.\n$TTL 60\n@ SOA a h 1 3600 600 86400 60\n@ NS a\n",
        );
        for (name, record) in RECORDS {
            zone += &format!("{name} {record}\n");
        }
        zone += "big TXT";
        (0..16).for_each(|n| zone += &format!(" \"{n:0>250}\""));
        zone += "\n";
        std::fs::write(folder.path().join("zone"), zone).expect("written");
        let address = testbed::unused_address();
        let path = folder.path().display();
        let config = format!(
            "server:\n ip-address: 127.0.0.1@{}\n username: \"\"\n chroot: \"\"\n \
             zonesdir: \"{path}\"\n pidfile: \"{path}/pid\"\n xfrdfile: \"{path}/xfrd\"\n \
             zonelistfile: \"{path}/list\"\n xfrdir: \"{path}\"\n nsid: \"ascii_corpus\"\n \
             answer-cookie: yes\n ipv4-edns-size: 4096\n server-count: 1\n minimal-responses: no\n\
             remote-control:\n control-enable: no\nzone:\n name: corpus.example\n zonefile: zone\n",
            address.port()
        );
        let file = folder.path().join("nsd.conf");
        std::fs::write(&file, config).expect("written");
        let mut nsd = testbed::packages::tool("nsd").expect("nsd is installed");
        nsd.args(["-d", "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        testbed::process::die_with_parent(&mut nsd);
        let child = nsd.spawn().expect("started");
        let nsd = Self { address, child, _folder: folder };
        let soa = question("", 6, &[]);
        let deadline = Instant::now() + Duration::from_secs(20);
        while ask(nsd.address, &soa).is_none_or(|reply| reply[3] & 15 != 0) {
            assert!(Instant::now() < deadline, "nsd does not answer");
        }
        nsd
    }
}

/// A query for a name of the zone, in mixed case, with these additional records.
fn question(name: &str, kind: u16, additional: &[u8]) -> Vec<u8> {
    let name = if name.is_empty() {
        "Corpus.eXample".to_owned()
    } else {
        format!("{name}.Corpus.eXample")
    };
    let rest = [raw_question(&name, kind, 1), additional.to_vec()].concat();
    raw_query(0x1234, 0x0120, [1, 0, 0, u16::from(!additional.is_empty())], &rest)
}

fn ask(server: SocketAddr, query: &[u8]) -> Option<Vec<u8>> {
    let socket = StdSocket::bind("127.0.0.1:0").expect("a port");
    socket.connect(server).expect("connected");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("set");
    socket.send(query).ok()?;
    let mut reply = vec![0; 65_535];
    let length = socket.recv(&mut reply).ok()?;
    reply.truncate(length);
    Some(reply)
}

async fn ask_tcp(server: SocketAddr, query: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server).await.expect("connected");
    stream.write_all(&framed(query)).await.expect("sent");
    read(&mut stream).await
}

/// An OPT record with options.
fn opt(payload: u16, dnssec_ok: bool, options: &[u8]) -> Vec<u8> {
    let mut opt = raw_opt(payload, 0, dnssec_ok);
    let at = opt.len() - 2;
    opt[at..].copy_from_slice(&u16::try_from(options.len()).expect("short").to_be_bytes());
    [opt, options.to_vec()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_type_of_nsd_is_forwarded_unchanged() {
    let nsd = Nsd::start();
    let shim = RunningShim::start(&[nsd.address]).await;
    let nsid = [0, 3, 0, 0];
    let cookie = [0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
    let variants = [
        vec![],
        opt(1232, false, &[]),
        opt(4096, true, &[]),
        opt(4096, true, &nsid),
        opt(1232, false, &cookie),
    ];
    let (mut answers, mut longest) = (0, 0);
    for (name, kind) in TYPES {
        for additional in &variants {
            let query = question(name, *kind, additional);
            // A cookie contains the time: both replies must be from the same second.
            let mut last = (None, None);
            let same = (0..5).any(|_| {
                last = (ask(nsd.address, &query), ask(shim.address, &query));
                // A busy machine may lose a datagram.
                let (Some(direct), through) = &last else { return false };
                answers += usize::from(direct[7] > 0);
                longest = longest.max(direct.len());
                Some(direct) == through.as_ref()
            });
            assert!(same, "{name} {kind} {additional:02x?}: direct and through {last:02x?}");
        }
        let query = question(name, *kind, &opt(1232, true, &nsid));
        assert_eq!(
            ask_tcp(shim.address, &query).await,
            ask_tcp(nsd.address, &query).await,
            "{name} {kind} over TCP"
        );
    }
    assert!(
        answers > 100 && longest > 4000,
        "{answers} replies with answers, the longest of {longest} bytes"
    );
    shim.stop().await;
}

#[tokio::test]
async fn replies_of_no_query_are_dropped_until_a_good_one() {
    let upstream = ScriptedUpstream::start(|received| {
        let query = &received.query;
        let message = |flags: [u8; 2], counts: [u8; 8], rest: &[u8]| {
            [&query[..2], &flags, &counts, &query[12..], rest].concat()
        };
        let one = [0, 1, 0, 1, 0, 0, 0, 0];
        let bad = [
            message([0x81, 0x80], [0, 2, 0, 0, 0, 0, 0, 0], &query[12..]),
            message([0x01, 0x00], one, ADDRESS),
            message([0xa9, 0x80], one, ADDRESS),
            [&query[..2], &[0x81, 0x80], &one, &query[12..query.len() - 1]].concat(),
            query[..11].to_vec(),
            vec![],
        ];
        let good = message([0x81, 0x80], one, ADDRESS);
        bad.into_iter().chain([good]).map(Action::Send).collect()
    })
    .await;
    let shim = RunningShim::start(&[upstream.address]).await;
    let query = raw_query(7, 0x0100, [1, 0, 0, 0], &raw_question("www.example.com", 1, 1));
    for reply in [shim.ask(&query).await, shim.ask_tcp(&query).await] {
        assert_eq!((&reply[..4], reply.len()), (&[0, 7, 0x81, 0x80][..], query.len() + 16));
    }
    assert!(shim.publisher.counters().mismatched >= 11, "{:?}", shim.publisher.counters());
    shim.stop().await;
}

/// An A record of the question's name.
const ADDRESS: &[u8] = &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1];

/// Replies with the flags, counts and records of `reply`, and the question unless there is none.
async fn passed_on(flags: [u8; 2], counts: [u8; 8], records: &'static [u8]) {
    let answer = move |query: &[u8]| {
        let question = if counts[1] == 0 { &[][..] } else { &query[12..] };
        [&query[..2], &flags, &counts, question, records].concat()
    };
    let upstream =
        ScriptedUpstream::start(move |received| vec![Action::Send(answer(&received.query))]).await;
    let shim = RunningShim::start(&[upstream.address]).await;
    let query = raw_query(7, 0x0100, [1, 0, 0, 0], &raw_question("www.example.com", 1, 1));
    assert_eq!(shim.ask(&query).await, answer(&query), "{flags:02x?} {counts:02x?}");
    assert_eq!(shim.ask_tcp(&query).await, answer(&query), "{flags:02x?} {counts:02x?}");
    assert_eq!(shim.publisher.counters().mismatched, 0);
    shim.stop().await;
}

#[tokio::test]
async fn replies_that_clients_accept_are_passed_on() {
    const OPT: &[u8] = &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
    // More additional records than there are.
    passed_on([0x81, 0x80], [0, 1, 0, 1, 0, 0, 0, 3], ADDRESS).await;
    // No question, with an answer.
    passed_on([0x81, 0x80], [0, 0, 0, 1, 0, 0, 0, 0], &[0, 0, 1, 0, 1, 0, 0, 0, 9, 0, 0]).await;
    // FORMERR without a question and with an OPT record; the client repeats it without EDNS.
    passed_on([0x81, 0x81], [0, 0, 0, 0, 0, 0, 0, 1], OPT).await;
    passed_on([0x81, 0x81], [0, 1, 0, 0, 0, 0, 0, 1], OPT).await;
    // NXDOMAIN without anything else.
    passed_on([0x81, 0x83], [0; 8], &[]).await;
}
