use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::*;
use crate::{
    control::api::{
        BackendState, BackendView, Counters, Resolution, ResolutionState, RouteView, VipView,
    },
    route::RawRoute,
    verify::{
        probe::{ConnectResult, DnsResult, HttpResult, IoFailure, TlsFailure, TlsResult},
        report::{Candidate, SourceAddresses},
    },
};

fn route(counters: Counters) -> RouteView {
    let definition = serde_json::json!({
        "source": "a.internal", "destination": "lb.public", "ports": ["443", "80:8080"]
    });
    RouteView {
        source: Some("a.internal".parse().expect("a source")),
        vip: VipView { index: 1, ipv4: Some([198, 18, 0, 1].into()), ipv6: None },
        origin: None,
        definition: Some(serde_json::from_value::<RawRoute>(definition).expect("a definition")),
        live: true,
        resolution: Some(Resolution {
            state: ResolutionState::Fresh,
            error: None,
            resolved_at: None,
            ttl_seconds: None,
            rejected: vec![],
            left_out: vec![],
        }),
        backends: vec![BackendView {
            cause: None,
            address: [203, 0, 113, 7].into(),
            state: BackendState::Eligible,
            failures: 0,
            retry_in_ms: None,
            ejections: vec![],
            counters: None,
        }],
        counters: Some(counters),
        answers: crate::control::api::AnswerCounts::default(),
    }
}

/// Facts of a route that works.
fn facts<'a>(
    before: &'a RouteView,
    after: &'a RouteView,
    source: &'a SourceAddresses,
) -> Facts<'a> {
    const LISTEN: &[SocketAddr] =
        &[SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 20, 53)), 53)];
    Facts {
        name: "a.internal",
        wanted: "a.internal",
        asked: None,
        port: 443,
        before,
        after: Some(after),
        agent: true,
        listen: LISTEN,
        in_pool: &|address| match address {
            IpAddr::V4(address) => address.octets()[..2] == [198, 18],
            IpAddr::V6(_) => false,
        },
        attached: true,
        covered: true,
        cgroup: "/sys/fs/cgroup/kubepods".into(),
        process: None,
        source,
    }
}

/// The first cause of what was seen, with counters that grew by `grown`.
fn cause(
    seen: &ProbeResult,
    port: u16,
    grown: Counters,
    change: impl FnOnce(&mut Facts<'_>),
) -> (String, String) {
    let (before, after) = (route(Counters::default()), route(grown));
    let source =
        SourceAddresses { expected: vec![], executor: None, node: Some([198, 51, 100, 1].into()) };
    let mut facts = Facts { port, ..facts(&before, &after, &source) };
    change(&mut facts);
    let (_, findings) = diagnose(seen, &facts);
    findings
        .into_iter()
        .next()
        .map(|finding| (finding.code.as_str().to_owned(), finding.cause))
        .unwrap_or_default()
}

fn dns(server: &str, addresses: &[[u8; 4]], rcode: &str) -> ProbeResult {
    let addresses = addresses.iter().map(|&address| address.into()).collect();
    let server = server.parse().expect("an address");
    ProbeResult {
        dns: Some(DnsResult::Answer { server, addresses, code: rcode.into(), milliseconds: 1 }),
        ..ProbeResult::default()
    }
}

#[test]
fn each_wrong_dns_answer_has_its_cause() {
    let code = |seen: &ProbeResult| cause(seen, 443, Counters::default(), |_| {}).0;
    let (shim, other) = ("169.254.20.53:53", "10.96.0.10:53");
    assert_eq!(code(&dns(shim, &[[198, 18, 0, 1]], "NOERROR")), "");
    assert_eq!(code(&dns(other, &[[198, 18, 0, 1]], "NOERROR")), "", "an intercepted nameserver");
    assert_eq!(code(&dns(other, &[[198, 18, 0, 9]], "NOERROR")), "other_vip");
    assert_eq!(code(&dns(other, &[[203, 0, 113, 7]], "NOERROR")), "real_address");
    assert_eq!(code(&dns(other, &[[192, 0, 2, 1]], "NOERROR")), "not_the_shim");
    assert_eq!(code(&dns(other, &[], "NXDOMAIN")), "not_the_shim");
    assert_eq!(code(&dns("127.0.0.11:53", &[], "NXDOMAIN")), "loopback_resolver");
    assert_eq!(code(&dns(shim, &[], "NXDOMAIN")), "not_live");
    assert_eq!(code(&dns(shim, &[], "SERVFAIL")), "not_live");
}

#[test]
fn an_answer_for_another_name_of_the_search_list_is_named() {
    let asked = |route: Option<&str>| Candidate {
        name: "a.internal.corp.example".into(),
        route: route.map(|route| route.parse().expect("a source")),
    };
    let cause = |address: [u8; 4], by: Option<&str>| {
        let asked = asked(by);
        let seen = dns("10.96.0.10:53", &[address], "NOERROR");
        let (before, after) = (route(Counters::default()), route(Counters::default()));
        let source = SourceAddresses::default();
        let facts = Facts { asked: Some(&asked), ..facts(&before, &after, &source) };
        let (_, findings) = diagnose(&seen, &facts);
        findings.first().map(|first| (first.code.as_str(), first.prevents, first.cause.clone()))
    };
    let (code, prevents, text) = cause([192, 0, 2, 1], None).expect("a finding");
    assert_eq!((code, prevents), ("search_list", true));
    assert!(text.contains("no route has it"), "{text}");
    let (code, prevents, text) = cause([198, 18, 0, 9], Some("**.example")).expect("a finding");
    assert_eq!((code, prevents), ("search_list", true));
    assert!(text.contains("the route of **.example has it"), "{text}");
    assert_eq!(cause([198, 18, 0, 1], Some("a.internal")), None, "the same route");
}

#[test]
fn a_silent_shim_means_a_dead_agent_or_a_blocked_network() {
    let silent = |server: &str, why: IoFailure| ProbeResult {
        dns: Some(DnsResult::Failed { server: server.parse().expect("an address"), why }),
        ..ProbeResult::default()
    };
    let code = |seen: &ProbeResult, agent: bool| {
        cause(seen, 443, Counters::default(), |facts| facts.agent = agent).0
    };
    assert_eq!(code(&silent("169.254.20.53:53", IoFailure::Refused), false), "agent_dead");
    assert_eq!(code(&silent("169.254.20.53:53", IoFailure::TimedOut), true), "shim_unreachable");
    assert_eq!(code(&silent("127.0.0.53:53", IoFailure::Refused), true), "loopback_resolver");
    assert_eq!(code(&silent("10.96.0.10:53", IoFailure::TimedOut), true), "not_the_shim");
}

fn failed(why: IoFailure) -> ProbeResult {
    let to = "198.18.0.1:443".parse().expect("an address");
    ProbeResult {
        connect: Some(ConnectResult::Failed { to, why, milliseconds: 3 }),
        ..ProbeResult::default()
    }
}

#[test]
fn a_missed_hook_and_a_failed_backend_have_distinct_causes() {
    let started = Counters { started: 1, ..Counters::default() };
    let denied = Counters { denied: 1, ..Counters::default() };
    let code =
        |why: IoFailure, port: u16, grown: Counters| cause(&failed(why), port, grown, |_| {}).0;
    assert_eq!(code(IoFailure::Refused, 443, started), "backend_refused");
    assert_eq!(code(IoFailure::TimedOut, 443, started), "backend_timeout");
    assert_eq!(code(IoFailure::Unreachable, 443, started), "backend_unreachable");
    assert_eq!(code(IoFailure::NotPermitted, 443, started), "forbidden_here");
    assert_eq!(code(IoFailure::Refused, 22, denied), "port_not_listed");
    assert_eq!(code(IoFailure::NotPermitted, 22, denied), "port_not_listed", "a kernel below 6.1");
    assert_eq!(code(IoFailure::Refused, 443, denied), "denied");
    assert_eq!(code(IoFailure::NotPermitted, 443, Counters::default()), "hook_missed");
    let hook_missed = |change: fn(&mut Facts<'_>)| {
        cause(&failed(IoFailure::Unreachable), 443, Counters::default(), change).0
    };
    assert_eq!(hook_missed(|facts| facts.covered = false), "wrong_cgroup");
    assert_eq!(hook_missed(|facts| facts.attached = false), "not_attached");
}

#[test]
fn each_failure_of_tls_has_its_cause() {
    let code = |why: TlsFailure| {
        let seen = ProbeResult {
            tls: Some(TlsResult::Failed { why, message: "w".into(), certificate: None }),
            ..ProbeResult::default()
        };
        cause(&seen, 443, Counters::default(), |_| {}).0
    };
    assert_eq!(code(TlsFailure::NotYetValid), "certificate_not_yet_valid");
    assert_eq!(code(TlsFailure::BadCertificate), "bad_certificate");
    assert_eq!(code(TlsFailure::Alert("unrecognized_name".into())), "tls_refused");
    assert_eq!(code(TlsFailure::Incompatible), "tls_incompatible");
    assert_eq!(code(TlsFailure::NoRoots), "no_roots");
    assert_eq!(code(TlsFailure::Other), "tls_failed");
}

#[test]
fn each_failure_of_http_has_its_cause() {
    let http = |http: HttpResult| {
        cause(
            &ProbeResult { http: Some(http), ..ProbeResult::default() },
            443,
            Counters::default(),
            |_| {},
        )
        .0
    };
    assert_eq!(
        http(HttpResult::Failed { why: TlsFailure::Other, message: "w".into() }),
        "http_failed"
    );
    let started = Counters { started: 1, ..Counters::default() };
    assert_eq!(
        cause(&failed(IoFailure::Other("out of memory".into())), 443, started, |_| {}).0,
        "backend_failed"
    );
}

#[test]
fn a_timeout_names_the_expected_and_the_actual_source() {
    let started = Counters { started: 1, ..Counters::default() };
    let (_, message) = cause(&failed(IoFailure::TimedOut), 443, started, |_| {});
    assert!(
        message.contains("is this node's egress address on the load balancer's allowlist?")
            && message.contains("198.51.100.1"),
        "{message}"
    );
    let other = SourceAddresses {
        expected: vec![[198, 51, 100, 2].into()],
        executor: Some([10, 61, 0, 2].into()),
        node: Some([198, 51, 100, 1].into()),
    };
    assert!(other.wrong());
    let expected = "expected source address 198.51.100.2, got 198.51.100.1 (this node's; \
        the executor's own is 10.61.0.2)";
    assert_eq!(other.label(), expected);
}
