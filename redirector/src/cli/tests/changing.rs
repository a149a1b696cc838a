//! What changes: `route add`, `set`, `remove`, `import`.

use super::*;

#[test]
fn an_added_route_is_one_line_and_warnings_go_to_stderr() {
    let rig = Rig::with_agent(|command| match command {
        Command::Add(raw, _, reply) => {
            let source = raw.source.parse().expect("a source");
            let warnings =
                if raw.ports.is_some() { vec![] } else { vec!["it does not resolve".into()] };
            let backends =
                if raw.ports.is_some() { vec![backend(7, 0), backend(8, 0)] } else { vec![] };
            let route = Some(RouteView { definition: Some(*raw), ..view(backends) });
            let answer =
                Changed { version: VERSION, change: ChangeKind::Added, source, route, warnings };
            reply.send(Ok(answer)).expect("somebody waits");
        }
        other => unexpected(other),
    });
    let ended = rig.run(&[
        "route",
        "add",
        "a.internal",
        "203.0.113.7,203.0.113.8",
        "--port",
        "443",
        "--port",
        "80:8080",
    ]);
    assert_eq!(ended.exit, Exit::Done, "{ended:?}");
    assert_eq!(
        ended.out,
        "added a.internal: 198.18.0.7 → 203.0.113.7, 203.0.113.8 (ports 443, 80:8080)\n"
    );
    assert_eq!(ended.err, "");
    let ended = rig.run(&["route", "add", "a.internal", "lb.public", "--on-no-backend", "pass"]);
    assert_eq!(ended.exit, Exit::Done, "{ended:?}");
    assert_eq!(
        ended.out,
        "added a.internal: 198.18.0.7 → no backend yet; connects are left alone until there is \
            one\n"
    );
    assert_eq!(ended.err, "redirector: warning: it does not resolve\n");
}

#[test]
fn set_sends_only_what_was_given_and_null_for_what_is_cleared() {
    let rig = Rig::with_agent(|command| match command {
        Command::Set(source, patch, _, reply) => {
            let sent = serde_json::to_value(&*patch).expect("JSON").to_string();
            let answer = Changed {
                version: VERSION,
                change: ChangeKind::Changed,
                source,
                route: None,
                warnings: vec![sent],
            };
            reply.send(Ok(answer)).expect("somebody waits");
        }
        other => unexpected(other),
    });
    let sent = |arguments: &[&str]| {
        let ended = rig.run(&[&["route", "set", "a.internal"], arguments].concat());
        assert_eq!(ended.exit, Exit::Done, "{ended:?}");
        ended.err.trim_start_matches("redirector: warning: ").trim_end().to_owned()
    };
    assert_eq!(sent(&["--destination", "lb2.public"]), r#"{"destination":"lb2.public"}"#);
    assert_eq!(
        sent(&["--destination", "203.0.113.7", "--destination", "203.0.113.8"]),
        r#"{"destination":["203.0.113.7","203.0.113.8"]}"#
    );
    assert_eq!(
        sent(&["--port", "443,80:8080", "--clear", "resolver,idle-timeout"]),
        r#"{"idle_timeout":null,"ports":["443","80:8080"],"resolver":null}"#
    );
    assert_eq!(
        sent(&["--source-ip", "198.51.100.1", "--idle-timeout", "350s"]),
        r#"{"idle_timeout":"350s","source_ips":["198.51.100.1"]}"#
    );
    for wrong in [&["--port", "443", "--clear", "ports"][..], &[]] {
        assert_eq!(rig.run(&[&["route", "set", "a.internal"], wrong].concat()).exit, Exit::Usage);
    }
}

#[test]
fn the_agents_refusals_have_the_documented_exit_codes() {
    for (code, exit) in [
        (ErrorCode::Conflict, Exit::Failed),
        (ErrorCode::Invalid, Exit::Usage),
        (ErrorCode::Kernel, Exit::Failed),
    ] {
        let rig = Rig::with_agent(move |command| match command {
            Command::Remove(_, _, reply) => {
                reply.send(Err(ApiError::new(code, "no").remedy("try"))).expect("somebody waits")
            }
            other => unexpected(other),
        });
        let ended = rig.run(&["route", "remove", "a.internal"]);
        assert_eq!(
            (ended.exit, ended.out.as_str(), ended.err.as_str()),
            (exit, "", "redirector: no: try\n")
        );
    }
}

#[test]
fn an_import_reads_standard_input_and_shows_the_difference() {
    let rig = Rig::with_agent(|command| match command {
        Command::Import(request, _, reply) => {
            let answer = Imported {
                version: VERSION,
                dry_run: request.dry_run,
                added: request.routes,
                changed: vec![Differing { old: definition(&[]), new: definition(&["443"]) }],
                removed: vec![],
                unchanged: 3,
                warnings: vec![],
            };
            reply.send(Ok(answer)).expect("somebody waits");
        }
        other => unexpected(other),
    });
    let yaml = "spec:\n  infrastructure:\n    executorPrivateDNS:\n      proxyTag: '1'\n      \
        routes: [{source: n.internal, destination: lb.public, resolverIP: 10.0.0.2}]\n";
    let ended = rig.run_with(&["route", "import", "-", "--dry-run"], yaml, false);
    let expected = "\
+ n.internal
    destination: lb.public
    resolver: 10.0.0.2:53
~ a.internal
    ports: (default) -> 443
1 added, 1 changed, 0 removed, 3 unchanged
dry run: nothing was changed
";
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Done, expected), "{ended:?}");
    let ended = rig.run_with(
        &["route", "import", "-"],
        "routes: [{source: 1.2.3.4, destination: ''}]",
        false,
    );
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Usage, ""), "{ended:?}");
    assert_eq!(ended.err.lines().count(), 3, "both problems are reported: {}", ended.err);
    assert_eq!(rig.run(&["route", "import", "/nonexistent.yaml"]).exit, Exit::Failed);
}
