//! Changes of many routes, which are put in force in parts.

use std::fmt::Write as _;

use testbed::topology::DNS_ADDRESS;

use crate::{rig::Job, stage::CONFIG};

const ROUTES: usize = 1800;

/// How many routes there are, and how many of them are live.
fn routes(job: &Job) -> (usize, usize) {
    let listed = job.json(&["route", "list"]);
    let routes = listed["routes"].as_array().unwrap();
    (routes.len(), routes.iter().filter(|route| route["live"] == true).count())
}

#[test]
fn many_routes_are_live_or_gone_when_a_change_returns() {
    let job = Job::with_config(CONFIG);
    let (before, _) = routes(&job);
    let mut text = String::new();
    for number in 0..ROUTES {
        let destination = match number % 3 {
            0 => format!("203.0.113.{}", 1 + number % 200),
            1 => "artifactory.public.company.net".to_owned(),
            // One look-up for all of them, which fails.
            _ => "nowhere.public.company.net".to_owned(),
        };
        writeln!(
            text,
            "[[routes]]\nsource = \"h{number}.internal.company.net\"\ndestination = \
                \"{destination}\""
        )
        .unwrap();
    }
    let file = job.rig.node.sandbox().home().join("many.toml");
    job.rig.node.sandbox().write(&file, &text).unwrap();
    let file = file.to_str().unwrap();
    for _ in 0..2 {
        let imported = job.cli(&["route", "import", file]);
        assert!(imported.status.success(), "{}", imported.text());
        assert_eq!(routes(&job), (before + ROUTES, before + ROUTES));
        let warnings = imported.stderr.lines().filter(|line| line.contains("warning")).count();
        assert!((1..=101).contains(&warnings), "{warnings} warnings");
        let undone = job.cli(&["route", "rollback"]);
        assert!(undone.status.success(), "{}", undone.text());
        assert_eq!(routes(&job).0, before);
        let addressed = job.executor.run("getent hosts h3.internal.company.net", crate::rig::LIMIT);
        assert_eq!(addressed.unwrap().stdout, "", "no longer answered");
    }
}

/// With a silent resolver, so many names are looked up in several turns of some seconds each.
#[test]
fn an_import_that_takes_long_shows_its_progress() {
    const NAMES: usize = 110;
    let job = Job::with_config(CONFIG);
    let (before, _) = routes(&job);
    job.rig.customer.silence(DNS_ADDRESS.parse().unwrap()).unwrap();
    let mut text = String::new();
    for number in 0..NAMES {
        writeln!(
            text,
            "[[routes]]\nsource = \"h{number}.internal.company.net\"\ndestination = \
                \"h{number}.public.company.net\""
        )
        .unwrap();
    }
    let file = job.rig.node.sandbox().home().join("slow.toml");
    job.rig.node.sandbox().write(&file, &text).unwrap();
    let imported = job.cli(&["route", "import", file.to_str().unwrap()]);
    assert!(imported.status.success(), "{}", imported.text());
    let all = before + NAMES;
    let shown = imported.stderr.lines().filter_map(|line| {
        let (live, rest) = line.strip_prefix("redirector: ")?.split_once(" of ")?;
        let rest = rest.strip_prefix(&format!("{all} routes are live; "))?;
        let waiting = rest.strip_suffix(" wait for the answer about their destination")?;
        Some((live.parse().ok()?, waiting.parse().ok()?))
    });
    let shown: Vec<(usize, usize)> = shown.collect();
    let fits = |&(live, waiting): &(usize, usize)| live + waiting == all && waiting > 0;
    assert!(!shown.is_empty() && shown.iter().all(fits), "{}", imported.text());
    assert_eq!(routes(&job), (all, all));
}
