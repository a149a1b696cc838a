use std::net::SocketAddr;

use super::*;
use crate::{
    control::api::{BackendState, EjectionView, Problem, ProblemCode, Status},
    datapath::ForeignProgram,
};

fn status() -> Status {
    serde_json::from_value(serde_json::json!({
        "version": 1, "state": "ok", "summary": "", "problems": [],
        "agent": {
            "pid": 1, "version": "0", "started_at": "1970-01-01T00:00:00Z", "uptime_seconds": 1
        },
        "config": null, "dns": {"listen": ["169.254.20.53:53"], "names": 1, "counters": {}},
        "datapath": {"abi": 1, "pins": "/p", "pool_ipv4": "198.18.0.0/16", "pool_ipv6": null,
            "heartbeat_age_ms": 100, "programs": [],
            "attachments": [{
                "cgroup": "/c/kubepods", "cgroup_id": 5, "programs": ["a"], "live": true
            }]},
        "routes": [{"source": "*.a.internal",
            "vip": {"index": 1, "ipv4": "198.18.0.1", "ipv6": null},
            "origin": "file", "live": true,
            "definition": {"source": "*.a.internal", "destination": "lb"}, "resolution": null,
            "backends": [{
                "address": "203.0.113.7", "state": "eligible", "failures": 0, "retry_in_ms": null,
                "counters": null
            }], "counters": null}]
    }))
    .expect("a status")
}

fn facts<'a>(
    status: &'a Status,
    shim: &'a [SocketAddr],
    others: &'a [ForeignProgram],
) -> ExplainFacts<'a> {
    ExplainFacts { status, process: None, interface: None, client: None, shim, others }
}

fn explain_to(status: &Status, target: &str, others: &[ForeignProgram]) -> Explained {
    let shim = ["169.254.20.53:53".parse().expect("an address")];
    explain(&target.parse().expect("a target"), &facts(status, &shim, others))
}

fn explain_at(status: &Status, interface: &str) -> Explained {
    explain(
        &"x.a.internal".parse().expect("a target"),
        &ExplainFacts { interface: Some(interface), ..facts(status, &[], &[]) },
    )
}

/// The status with an interface of a guest, and one that is not served.
fn with_interfaces() -> Status {
    let mut status = status();
    let interface = |name: &str, connects: &str| {
        serde_json::from_value(serde_json::json!({
            "index": 7, "name": name, "kind": "tun", "names": "packet", "connects": connects,
            "failed": false, "reason": null, "hook": "tcx", "programs": [], "reattached": 0,
            "preceded_by": [], "flows": null
        }))
        .expect("an interface")
    };
    let datapath = status.datapath.as_mut().expect("a datapath");
    datapath.packet.interfaces = vec![interface("tap0", "packet"), interface("tap1", "none")];
    status
}

#[test]
fn a_guest_meets_the_programs_of_its_interface() {
    let mut status = with_interfaces();
    let explained = explain_at(&status, "tap0");
    assert!(explained.redirected && explained.findings.is_empty(), "{explained:?}");
    assert!(explained.path.iter().any(|stage| stage.detail.contains("tap0 (tcx): names are")));
    for interface in ["tap1", "eth9"] {
        let explained = explain_at(&status, interface);
        assert_eq!(explained.findings[0].code, CauseCode::InterfaceNotServed, "{interface}");
        assert!(!explained.redirected);
    }
    let definition = status.routes[0].definition.as_mut().expect("a definition");
    definition.idle_timeout = Some("350s".into());
    definition.source_ips = Some(vec!["198.51.100.1".into()]);
    let codes: Vec<_> =
        explain_at(&status, "tap0").findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, [CauseCode::GuestLimits, CauseCode::GuestLimits]);
    assert!(explain_at(&status, "tap0").redirected, "they prevent nothing");
}

/// The first finding after `change`.
fn first(change: impl FnOnce(&mut Status)) -> String {
    let mut status = status();
    change(&mut status);
    explain_to(&status, "x.a.internal", &[])
        .findings
        .first()
        .map(|finding| finding.code.as_str().to_owned())
        .unwrap_or_default()
}

#[test]
fn a_working_route_has_no_finding() {
    let explained = explain_to(&status(), "x.a.internal:8443", &[]);
    assert_eq!(
        (explained.redirected, explained.verdict.as_str()),
        (true, "redirected to 203.0.113.7:8443")
    );
    assert_eq!(explained.findings, []);
}

#[test]
fn causes_in_the_agents_state_are_named() {
    assert_eq!(first(|_| {}), "");
    assert_eq!(
        first(|status| status.datapath.as_mut().expect("one").attachments.clear()),
        "not_attached"
    );
    assert_eq!(
        first(|status| status.datapath.as_mut().expect("one").attachments[0].live = false),
        "not_attached"
    );
    assert_eq!(
        first(|status| status.datapath.as_mut().expect("one").heartbeat_age_ms = Some(2500)),
        "stale_heartbeat"
    );
    assert_eq!(first(|status| status.agent = None), "agent_dead");
    assert_eq!(first(|status| status.routes[0].live = false), "not_live");
    assert_eq!(first(|status| status.routes[0].backends.clear()), "no_backends");
    let ipv6 = "2001:db8::7".parse().expect("an address");
    assert_eq!(first(|status| status.routes[0].backends[0].address = ipv6), "unusable_family");
    assert_eq!(
        first(|status| status.routes[0].backends[0].state = BackendState::Ejected),
        "all_ejected"
    );
    for (code, as_code) in [
        (ProblemCode::KernelUpdateFailed, "kernel_update_failed"),
        (ProblemCode::ConfigError, "config_error"),
    ] {
        let problem = Problem::new(code, "m".into());
        assert_eq!(first(|status| status.problems.push(problem)), as_code);
    }
    let silent = Problem::new(ProblemCode::AgentSilent, "m".into());
    let hangs = |status: &mut Status| {
        status.agent = None;
        status.problems.push(silent);
    };
    assert_eq!(first(hangs), "agent_silent");
}

#[test]
fn foreign_programs_are_reported_and_prevent_nothing() {
    let other = ForeignProgram {
        hook: "connect4".into(),
        id: 7,
        name: Some("cil_sock4_connect".into()),
        runs_first: false,
    };
    let explained = explain_to(&status(), "198.18.0.1", std::slice::from_ref(&other));
    assert!(
        explained.redirected && explained.findings[0].cause.contains("cil_sock4_connect (ID 7)"),
        "{explained:?}"
    );
}

#[test]
fn an_ejected_backend_of_several_prevents_nothing() {
    let mut status = status();
    let mut second = status.routes[0].backends[0].clone();
    second.state = BackendState::Ejected;
    status.routes[0].backends.push(second);
    let explained = explain_to(&status, "198.18.0.1", &[]);
    assert!(
        explained.redirected && explained.findings[0].code.as_str() == "backend_ejected",
        "{explained:?}"
    );
    let other = ForeignProgram { hook: "connect4".into(), id: 7, name: None, runs_first: false };
    assert_eq!(
        explain_to(&self::status(), "198.18.0.1", &[other]).findings[0].code.as_str(),
        "foreign_program"
    );
}

#[test]
fn an_ejection_for_one_client_is_named_for_it_alone() {
    let mut status = status();
    let of = |client: &str| EjectionView {
        cause: crate::datapath::EjectionCause::Connect,
        port: 443,
        client: Some(client.to_owned()),
        failures: 3,
        retry_in_ms: 900,
    };
    status.routes[0].backends[0].ejections = vec![of("the cgroup /kubepods/pod7")];
    let explain_for = |client: Option<&str>| {
        let target = "x.a.internal".parse().expect("a target");
        let known = ExplainFacts { client: client.map(str::to_owned), ..facts(&status, &[], &[]) };
        explain(&target, &known)
    };
    let [own, others, unknown] =
        [Some("the cgroup /kubepods/pod7"), Some("the cgroup /kubepods/pod8"), None]
            .map(explain_for);
    assert_eq!((own.redirected, own.findings[0].code), (false, CauseCode::AllEjected));
    assert!(own.findings[0].cause.contains("ejected for the cgroup /kubepods/pod7 after"));
    assert_eq!((others.redirected, others.findings), (true, vec![]));
    assert_eq!((unknown.redirected, unknown.findings[0].code), (true, CauseCode::BackendEjected));
    assert!(unknown.findings[0].cause.contains("the only backend is ejected for the cgroup"));
    let elsewhere =
        explain(&"x.a.internal:8443".parse().expect("a target"), &facts(&status, &[], &[]));
    assert_eq!(elsewhere.findings, [], "it is ejected at another port");
}
