//! `cargo xtask bench` works: every variant is measured, and every target is judged. A quick run
//! does not check the figures.

use std::path::Path;

use redirector_bench::{self as bench, Options};

#[path = "../examples/bulk.rs"]
#[expect(dead_code, reason = "its main is the example's")]
mod bulk;

#[path = "../examples/packets.rs"]
#[expect(dead_code, reason = "its main is the example's")]
mod packets;

/// The packet datapath in this process.
struct Attached(packets::Session);

impl bench::packets::Datapath for Attached {
    fn fill(&mut self) -> anyhow::Result<bench::packets::NameTimes> {
        self.0.fill()
    }
}

/// What `write` writes into a folder as NAME.json, NAME.md and NAME.svg.
fn written(name: &str, write: impl FnOnce(&Path) -> anyhow::Result<()>) -> [String; 3] {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path()).unwrap();
    ["json", "md", "svg"].map(|extension| {
        std::fs::read_to_string(folder.path().join(format!("{name}.{extension}"))).unwrap()
    })
}

#[test]
fn a_quick_run_measures_every_variant_and_judges_every_target() {
    let binary = Some(Path::new(env!("CARGO_BIN_EXE_redirector")).to_owned());
    let common = Options { quick: true, binary, output: None };
    let report =
        bench::connect::measure(&bench::connect::Options { common, baseline: None }).unwrap();

    let names: Vec<(usize, usize)> = report
        .scenarios
        .iter()
        .map(|scenario| (scenario.timings.len(), scenario.ratios.len()))
        .collect();
    assert_eq!(names, [(3, 4), (3, 4), (2, 1), (8, 14), (3, 4), (5, 8)]);
    for scenario in &report.scenarios {
        assert!(scenario.rounds >= 3, "{}: {} rounds", scenario.name, scenario.rounds);
        assert!(
            scenario.timings.iter().all(|timing| timing.nanoseconds.median > 0.0),
            "{scenario:?}"
        );
    }
    let connect = |variant: &str| {
        report.hooks.iter().any(|cost| cost.hook == "connect4" && cost.variant.starts_with(variant))
    };
    assert!(
        connect("empty programs") && connect("redirector, miss") && connect("redirector, hit"),
        "{:?}",
        report.hooks
    );
    for (state, variant) in [
        ("hit, nothing sent", "redirector, hit"),
        ("hit, nothing sent, caller recorded", "redirector, hit"),
        ("hit, nothing sent, 65,534 routes", "redirector, hit, one of two backends"),
    ] {
        let mut costs =
            report.hooks.iter().filter(|cost| cost.scenario == state && cost.hook == "connect4");
        assert!(
            costs.any(|cost| cost.variant == variant && cost.above_storage != Default::default()),
            "{state}: {:?}",
            report.hooks
        );
    }
    assert_eq!(report.targets.len(), 8, "{:?}", report.targets);

    let [json, markdown, plot] =
        written("connect", |folder| bench::connect::write(&report, folder));
    assert_eq!(
        serde_json::from_str::<bench::connect::Report>(&json).unwrap().scenarios.len(),
        report.scenarios.len()
    );
    assert!(markdown.contains("| redirector, hit |") && plot.starts_with("<svg"), "{markdown}");
}

#[test]
fn a_quick_run_measures_the_agent_and_judges_every_target() {
    let binary = Some(Path::new(env!("CARGO_BIN_EXE_redirector")).to_owned());
    let [json, markdown, plot] = written("agent", |folder| {
        bench::agent::run(&Options { quick: true, binary, output: Some(folder.to_owned()) })
    });
    let report: bench::targets::Report = serde_json::from_str(&json).unwrap();
    assert!(
        report.figures.iter().all(|figure| figure.count > 0 && figure.p99 >= figure.median),
        "{report:?}"
    );
    assert_eq!(
        report.figures.iter().filter(|figure| figure.limit.is_some()).count(),
        7,
        "{report:?}"
    );
    assert!(
        report.figures.iter().any(|figure| figure.what.contains("10 routes")
            && figure.unit == "ms"
            && figure.median > 0.0),
        "{report:?}"
    );
    assert!(
        markdown.contains("a scrape, 1,000 routes") && plot.contains("class=\"one\""),
        "{markdown}"
    );
}

#[test]
fn a_quick_run_fills_the_kernel_and_judges_every_target() {
    let options = Options {
        quick: true,
        binary: Some(Path::new(env!("CARGO_BIN_EXE_redirector")).to_owned()),
        output: None,
    };
    let report = bench::bulk::measure(&options, |rig| {
        let mut times = bench::bulk::Times::default();
        rig.node
            .sandbox()
            .namespaces()
            .run(|| bulk::measure(Path::new(bench::bulk::BPFFS), &mut times))??;
        Ok(times)
    });
    let report = report.unwrap();
    assert!(
        report.figures.iter().all(|figure| figure.count > 0 && figure.median > 0.0),
        "{report:?}"
    );
    assert_eq!(
        (
            report.figures.len(),
            report.figures.iter().filter(|figure| figure.limit.is_some()).count()
        ),
        (10, 3),
        "{report:?}"
    );
}

#[test]
fn a_quick_run_measures_guests_and_judges_every_goal() {
    let options = Options { quick: true, binary: None, output: None };
    let report = bench::guests::measure(&options, &|rig, setup| {
        let session = rig.node.sandbox().namespaces().run(|| packets::Session::open(setup))??;
        Ok(Box::new(Attached(session)))
    });
    let report = report.unwrap();
    assert!(
        report.rows.iter().all(|row| row.value != Default::default()),
        "a figure is missing: {report:?}"
    );
    let judged = report.rows.iter().filter(|row| row.met().is_some()).count();
    assert_eq!((report.rows.len(), judged), (19, 8), "{report:?}");

    let [json, markdown, plot] = written("guests", |folder| bench::guests::write(&report, folder));
    assert_eq!(
        serde_json::from_str::<bench::guests::Report>(&json).unwrap().rows.len(),
        report.rows.len()
    );
    assert!(markdown.contains("redirected guest × bare") && plot.starts_with("<svg"), "{markdown}");
}

/// A quick run's options.
fn quick() -> Options {
    let binary = Some(Path::new(env!("CARGO_BIN_EXE_redirector")).to_owned());
    Options { quick: true, binary, output: None }
}

/// The peers of a measure, and whether all of them have values above zero.
fn peers<'a>(report: &'a bench::peers::report::Report, measure: &'a str) -> (Vec<&'a str>, bool) {
    let figures: Vec<_> = report.of(measure).collect();
    let measured = figures.iter().all(|figure| figure.value.median > 0.0);
    (figures.iter().map(|figure| figure.peer.as_str()).collect(), measured)
}

/// Every peer that has routes, in the order of the tables. The legacy iptables are missing where
/// the kernel lacks them.
const WITH_ROUTES: [&str; 8] = [
    "redirector",
    "socket LB stand-in",
    "nftables, rules",
    "nftables, map",
    "iptables-nft",
    "iptables-legacy",
    "HAProxy",
    "DNS only (dnsmasq)",
];

fn with_routes() -> Vec<&'static str> {
    let legacy = Path::new("/proc/net/ip_tables_names").exists();
    WITH_ROUTES.into_iter().filter(|peer| legacy || *peer != "iptables-legacy").collect()
}

#[test]
fn a_quick_run_loads_and_changes_the_routes_of_every_peer() {
    let report = bench::scale::measure(&quick()).unwrap();
    for routes in ["1 route", "200 routes"] {
        for measure in ["time to load all routes", "from a change to the first connect that obeys"]
        {
            let measure = format!("{measure}; {routes}");
            assert_eq!(peers(&report, &measure), (with_routes(), true), "{measure}: {report:?}");
        }
        let measure = format!("connect, one byte each way, close; {routes}");
        let (connecting, measured) = peers(&report, &measure);
        // Two limits instead of the one that only answers names.
        assert_eq!((connecting.len(), measured), (with_routes().len() + 1, true), "{report:?}");
        let measure = format!("look-up of a name; {routes}");
        let looked_up = vec!["redirector", "DNS only (dnsmasq)"];
        assert_eq!(peers(&report, &measure), (looked_up, true), "{report:?}");
    }
}

#[test]
fn a_quick_run_kills_an_address_of_every_peer() {
    let report = bench::failover::measure(&quick()).unwrap();
    assert_eq!(report.measures().len(), 6, "{report:?}");
    for measure in report.measures() {
        // dnsmasq has two kinds of clients, and nftables' map one address.
        assert_eq!(peers(&report, measure).0.len(), with_routes().len(), "{report:?}");
    }
    for unaware in ["nftables, rules", "socket LB stand-in"] {
        let failed = report.figures.iter().filter(|figure| {
            figure.peer == unaware
                && figure.measure.contains("connects failed")
                && figure.value.median > 0.0
        });
        assert_eq!(failed.count(), 2, "{report:?}");
    }
}

#[test]
fn a_quick_run_upgrades_kills_and_floods_every_peer() {
    let report = bench::upgrade::measure(&quick()).unwrap();
    assert_eq!(report.measures().len(), 9, "{report:?}");
    for event in ["upgrade", "flood by a tenant"] {
        let measure = format!("{event}: the slowest one");
        assert_eq!(peers(&report, &measure), (with_routes(), true), "{report:?}");
    }
    let with_processes = vec!["redirector", "HAProxy", "DNS only (dnsmasq)"];
    assert_eq!(peers(&report, "crash: the slowest one"), (with_processes, true), "{report:?}");
    let cut: Vec<f64> =
        report.of("crash: open connections cut, of 5").map(|figure| figure.value.median).collect();
    assert_eq!(cut, [0.0, 5.0, 0.0], "only a proxy's end cuts its connections: {report:?}");
}

#[test]
fn a_quick_run_measures_the_memory_of_every_peer() {
    let report = bench::memory::measure(&quick()).unwrap();
    let conntrack: Vec<f64> = report
        .of("conntrack entries for 10,000 open connections")
        .filter(|figure| figure.peer != "iptables-legacy")
        .map(|figure| figure.value.median)
        .collect();
    // Redirector, bare, empty programs, the stand-in; two of nftables and iptables-nft; HAProxy.
    assert_eq!(conntrack, [0.0, 0.0, 0.0, 0.0, 10_000.0, 10_000.0, 10_000.0, 0.0], "{report:?}");
    for routes in ["1 route", "200 routes"] {
        let resident = format!("resident memory of its processes; {routes}");
        let with_processes = vec!["redirector", "HAProxy", "DNS only (dnsmasq)"];
        assert_eq!(peers(&report, &resident), (with_processes, true), "{report:?}");
        let maps = format!("memory of its eBPF maps; {routes}");
        let with_maps = vec!["redirector", "socket LB stand-in"];
        assert_eq!(peers(&report, &maps), (with_maps, true), "{report:?}");
    }
}

#[test]
fn a_quick_run_transfers_through_every_peer() {
    let report = bench::throughput::measure(&quick()).unwrap();
    assert_eq!(report.measures().len(), 4, "{report:?}");
    for measure in report.measures() {
        let (transferring, measured) = peers(&report, measure);
        assert_eq!((transferring.len(), measured), (with_routes().len() + 1, true), "{report:?}");
    }
    assert!(report.of("transfer up, all ends on one core").all(|figure| figure.more_is_better));
}
