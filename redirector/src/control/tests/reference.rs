//! Checks that `docs/reference/api.md` names every field and code of the API.

use serde_json::{Value, json};

use crate::control::{ErrorCode, api};

const PAGE: &str = include_str!("../../../../docs/reference/api.md");

/// Every key of a serialised value, at every depth.
fn keys(value: &Value, found: &mut std::collections::BTreeSet<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            found.insert(key.clone());
            keys(value, found);
        }),
        Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

fn assert_named(word: &str) {
    let found = PAGE.match_indices(word).any(|(at, _)| {
        let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        edge(PAGE[..at].chars().next_back()) && edge(PAGE[at + word.len()..].chars().next())
    });
    assert!(found, "docs/reference/api.md does not name `{word}`");
}

/// A status with every field.
fn status() -> Value {
    json!({
        "version": 1,
        "state": "ok",
        "summary": "",
        "problems": [
            {"code": "x", "source": "a.b", "message": "", "remedy": "", "degrades": true}
        ],
        "agent": {
            "pid": 1,
            "version": "",
            "started_at": "1970-01-01T00:00:00Z",
            "uptime_seconds": 0,
            "standby": {"pid": 1, "ready": true}
        },
        "config": {
            "path": "",
            "loaded_at": "1970-01-01T00:00:00Z",
            "error": null,
            "restart_needed_for": []
        },
        "dns": {
            "listen": [],
            "names": 0,
            "counters": {},
            "upstreams": [
                {"address": "192.0.2.53:53", "ejected": true, "queries": 1, "failures": 1}
            ]
        },
        "datapath": datapath(),
        "events": {"emitted": 1, "lost": 0, "sampling_ratio": 1, "readers": 0},
        "routes": [route()]
    })
}

fn datapath() -> Value {
    json!({
        "abi": 1,
        "pins": "",
        "pool_ipv4": "",
        "pool_ipv6": null,
        "heartbeat_age_ms": null,
        "programs": [],
        "attachments": [{"cgroup": null, "cgroup_id": 1, "programs": [], "live": true}],
        "cgroup2_mount": null,
        "pending_attachments": [{"cgroup": "", "reason": ""}],
        "uncovered": [{"cgroup": "", "preset": null, "connections": 1}],
        "source_ports": [{"source": "::1", "backend": "[::1]:1", "ports": 1}],
        "pods": {"selected": 1, "left_out": 1, "error": null},
        "draining_cgroups": 0,
        "foreign_programs": [
            {"cgroup": "", "hook": "", "id": 1, "name": null, "runs_first": true}
        ],
        "upgraded": {
            "at": "1970-01-01T00:00:00Z",
            "from_version": "",
            "from_abi": 1,
            "to_version": "",
            "to_abi": 2
        },
        "packet": {
            "unavailable": "",
            "answers_names": true,
            "names": 1,
            "counters": {},
            "interfaces": [{
                "index": 1,
                "name": null,
                "kind": "",
                "names": "packet",
                "connects": "none",
                "failed": true,
                "reason": "",
                "hook": "tcx",
                "programs": [],
                "reattached": 1,
                "preceded_by": [""],
                "flows": {"open": 1, "half_open": 1, "refused": 1, "limit": 1}
            }]
        }
    })
}

fn route() -> Value {
    json!({
        "source": null,
        "vip": {"index": 1, "ipv4": null, "ipv6": null},
        "origin": "file",
        "live": true,
        "definition": {
            "source": "a.b",
            "destination": "c",
            "ports": [],
            "resolver": "",
            "source_ips": [],
            "on_no_backend": "",
            "idle_timeout": ""
        },
        "resolution": {
            "state": "stale",
            "error": null,
            "resolved_at": null,
            "ttl_seconds": null,
            "rejected": [{"address": "127.0.0.1", "reason": "loopback"}],
            "left_out": ["203.0.113.7"]
        },
        "backends": [
            {
                "address": "::1",
                "state": "ejected",
                "failures": 1,
                "retry_in_ms": 1,
                "ejections": [
                    {"port": 443, "client": "", "failures": 1, "retry_in_ms": 1}
                ],
                "counters": {}
            }
        ],
        "counters": {},
        "answers": {"packet": 1, "shim": 1}
    })
}

#[test]
fn the_reference_names_every_field_of_every_answer() {
    let status: api::Status = serde_json::from_value(status()).expect("a status");
    let imported = api::Imported {
        version: 1,
        dry_run: true,
        added: vec![],
        changed: vec![api::Differing {
            old: crate::route::RawRoute::default(),
            new: crate::route::RawRoute::default(),
        }],
        removed: vec![],
        unchanged: 0,
        warnings: vec![],
    };
    let changed = api::Changed {
        version: 1,
        change: api::ChangeKind::Added,
        source: "a.b".parse().expect("a source"),
        route: None,
        warnings: vec![],
    };
    let reloaded = api::Reloaded { version: 1, changed: vec![], restart_needed_for: vec![] };
    let request = api::ImportRequest { routes: vec![], replace: false, dry_run: false };
    let change = api::Change {
        number: 1,
        at: jiff::Timestamp::UNIX_EPOCH,
        uid: 0,
        gid: 0,
        pid: None,
        action: "added".into(),
        undoes: None,
        undone: false,
        sources: vec![],
    };
    let mut found = std::collections::BTreeSet::new();
    for value in [
        serde_json::to_value(status),
        serde_json::to_value(imported),
        serde_json::to_value(changed),
        serde_json::to_value(api::Progress { version: 1, routes: 1, live: 1, waiting: 0 }),
        serde_json::to_value(reloaded),
        serde_json::to_value(request),
        serde_json::to_value(change),
        serde_json::to_value(api::Event::sample()),
        serde_json::to_value(api::Lost { version: 1, lost: 1, lost_by: api::LostBy::Kernel }),
    ] {
        keys(&value.expect("JSON"), &mut found);
    }
    found.iter().for_each(|key| assert_named(key));
    assert!(found.len() > 60, "{} keys: the sample above has lost some", found.len());
}

#[test]
fn the_reference_names_every_error_with_its_status() {
    for code in ErrorCode::ALL {
        let word = serde_json::to_value(code).expect("a word");
        let row = format!("| {} | `{}` |", code.status().as_u16(), word.as_str().expect("a word"));
        assert!(PAGE.contains(&row), "docs/reference/api.md has no row `{row}`");
    }
}

#[test]
fn the_reference_names_every_problem() {
    for code in api::ProblemCode::ALL {
        let row = format!("\n| `{code}` |");
        assert!(PAGE.contains(&row), "docs/reference/api.md has no row for `{code}`");
    }
}
