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
    assert_eq!(names, [(3, 4), (3, 4), (2, 1), (7, 12), (3, 4), (5, 8)]);
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
    assert_eq!(report.targets.len(), 7, "{:?}", report.targets);

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
    assert_eq!((report.rows.len(), judged), (17, 8), "{report:?}");

    let [json, markdown, plot] = written("guests", |folder| bench::guests::write(&report, folder));
    assert_eq!(
        serde_json::from_str::<bench::guests::Report>(&json).unwrap().rows.len(),
        report.rows.len()
    );
    assert!(markdown.contains("redirected guest × bare") && plot.starts_with("<svg"), "{markdown}");
}
