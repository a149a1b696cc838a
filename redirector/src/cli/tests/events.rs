//! `events`, word for word.

use crate::control::EventHub;

use super::*;

/// An event of each kind, at known times.
fn lines() -> Vec<EventLine> {
    let closed = Event::sample();
    let at =
        |seconds: i64| jiff::Timestamp::new(1_780_000_000 + seconds, 123_000_000).expect("a time");
    let bare = Event { reason: None, traffic: None, ..closed.clone() };
    let event =
        |seconds, result, elapsed_ns| Event { at: at(seconds), result, elapsed_ns, ..bare.clone() };
    let denied = Event {
        reason: Some(EventReason::PortNotListed),
        backend: None,
        vip_port: 22,
        ..event(7, EventResult::Denied, 0)
    };
    let unknown = Event {
        source: None,
        command: None,
        cgroup: None,
        backend: None,
        reason: Some(EventReason::NoRoute),
        vip: [198, 18, 0, 9].into(),
        ..event(8, EventResult::Passed, 0)
    };
    let sampled = Event { sampling_ratio: 8, ..event(0, EventResult::Established, 850_000) };
    let events = [
        sampled,
        Event { at: at(1), reason: None, ..closed },
        event(2, EventResult::Refused, 412_000),
        Event {
            pid: 0,
            command: None,
            cgroup: None,
            cgroup_id: 0,
            ..event(3, EventResult::TimedOut, 3_100_000_000)
        },
        event(4, EventResult::Unreachable, 1_016_000_000),
        event(5, EventResult::Aborted, 300_000_000),
        event(6, EventResult::Unsent, 0),
        denied,
        unknown,
    ];
    let lost = |lost, lost_by| EventLine::Lost(Lost { version: VERSION, lost, lost_by });
    let missing = [lost(1, LostBy::Kernel), lost(12, LostBy::Reader)];
    events.into_iter().map(|event| EventLine::Event(Box::new(event))).chain(missing).collect()
}

/// A tenant chooses the name of its processes, and some that of its cgroup.
#[test]
fn no_text_of_a_tenant_forges_a_line() {
    let forged = "sh\n12:00:00 established \x1b[2J\x1b[32mok\r\u{202e}";
    let event = Event {
        command: Some(forged.into()),
        cgroup: Some(format!("/sys/fs/cgroup/{}", forged.replace('\n', "")).into()),
        ..Event::sample()
    };
    let rig = with_events(vec![EventLine::Event(Box::new(event))]);
    let printed = rig.run_with(&["events"], "", true).out;
    assert_eq!(printed.lines().count(), 3, "a heading, a date and a line: {printed:?}");
    assert!(printed.contains(r"sh\n12:00:00") && printed.contains(r"\u{1b}[2J"), "{printed:?}");
    assert!(!printed.contains("\x1b[2J") && !printed.contains('\r'), "{printed:?}");
    let json = rig.run(&["events", "-o", "json"]).out;
    assert_eq!((json.lines().count(), json.contains('\x1b')), (1, false), "{json:?}");
}

/// An agent to which these have happened.
fn with_events(lines: Vec<EventLine>) -> Rig {
    let hub = EventHub::default();
    hub.publish(lines);
    Rig::with_agent(move |command| match command {
        Command::Events(query, reply) => drop(reply.send(Ok(hub.subscribe(query)))),
        other => unexpected(other),
    })
}

#[test]
fn every_result_and_every_loss_has_a_line() {
    let rig = with_events(lines());
    let ended = rig.run(&["events"]);
    let expected = "\
TIME (UTC)    RESULT          TOOK  ROUTE           BACKEND                PROCESS
2026-05-28
20:26:40.123  established   850 µs  a.internal:443  203.0.113.7:8443       \
curl[4711] /kubepods/podjob  (1 in 8)
20:26:41.123  closed        1.5 ms  a.internal:443  203.0.113.7:8443       \
curl[4711] /kubepods/podjob  4.0 KiB received, 517 B sent, \
round trip 800 µs, 1 segment retransmitted
20:26:42.123  refused       412 µs  a.internal:443  203.0.113.7:8443       \
curl[4711] /kubepods/podjob
20:26:43.123  timed out      3.1 s  a.internal:443  203.0.113.7:8443       caller unknown
20:26:44.123  unreachable    1.0 s  a.internal:443  203.0.113.7:8443       \
curl[4711] /kubepods/podjob
20:26:45.123  aborted       300 ms  a.internal:443  203.0.113.7:8443       \
curl[4711] /kubepods/podjob
20:26:46.123  never sent         -  a.internal:443  203.0.113.7:8443       \
curl[4711] /kubepods/podjob
20:26:47.123  denied             -  a.internal:22   -                      \
curl[4711] /kubepods/podjob  port not listed
20:26:48.123  passed             -  198.18.0.9:443  -                      \
process [4711] cgroup 99  no route
";
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Done, expected));
    let missing = "\
1 event lost: the ring buffer was full
12 events lost: this reader is too slow
";
    assert_eq!(ended.err, missing);
    assert!(rig.run_with(&["events"], "", true).out.contains("\x1b["));
}

#[test]
fn an_event_has_one_line_of_a_terminals_width() {
    let mut rig = with_events(lines());
    for width in [60, 80, 100, 110, 132, 200] {
        rig.width = Some(width);
        let out = rig.run(&["events"]).out;
        let longest = out.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(width.into()), "{width}: {longest:?}\n{out}");
        // The head, the day, and each of nine events.
        assert_eq!(out.lines().count(), 11, "{out}");
    }
    rig.width = Some(80);
    let expected = "\
TIME     RESULT         TOOK ROUTE          PROCESS
2026-05-28
20:26:40 established  850 µs a.internal:443 curl[4711] …ubepods/podjob  (1 in 8)
20:26:41 closed       1.5 ms a.internal:443 curl[4711]  4.0 KiB received, 517 B…
20:26:42 refused      412 µs a.internal:443 curl[4711] /kubepods/podjob
";
    let out = rig.run(&["events"]).out;
    let first: String = out.split_inclusive('\n').take(5).collect();
    assert_eq!(first, expected);
    assert!(out.contains("a.internal:22  curl[4711] …/podjob  port not listed"), "{out}");
}

#[test]
fn a_pod_and_its_container_stand_for_the_cgroup() {
    let id = "9f8e7d6c5b4a".repeat(6)[..64].to_owned();
    let path = format!(
        "/sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-\
            pod0f3a7c52_9d1e_4b6a_8c2f_7e5d4a3b2c1d.slice/cri-containerd-{id}.scope"
    );
    let event = Event { cgroup: Some(path.into()), ..Event::sample() };
    let mut rig = with_events(vec![EventLine::Event(Box::new(event))]);
    let out = rig.run(&["events"]).out;
    assert!(
        out.contains("curl[4711] pod 0f3a7c52-9d1e-4b6a-8c2f-7e5d4a3b2c1d/9f8e7d6c5b4a"),
        "{out}"
    );
    rig.width = Some(120);
    let line = rig.run(&["events"]).out;
    assert!(line.lines().all(|line| line.chars().count() <= 120), "{line}");
}

#[test]
fn each_line_of_json_is_an_object_of_the_api() {
    let rig = with_events(lines());
    let ended = rig.run(&["events", "-o", "json"]);
    let read: Vec<EventLine> =
        ended.out.lines().map(|line| serde_json::from_str(line).expect("an event")).collect();
    assert_eq!((ended.exit, read), (Exit::Done, lines()));
    let first = concat!(
        r#"{"version":1,"at":"2026-05-28T20:26:40.123Z","result":"established","#,
        r#""reason":null,"source":"a.internal","#,
        r#""vip":"198.18.0.7","vip_port":443,"#,
        r#""backend":"203.0.113.7:8443","elapsed_ns":850000,"#,
        r#""traffic":null,"interface":null,"pid":4711,"command":"curl","#,
        r#""pod":null,"cgroup":"/sys/fs/cgroup/kubepods/podjob","#,
        r#""cgroup_id":99,"sampling_ratio":8}"#,
    );
    assert_eq!(ended.out.lines().next(), Some(first));
}

#[test]
fn a_reader_gets_only_the_events_it_requests() {
    let rig = with_events(lines());
    let results = |arguments: &[&str]| {
        let ended = rig.run(&[&["events", "-o", "json"], arguments].concat());
        let read = ended
            .out
            .lines()
            .map(|line| serde_json::from_str::<EventLine>(line).expect("an event"));
        read.filter_map(|line| line.event().map(|event| event.result.as_str()))
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        results(&["--failed"]),
        "refused timed_out unreachable aborted unsent denied passed"
    );
    assert_eq!(results(&["--result", "closed,unsent"]), "closed unsent");
    assert_eq!(results(&["--route", "a.internal", "--count", "2"]), "established closed");
    assert_eq!(
        results(&["--follow", "--count", "3", "--failed", "--limit", "9"]),
        "refused timed_out unreachable"
    );
    // The two lines about lost ones are among the last three.
    assert_eq!(results(&["-n", "3"]), "passed");
    for wrong in [
        &["events", "--result", "lost"][..],
        &["events", "--count", "0"],
        &["events", "--route", "10.0.0.1"],
        &["events", "-o", "yaml"],
    ] {
        assert_eq!(rig.run(wrong).exit, Exit::Usage, "{wrong:?}");
    }
}

#[test]
fn no_events_and_no_agent_are_reported() {
    let ended = with_events(vec![]).run(&["events"]);
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Done, ""));
    assert_eq!(ended.err, "no such event yet: the agent keeps the last 1000 events\n");
    assert_eq!(with_events(vec![]).run(&["events", "-o", "json"]).err, "");
    let ended = Rig::without_agent().run(&["events"]);
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Absent, ""));
    assert!(ended.err.contains("start it with `redirector run`"), "{}", ended.err);
}
