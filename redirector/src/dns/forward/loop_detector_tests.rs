//! The loop detector, with an upstream on this host that forwards some zones back.

use tokio::{net::UdpSocket as Server, task::JoinSet};

use super::*;
use crate::{
    config,
    dns::{
        access::ResourceLimits,
        forward::{Upstreams, looping_zones::text},
        local::Answer,
    },
    net::Nameservers,
};

/// Longest wait for what takes less than a second, and less than [`CHECK_INTERVAL`], after which
/// the next round begins in any case.
const SOON: Duration = Duration::from_secs(4);
/// The part of a probe's name before its zone.
const LABELS: usize = 2 * (1 + FIRST_LABEL);

fn zone_of(sources: &[String]) -> Arc<Zone> {
    let source = |text: &String| (text.parse().expect("a source"), Answer::Pending);
    Arc::new(Zone::new(sources.iter().map(source)))
}

fn touched(sources: &[&str]) -> Touched {
    let mut touched = Touched::default();
    touched.update(zone_of(&sources.iter().map(ToString::to_string).collect::<Vec<_>>()));
    touched
}

fn upstream(address: [u8; 4]) -> Arc<Upstream> {
    Arc::new(Upstream::new((address, 53).into(), std::time::Instant::now()))
}

/// The zones of probes as text, with `.` for the root.
fn zones(probes: &[Probe]) -> Vec<String> {
    let zone =
        |probe: &Probe| probe.zone.as_ref().map_or_else(|| ".".to_owned(), |zone| text(zone));
    probes.iter().map(zone).collect()
}

#[test]
fn only_an_own_probe_of_this_round_shows_a_loop() {
    let (detector, other) = (LoopDetector::new(), LoopDetector::new());
    let upstream = Arc::new(Upstream::new(([127, 0, 0, 1], 53).into(), std::time::Instant::now()));
    let zone: WireName = b"\x07company\x03net\0"[..].into();
    let probes = [None, Some(zone.clone())].map(|zone| Probe::new(Arc::clone(&upstream), zone));
    *detector.round.lock() = Round { number: 7, probes: probes.into() };
    assert!(!other.is_own_probe(&detector.query(7, 0, ROOT)), "another process's");
    let ordinary = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x01\0\x01";
    assert!(!detector.is_own_probe(ordinary));
    upstream.begin_probe();
    assert!(detector.is_own_probe(&detector.query(6, 0, ROOT)));
    assert!(detector.is_own_probe(&detector.query(7, 2, ROOT)));
    assert!(!upstream.loops(), "late, or of no upstream");
    assert!(detector.is_own_probe(&detector.query(7, 1, &zone)));
    assert!(!upstream.loops() && upstream.loops_for(b"\x01a\x07company\x03net\0"));
    assert!(detector.is_own_probe(&detector.query(7, 0, ROOT).to_ascii_uppercase()), "0x20");
    assert!(upstream.loops());
    upstream.end_probe();
    assert!(upstream.loops());
    upstream.begin_probe();
    upstream.end_probe();
    assert!(!upstream.loops(), "the probe did not come back");
}

#[test]
fn an_upstream_on_another_host_is_probed_once_or_while_it_loops() {
    let (touched, upstream) = (touched(&["n.a.example"]), upstream([192, 0, 2, 53]));
    let due = |local_due| zones(&touched.due(&upstream, local_due, Some(b"\x01a\x07example\0")));
    assert_eq!((due(false), due(true)), (vec![".".into()], vec![".".into()]), "never probed");
    upstream.begin_probe();
    assert!(due(false).is_empty() && due(true).is_empty());
    upstream.on_probe_returned();
    assert_eq!((due(false), due(true)), (vec![".".into()], vec![".".into()]), "it loops");
    assert!(!touched.has_unknown(&upstream));
}

#[test]
fn zones_are_due_at_this_host_once_or_while_they_loop() {
    let (mut known, upstream) =
        (touched(&["n.a.example", "n.b.a.example", "n.c.example"]), upstream([127, 0, 0, 1]));
    assert_eq!(
        zones(&known.due(&upstream, false, None)),
        [".", "a.example", "c.example", "b.a.example"]
    );
    assert!(known.has_unknown(&upstream));
    upstream.begin_probe();
    known.zones.iter().for_each(|zone| upstream.on_zone_kept(zone));
    assert!(known.due(&upstream, false, None).is_empty() && !known.has_unknown(&upstream));
    upstream.on_zone_returned(&b"\x01c\x07example\0"[..].into());
    assert_eq!(zones(&known.due(&upstream, false, None)), ["c.example"], "it loops");
    known = touched(&["n.a.example", "n.b.a.example", "n.c.example", "n.d.example"]);
    assert_eq!(zones(&known.due(&upstream, false, None)), ["d.example", "c.example"], "new first");
    assert!(known.has_unknown(&upstream));
    upstream.on_probe_returned();
    assert_eq!(zones(&known.due(&upstream, false, None)), [".", "d.example", "c.example"]);
    known = touched(&["n.a.example"]);
    known.due(&upstream, false, None);
    assert!(upstream.health().looping_zones.is_empty(), "no route touches it any more");
}

#[test]
fn everything_is_due_at_this_host_from_time_to_time() {
    let (mut touched, upstream) =
        (touched(&["n.a.example", "n.b.a.example", "n.c.example"]), upstream([127, 0, 0, 1]));
    upstream.begin_probe();
    touched.zones.iter().for_each(|zone| upstream.on_zone_kept(zone));
    let suspect = Some(&b"\x01x\x01b\x01a\x07example\0"[..]);
    let due =
        |touched: &Touched, local_due, suspect| zones(&touched.due(&upstream, local_due, suspect));
    assert_eq!(due(&touched, true, None), [".", "a.example", "c.example", "b.a.example"]);
    assert_eq!(due(&touched, false, suspect), [".", "a.example", "b.a.example"], "suspicious");
    assert_eq!(due(&touched, true, suspect), [".", "a.example", "b.a.example", "c.example"]);
    touched.first = 4;
    assert_eq!(
        due(&touched, true, None),
        [".", "c.example", "b.a.example", "a.example"],
        "in turn"
    );
}

#[test]
fn a_round_has_64_zones_with_room_for_the_labels() {
    let upstream = upstream([127, 0, 0, 1]);
    let sources: Vec<_> = (0..MAX_ZONES + 9).map(|n| format!("n.z{n}.example")).collect();
    let many = touched(&sources.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(many.due(&upstream, false, None).len(), 1 + MAX_ZONES);
    let long = |last: usize| {
        let zone = format!("{0}.{0}.{1}", "a".repeat(63), "b".repeat(last));
        touched(&[&format!("n.{zone}")]).zones.iter().map(|zone| zone.len()).collect::<Vec<_>>()
    };
    assert_eq!((long(50), long(51)), (vec![116, LONGEST_ZONE], vec![117]));
}

/// A probe at the upstream, with its zone in wire form.
struct Arrived {
    round: u32,
    zone: Vec<u8>,
}

/// A detector that probes an upstream on this host.
struct Watched {
    detector: Arc<LoopDetector>,
    forwarder: Arc<Forwarder>,
    zone: Arc<Mutex<Arc<Zone>>>,
    /// The zones that the upstream forwards back, in wire form.
    looping: Arc<Mutex<Vec<Vec<u8>>>>,
    arrived: Arc<Mutex<Vec<Arrived>>>,
    _tasks: JoinSet<()>,
}

impl Watched {
    async fn start(sources: &[String], looping: &[&[u8]]) -> Self {
        let server = Server::bind("127.0.0.1:0").await.expect("a port");
        let at = server.local_addr().expect("an address");
        let nameservers = Nameservers::new(vec![config::Upstream::Server(at)], vec![]);
        let limits = ResourceLimits { forwarded: 8, connections: 1 };
        let forwarder = Forwarder::new(Upstreams::new(nameservers), Arc::default(), limits);
        let mut watched = Self {
            detector: Arc::new(LoopDetector::new()),
            forwarder: Arc::new(forwarder),
            zone: Arc::new(Mutex::new(zone_of(sources))),
            looping: Arc::new(Mutex::new(looping.iter().map(|zone| zone.to_vec()).collect())),
            arrived: Arc::default(),
            _tasks: JoinSet::new(),
        };
        let (detector, forwarder) = (Arc::clone(&watched.detector), Arc::clone(&watched.forwarder));
        let zone = Arc::clone(&watched.zone);
        watched._tasks.spawn(async move {
            detector.watch(&forwarder, || Arc::clone(&zone.lock())).await;
        });
        let (detector, looping) = (Arc::clone(&watched.detector), Arc::clone(&watched.looping));
        let arrived = Arc::clone(&watched.arrived);
        watched._tasks.spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = server.recv_from(&mut buffer).await {
                let query = &buffer[..length];
                let zone = query[HEADER_LEN + LABELS..length - 4].to_vec();
                let round = &query[HEADER_LEN + 1 + PREFIX.len()..][..DIGITS];
                let round = u32::from_str_radix(&String::from_utf8_lossy(round), 16);
                let probe = Arrived { round: round.expect("a number"), zone: zone.clone() };
                arrived.lock().push(probe);
                if looping.lock().contains(&zone) {
                    assert!(detector.is_own_probe(query));
                } else {
                    let refused = [&query[..2], &[0x81, 0x85], &[0; 8]].concat();
                    server.send_to(&refused, from).await.expect("sent");
                }
            }
        });
        watched
    }

    fn upstream(&self) -> Arc<Upstream> {
        Arc::clone(&self.forwarder.servers()[0])
    }

    /// How often a zone was probed.
    fn count(&self, zone: &[u8]) -> usize {
        self.arrived.lock().iter().filter(|probe| probe.zone == zone).count()
    }

    async fn soon(&self, what: &str, is: impl Fn() -> bool) {
        let until = async {
            while !is() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, until).await.unwrap_or_else(|_| panic!("not {what}"));
    }
}

#[tokio::test]
async fn an_upstream_loops_until_a_probe_does_not_come_back() {
    let watched = Watched::start(&[], &[ROOT]).await;
    let upstream = watched.upstream();
    watched.soon("looping", || upstream.loops()).await;
    watched.looping.lock().clear();
    watched.detector.changed();
    watched.soon("used again", || !upstream.loops()).await;
    let before = watched.count(ROOT);
    watched.detector.changed();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(watched.count(ROOT), before, "not due yet");
}

#[tokio::test]
async fn a_zone_loops_until_its_probe_does_not_come_back() {
    let zone: &[u8] = b"\x08internal\x07company\x03net\0";
    let watched = Watched::start(&["a.internal.company.net".into()], &[zone]).await;
    let upstream = watched.upstream();
    watched.soon("looping", || upstream.loops_for(zone)).await;
    watched.soon("all probed", || watched.count(b"\x07company\x03net\0") > 0).await;
    assert!(!upstream.loops() && !upstream.loops_for(b"\x07company\x03net\0"));
    watched.looping.lock().clear();
    watched.detector.changed();
    watched.soon("used again", || !upstream.loops_for(zone)).await;
    *watched.zone.lock() = zone_of(&["b.example.org".into()]);
    watched.detector.changed();
    watched.soon("probed", || watched.count(b"\x07example\x03org\0") == 1).await;
}

#[tokio::test]
async fn zones_without_room_in_a_round_are_probed_in_the_next() {
    let sources: Vec<_> = (0..150).map(|n| format!("n.z{n}.example")).collect();
    let watched = Watched::start(&sources, &[]).await;
    watched.soon("all probed", || watched.arrived.lock().len() == 151).await;
    let zones: HashSet<_> = watched.arrived.lock().iter().map(|probe| probe.zone.clone()).collect();
    assert_eq!(zones.len(), 151, "each once");
    for round in 1..=3 {
        let size = watched.arrived.lock().iter().filter(|probe| probe.round == round).count();
        assert!(size <= 1 + MAX_ZONES, "{size} probes at a time");
    }
}

#[tokio::test]
async fn a_repeated_question_is_reason_for_a_probe() {
    let (zone, other): (&[u8], &[u8]) = (b"\x07company\x03net\0", b"\x07example\x03org\0");
    let sources = ["a.company.net".into(), "b.example.org".into()];
    let watched = Watched::start(&sources, &[]).await;
    watched.soon("probed", || watched.arrived.lock().len() == 3).await;
    let question = b"\x03www\x07company\x03net\0\0\x01\0\x01";
    let _first = watched.forwarder.repeats().begin(question);
    for times in 2..4 {
        let _second = watched.forwarder.repeats().begin(question);
        watched.soon("probed again", || watched.count(zone) == times).await;
        assert_eq!((watched.count(ROOT), watched.count(other)), (times, 1));
    }
}
