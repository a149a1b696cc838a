//! `top`, as it prints where there is no terminal.

use crate::control::EventHub;

use super::*;

/// An agent whose counters do not move, and to which one failure has happened.
fn quiet() -> Rig {
    let hub = EventHub::default();
    let refused =
        Event { result: EventResult::Refused, reason: None, traffic: None, ..Event::sample() };
    hub.publish([EventLine::Event(Box::new(refused))]);
    Rig::with_agent(move |command| match command {
        Command::Status(reply) => reply.send(Ok(status(vec![]))).expect("somebody waits"),
        Command::Events(query, reply) => drop(reply.send(Ok(hub.subscribe(query)))),
        other => unexpected(other),
    })
}

#[test]
fn one_page_without_colours_is_printed_without_a_terminal() {
    let rig = quiet();
    let expected = "\
redirecting 1 route for 1 cgroup; 1 backend ejected
0/s established, 0/s failed, 0/s denied; 1 open, 0 under way
open: 0 by cgroup, 3 by packet at 1 interface (veth1 3)

ROUTE                       OK/S  FAIL/S  DENY/S   WAIT    OPEN       P50       P99  STATE
a.internal                     0       0       0      0       1         -         -  1 of 2 ejected
  203.0.113.7                  0       0              0       1         -            eligible
  203.0.113.8                  0       0              0       1         -            \
ejected, 3 failures, retry in 4 s

LAST FAILURES (TIME IN UTC)
00:00:00  refused      a.internal:443 → 203.0.113.7:8443  curl[4711] /kubepods/podjob
";
    let ended = rig.run(&["top", "--interval", "0.1"]);
    assert_eq!((ended.exit, ended.out.as_str(), ended.err.as_str()), (Exit::Done, expected, ""));
    let (served, others): (Vec<&str>, _) =
        expected.split_inclusive('\n').partition(|line| line.starts_with("open: "));
    assert_eq!(served.len(), 1);
    assert_eq!(
        rig.run(&["top", "--once", "--interval", "0.1", "--route", "a.internal"]).out,
        others.concat()
    );
    assert!(rig.run_with(&["top", "--once", "--interval", "0.1"], "", true).out.contains("\x1b["));
}

#[test]
fn json_has_an_object_for_each_interval() {
    let ended = quiet().run(&["top", "-o", "json", "--count", "2", "--interval", "0.1"]);
    let objects: Vec<serde_json::Value> =
        ended.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((ended.exit, objects.len()), (Exit::Done, 2));
    for object in objects {
        assert!(
            object["interval_seconds"].as_f64().is_some_and(|seconds| seconds >= 0.1),
            "{object:#}"
        );
        assert_eq!(
            (&object["agent_answers"], &object["total"]["failed"], &object["routes"][0]["source"]),
            (&true.into(), &2.into(), &"a.internal".into())
        );
        let served = &object["served"];
        assert_eq!(
            (&served["by_packet"], &served["interfaces"][0]["open"]),
            (&3.into(), &3.into())
        );
        assert_eq!(
            (&object["routes"][0]["backends"][1]["state"], &object["routes"][0]["latency"]),
            (&"ejected".into(), &serde_json::Value::Null)
        );
    }
}

#[test]
fn unknown_routes_and_invalid_options_are_reported() {
    let rig = quiet();
    let ended = rig.run(&["top", "--once", "--interval", "0.1", "--route", "b.internal"]);
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Failed, ""));
    assert!(ended.err.contains("there is no route for b.internal"), "{}", ended.err);
    for wrong in [
        &["top", "--interval", "0"][..],
        &["top", "--interval", "61"],
        &["top", "--once", "--count", "2"],
        &["top", "--sort", "size"],
    ] {
        assert_eq!(rig.run(wrong).exit, Exit::Usage, "{wrong:?}");
    }
    assert_eq!(Rig::without_agent().run(&["top", "--once"]).exit, Exit::Absent);
}
