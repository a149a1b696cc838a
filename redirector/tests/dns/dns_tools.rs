//! How real DNS tools and a real forwarder treat the shim's answers.

use std::{
    fs::File,
    io::{Read as _, Seek as _},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use redirector::dns::{ShimSettings, Vip};
use testbed::{dnsmasq, packages, process, unused_address};

use crate::{
    message::{bytes, parsed, query, reply},
    running_shim::{RunningShim, settings},
    scripted_upstream::{Action, ScriptedUpstream},
};

/// dnsmasq listens within milliseconds; the limit is for a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);

const NAME: &str = "artifactory.internal.company.net";

async fn denies_everything() -> ScriptedUpstream {
    ScriptedUpstream::start(|received| {
        vec![Action::Send(reply(&received.query, ResponseCode::NXDomain, &[]))]
    })
    .await
}

fn run(program: &str, server: SocketAddr, arguments: &[&str]) -> String {
    let mut command = packages::tool(program).expect("installed");
    command
        .arg(format!("@{}", server.ip()))
        .arg("-p")
        .arg(server.port().to_string())
        .args(arguments);
    let finished = process::finish(command, Duration::from_secs(30)).expect("runs");
    finished.success().unwrap_or_else(|error| panic!("{program} {arguments:?}: {error:#}")).stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn kdig_accepts_answers_over_udp_and_tcp() {
    let upstream = denies_everything().await;
    let shim = RunningShim::start(&[upstream.address]).await;
    let kdig = |arguments: &[&str]| run("kdig", shim.address, arguments);
    for options in [
        &["+notcp"][..],
        &["+tcp"],
        &["+edns=0", "+bufsize=4096"],
        &["+dnssec"],
        &["+cookie=0102030405060708"],
        &["+nsid"],
        &["+padding"],
    ] {
        let text = kdig(&[options, &["+short", NAME, "A"]].concat());
        assert_eq!(text, "198.18.0.1\n", "{options:?}");
    }
    // Several queries on one connection.
    let text = kdig(&["+tcp", "+keepopen", "+short", NAME, "A", "-x", "198.18.0.1", NAME, "A"]);
    assert_eq!(text, format!("198.18.0.1\n{NAME}.\n198.18.0.1\n"));
    assert_eq!(upstream.queries().len(), 0);
    shim.stop().await;
}

/// dnsmasq on a loopback port, with the shim as its only server. Dropping it stops dnsmasq.
struct Dnsmasq {
    address: SocketAddr,
    child: Child,
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Dnsmasq {
    fn start(server: SocketAddr) -> Self {
        Self::at(unused_address(), server)
    }

    fn at(address: SocketAddr, server: SocketAddr) -> Self {
        Self::with_servers(address, &[format!("{}#{}", server.ip(), server.port())])
    }

    fn with_servers(address: SocketAddr, servers: &[String]) -> Self {
        let mut command: Command = packages::tool("dnsmasq").expect("installed");
        command
            .args(dnsmasq::OPTIONS)
            .args(["--listen-address=127.0.0.1", "--bind-interfaces"])
            .args(["--cache-size=100", "--strict-order"])
            .arg(format!("--port={}", address.port()));
        command.args(servers.iter().map(|server| format!("--server={server}")));
        process::die_with_parent(&mut command);
        let log = tempfile::tempfile().expect("a log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.try_clone().expect("a second handle"))
            .spawn()
            .expect("started");
        let mut dnsmasq = Self { address, child };
        dnsmasq.wait_until_listening(log);
        dnsmasq
    }

    fn wait_until_listening(&mut self, mut log: File) {
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(self.address).is_err() {
            let ended = self.child.try_wait().expect("the state");
            if ended.is_some() || Instant::now() > deadline {
                let mut text = String::new();
                log.rewind().and_then(|()| log.read_to_string(&mut text)).expect("the log");
                panic!("dnsmasq does not listen on {} ({ended:?}): {text}", self.address);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dnsmasq_in_front_caches_the_virtual_address() {
    let upstream = denies_everything().await;
    let shim = RunningShim::start(&[upstream.address]).await;
    let dnsmasq = Dnsmasq::start(shim.address);
    let dig = |arguments: &[&str]| {
        run("dig", dnsmasq.address, &[&["+tries=1", "+time=5"], arguments].concat())
    };
    assert_eq!(dig(&["+short", NAME, "A"]), "198.18.0.1\n");
    assert_eq!(dig(&["+tcp", "+short", NAME, "A"]), "198.18.0.1\n");
    let text = dig(&[NAME, "AAAA"]);
    assert!(text.contains("status: NOERROR") && text.contains("ANSWER: 0"), "{text}");
    assert!(dig(&["elsewhere.example", "A"]).contains("status: NXDOMAIN"));
    let counters = shim.publisher.counters();
    assert_eq!(counters.answered, 1, "dnsmasq cached the second: {counters:?}");
    assert!(
        upstream
            .queries()
            .iter()
            .all(|received| received.query[13..].starts_with(b"redirector-loop-")
                || !received.query.windows(8).any(|label| label.eq_ignore_ascii_case(b"internal"))),
        "no source leaks"
    );
    shim.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dnsmasq_that_loops_is_ejected_until_it_is_fixed() {
    let other = ScriptedUpstream::start(|received| {
        vec![Action::Send(reply(&received.query, ResponseCode::NXDomain, &[]))]
    })
    .await;
    let (own, elsewhere) = (unused_address(), bytes(&query("elsewhere.example", RecordType::A)));
    let looping = Dnsmasq::start(own);
    let shim =
        RunningShim::start_with(ShimSettings { listen: vec![own], ..settings(&[looping.address]) })
            .await;
    let until = async |loops: bool| {
        let deadline = Instant::now() + START_LIMIT;
        while shim.publisher.upstreams()[0].loops != loops {
            assert!(Instant::now() < deadline, "never {loops}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    until(true).await;
    let (began, before) = (Instant::now(), shim.publisher.counters().queries);
    assert_eq!(parsed(&shim.ask(&elsewhere).await).metadata.response_code, ResponseCode::ServFail);
    assert!(
        shim.publisher.counters().queries - before < 5,
        "the query does not loop: {:?}",
        shim.publisher.counters()
    );
    assert!(began.elapsed() < Duration::from_secs(1), "the client does not wait");
    let reason = shim.publisher.awaited_upstream().expect("not ready");
    assert!(
        reason.contains("forwards back to us") && reason.contains(&looping.address.to_string()),
        "{reason}"
    );
    // A second upstream answers, and the looping one is skipped.
    shim.publisher
        .reconfigure(&ShimSettings {
            listen: vec![own],
            ..settings(&[looping.address, other.address])
        })
        .expect("fine");
    until(true).await;
    assert_eq!(parsed(&shim.ask(&elsewhere).await).metadata.response_code, ResponseCode::NXDomain);
    assert_eq!((shim.publisher.awaited_upstream(), other.queries().len()), (None, 1));
    // With its configuration fixed, it is an upstream like any other.
    let address = looping.address;
    drop(looping);
    let fixed = Dnsmasq::at(address, other.address);
    until(false).await;
    shim.publisher
        .reconfigure(&ShimSettings { listen: vec![own], ..settings(&[fixed.address]) })
        .expect("fine");
    assert_eq!(parsed(&shim.ask(&elsewhere).await).metadata.response_code, ResponseCode::NXDomain);
    shim.stop().await;
}

/// Waits until the shim knows which zones its first upstream forwards back to it.
async fn until_looping(shim: &RunningShim, zones: &[&str]) -> Duration {
    let began = Instant::now();
    while shim.publisher.upstreams()[0].looping_zones != zones {
        assert!(began.elapsed() < START_LIMIT, "{:?}", shim.publisher.upstreams());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

/// The best of several tries, as a busy machine may delay each.
async fn assert_within_a_second(what: &str, find: impl AsyncFn() -> Duration) {
    let mut tries = Vec::new();
    while tries.last().is_none_or(|took| *took >= Duration::from_secs(1)) {
        if tries.len() == 5 {
            assert!(testbed::process::is_machine_busy(), "{what} was found after {tries:?}");
            break;
        }
        tries.push(find().await);
    }
    println!("{what} was found after {tries:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_a_dnsmasq_forwards_back_fails_at_once() {
    let real = denies_everything().await;
    let (own, node) = (unused_address(), unused_address());
    let to = |server: SocketAddr| format!("{}#{}", server.ip(), server.port());
    // The node's dnsmasq forwards a zone to the shim, and is the shim's upstream.
    let both = [to(real.address), format!("/company.net/{}", to(own))];
    let conditional = Dnsmasq::with_servers(node, &both);
    let settings =
        |upstreams: &[SocketAddr]| ShimSettings { listen: vec![own], ..settings(upstreams) };
    let shim = RunningShim::start_with(settings(&[node])).await;
    until_looping(&shim, &["company.net"]).await;
    let code = async |shim: &RunningShim, name: &str| {
        let query = bytes(&query(name, RecordType::A));
        parsed(&shim.ask(&query).await).metadata.response_code
    };
    for name in ["other.internal.company.net", "WWW.Company.Net", "company.net"] {
        let (began, before) = (Instant::now(), shim.publisher.counters().queries);
        assert_eq!(code(&shim, name).await, ResponseCode::ServFail, "{name}");
        assert!(began.elapsed() < Duration::from_secs(1), "{name}: {:?}", began.elapsed());
        // A round of probes may come back meanwhile.
        let queries = shim.publisher.counters().queries - before;
        assert!(queries < 5, "{name} does not loop: {queries}");
    }
    assert_eq!(code(&shim, "www.example.org").await, ResponseCode::NXDomain, "no such zone");
    assert_eq!(code(&shim, NAME).await, ResponseCode::NoError, "a route");
    assert!(!shim.publisher.upstreams()[0].loops);
    // A route in another zone that loops: found when it is added.
    drop(conditional);
    let more = [&both[..], &[format!("/example.org/{}", to(own))]].concat();
    let conditional = Dnsmasq::with_servers(node, &more);
    let route =
        |vip: Option<Vip>| [("a.b.example.org".parse().expect("a source"), vip.map(Into::into))];
    assert_within_a_second("a route's zone", async || {
        shim.publisher.update(route(None));
        until_looping(&shim, &["company.net"]).await;
        shim.publisher.update(route(Some(Vip { v4: [198, 18, 0, 2].into(), v6: None })));
        until_looping(&shim, &["company.net", "example.org"]).await
    })
    .await;
    assert_eq!(code(&shim, "www.example.org").await, ResponseCode::ServFail);
    // Another upstream serves such names.
    shim.publisher.reconfigure(&settings(&[node, real.address])).expect("fine");
    assert_eq!(code(&shim, "other.internal.company.net").await, ResponseCode::NXDomain);
    drop(conditional);
    shim.publisher.reconfigure(&settings(&[node])).expect("fine");
    assert_within_a_second("a zone that begins to loop and is asked about", async || {
        // With its configuration fixed, it is an upstream like any other.
        let fixed = Dnsmasq::at(node, real.address);
        until_looping(&shim, &[]).await;
        assert_eq!(code(&shim, "other.internal.company.net").await, ResponseCode::NXDomain);
        drop(fixed);
        let _conditional = Dnsmasq::with_servers(node, &both);
        let query = bytes(&query("another.internal.company.net", RecordType::A));
        let (_, found) = tokio::join!(shim.ask(&query), until_looping(&shim, &["company.net"]));
        found
    })
    .await;
    shim.stop().await;
}
