//! Which route takes effect, and what may change a route of another origin.

use super::*;
use crate::route::{Field, RawDestination, RawRoute};

fn name(text: &str) -> SourceName {
    text.parse().expect("a name")
}

fn route(source: &str, destination: &str) -> Route {
    let raw = RawRoute {
        source: source.into(),
        destination: RawDestination::One(destination.into()),
        ..RawRoute::default()
    };
    raw.try_into().expect("a route")
}

fn to(destination: &str) -> RoutePatch {
    RoutePatch {
        destination: Some(RawDestination::One(destination.into())),
        ..RoutePatch::default()
    }
}

/// A set whose file has the routes of `filed` to `file.lb`.
fn set(filed: &[&str]) -> RouteSet {
    let routes = filed.iter().map(|source| route(source, "file.lb")).collect();
    RouteSet::new(
        "/etc/redirector/redirector.toml".into(),
        Pool::default(),
        routes,
        BTreeMap::new(),
    )
}

#[test]
fn a_cluster_route_hides_no_other() {
    let mut set = set(&["a"]).with_cluster(vec![
        route("a", "cluster.lb"),
        route("b", "cluster.lb"),
        route("c", "cluster.lb"),
    ]);
    set.add(route("d", "own.lb"), RouteOrigin::CommandLine).unwrap();
    set.set(&name("c"), &to("own.lb")).unwrap();
    let shown = |set: &RouteSet| {
        let routes = set.iter().map(|entry| {
            let to = RawRoute::from(entry.route).destination.to_string();
            format!("{} {to} {}", entry.route.source, entry.origin)
        });
        routes.collect::<Vec<_>>()
    };
    let all = [
        "a file.lb file",
        "b cluster.lb cluster",
        "c own.lb command line",
        "d own.lb command line",
    ];
    assert_eq!(shown(&set), all);
    assert_eq!(set.len(), 4);
    let refused = set.plan_remove(&name("b")).unwrap_err();
    assert!(matches!(refused, RouteSetError::InCluster { .. }), "{refused}");
    // The file gives up its route, and the one that it hid takes effect.
    let next = set.with_file(Pool::default(), vec![]);
    assert_eq!(shown(&next)[0], "a cluster.lb cluster");
    // An import replaces the routes of this node only.
    let mut imported = next.clone();
    imported.import(vec![route("e", "lb")], true).unwrap();
    let sources: Vec<_> = imported.iter().map(|entry| entry.route.source.to_string()).collect();
    assert_eq!(sources, ["a", "b", "c", "e"]);
    // Without the cluster's routes, those that hid them stay.
    let own = next.with_cluster(vec![]);
    assert_eq!(shown(&own), ["c own.lb command line", "d own.lb command line"]);
    assert_eq!(own.len(), 2);
}

/// What commands do.
trait Commands {
    fn add(&mut self, route: Route, origin: RouteOrigin) -> Result<(), RouteSetError>;
    fn set(&mut self, source: &SourceName, patch: &RoutePatch) -> Result<(), RouteSetError>;
    fn remove(&mut self, source: &SourceName) -> Result<(), RouteSetError>;
}

impl Commands for RouteSet {
    fn add(&mut self, route: Route, origin: RouteOrigin) -> Result<(), RouteSetError> {
        self.plan_add(route, origin).map(|edit| self.apply(edit))
    }

    fn set(&mut self, source: &SourceName, patch: &RoutePatch) -> Result<(), RouteSetError> {
        self.plan_set(source, patch).map(|edit| edit.into_iter().for_each(|edit| self.apply(edit)))
    }

    fn remove(&mut self, source: &SourceName) -> Result<(), RouteSetError> {
        self.plan_remove(source).map(|edit| self.apply(edit))
    }
}

/// Every route that serves: source, destination, hand.
fn serving(set: &RouteSet) -> Vec<String> {
    assert_eq!(set.len(), set.iter().count());
    set.iter()
        .map(|entry| format!("{} {} {}", entry.route.source, entry.route.destination, entry.origin))
        .collect()
}

#[test]
fn a_second_route_of_a_source_is_refused_naming_the_origin() {
    let mut set = set(&["a"]);
    set.add(route("b", "cli.lb"), RouteOrigin::CommandLine).expect("added");
    assert_eq!(serving(&set), ["a file.lb file", "b cli.lb command line"]);
    let error = set
        .add(route("a", "x"), RouteOrigin::CommandLine)
        .expect_err("the file has it")
        .to_string();
    assert_eq!(
        error,
        "`a` already has a route, from the file /etc/redirector/redirector.toml: change it by \
            `redirector route set a`"
    );
    let error =
        set.add(route("B.", "x"), RouteOrigin::CommandLine).expect_err("it was added").to_string();
    assert_eq!(
        error,
        "`b` already has a route, from the command line: change it by `redirector route set b`"
    );
}

#[test]
fn an_override_hides_the_files_route_until_it_is_removed() {
    let mut set = set(&["a"]);
    set.set(&name("a"), &to("cli.lb")).expect("set");
    assert_eq!(serving(&set), ["a cli.lb command line"]);
    let entry = set.get(&name("a")).expect("serves");
    assert_eq!(
        (entry.origin, entry.hides),
        (RouteOrigin::CommandLine, Some(&route("a", "file.lb")))
    );
    assert_eq!(set.stored().len(), 1);
    // A reload of the file does not undo what the command line set.
    let mut set = set.with_file(Pool::default(), vec![route("a", "file2.lb")]);
    assert_eq!(serving(&set), ["a cli.lb command line"]);
    set.remove(&name("a")).expect("removed");
    assert_eq!(serving(&set), ["a file2.lb file"]);
    assert!(set.stored().is_empty());
}

#[test]
fn a_route_of_the_file_is_not_removed_by_hand() {
    let mut set = set(&["a"]);
    let error = set.remove(&name("a")).expect_err("refused").to_string();
    assert_eq!(
        error,
        "the route of `a` comes from /etc/redirector/redirector.toml: remove it there"
    );
    assert_eq!(serving(&set), ["a file.lb file"]);
}

#[test]
fn an_unknown_source_is_refused_with_the_nearest_one() {
    let mut set = set(&["artifactory.internal"]);
    let error = set.remove(&name("artifctory.internal")).expect_err("unknown").to_string();
    assert_eq!(
        error,
        "there is no route of `artifctory.internal`: did you mean `artifactory.internal`?"
    );
    let error = set.set(&name("other"), &to("x")).expect_err("unknown").to_string();
    assert_eq!(error, "there is no route of `other`; `redirector route list` shows all");
}

#[test]
fn a_change_without_effect_keeps_the_origin() {
    let mut set = set(&["a"]);
    set.set(&name("a"), &to("file.lb")).expect("set");
    set.set(&name("a"), &RoutePatch { ports: Field::Clear, ..RoutePatch::default() }).expect("set");
    assert_eq!(serving(&set), ["a file.lb file"]);
}

#[test]
fn a_refused_change_changes_nothing() {
    let mut set = set(&["a"]);
    assert!(set.set(&name("a"), &to("not a name")).is_err());
    // The default pool has 198.18.0.7: a VIP can't be a backend.
    let error = set.set(&name("a"), &to("198.18.0.7")).expect_err("in the pool").to_string();
    assert!(error.contains("`198.18.0.7` is in the pool of virtual addresses"), "{error}");
    assert!(set.add(route("b", "198.18.0.7"), RouteOrigin::CommandLine).is_err());
    assert!(set.import(vec![route("b", "lb"), route("c", "198.18.0.7")], false).is_err());
    assert_eq!(serving(&set), ["a file.lb file"]);
}

#[test]
fn an_import_changes_only_the_routes_it_names() {
    let mut set = set(&["a", "b"]);
    set.add(route("c", "cli.lb"), RouteOrigin::CommandLine).expect("added");
    set.add(route("d", "cli.lb"), RouteOrigin::CommandLine).expect("added");
    let imported = vec![
        route("a", "file.lb"),
        route("b", "new.lb"),
        route("c", "new.lb"),
        route("e", "new.lb"),
    ];
    let diff = set.import(imported, false).expect("imported");
    assert_eq!(
        serving(&set),
        [
            "a file.lb file",
            "b new.lb import",
            "c new.lb import",
            "d cli.lb command line",
            "e new.lb import"
        ]
    );
    assert!(diff.to_string().ends_with("1 added, 2 changed, 0 removed, 2 unchanged"), "{diff}");
}

#[test]
fn after_a_replacing_import_only_its_routes_exist() {
    let mut set = set(&["a"]);
    set.set(&name("a"), &to("cli.lb")).expect("set");
    set.add(route("b", "cli.lb"), RouteOrigin::CommandLine).expect("added");
    let diff =
        set.import(vec![route("a", "new.lb"), route("c", "new.lb")], true).expect("imported");
    assert_eq!(serving(&set), ["a new.lb import", "c new.lb import"]);
    assert!(diff.to_string().ends_with("1 added, 1 changed, 1 removed, 0 unchanged"), "{diff}");
}

#[test]
fn replacing_never_removes_routes_of_the_file() {
    let mut set = set(&["a", "b"]);
    set.add(route("c", "cli.lb"), RouteOrigin::CommandLine).expect("added");
    let error = set.import(vec![route("d", "new.lb")], true).expect_err("refused").to_string();
    assert_eq!(
        error,
        "/etc/redirector/redirector.toml has `a`, `b`, which an import can't remove: edit that \
            file, or import without --replace"
    );
    assert_eq!(serving(&set), ["a file.lb file", "b file.lb file", "c cli.lb command line"]);
}

#[test]
fn the_edits_between_two_sets_turn_one_into_the_other() {
    let routes = ["a", "b", "c"];
    // Each source has no stored route, or one of two.
    let states = (0..27).map(|n| [n % 3, n / 3 % 3, n / 9]);
    let of = |state: [i32; 3]| {
        let mut set = set(&["a", "b"]);
        let stored = routes.into_iter().zip(state).filter(|(_, kind)| *kind > 0);
        set.import(
            stored.map(|(source, kind)| route(source, &format!("lb{kind}"))).collect(),
            false,
        )
        .expect("imported");
        set
    };
    for (before, after) in
        states.clone().flat_map(|one| states.clone().map(move |other| (of(one), of(other))))
    {
        let (mut edited, edits) = (before.clone(), before.edits(&after));
        assert!(edits.iter().all(|edit| edit.before != edit.after
            && edit.before.as_ref() == before.stored().get(&edit.source)));
        edits.into_iter().for_each(|edit| edited.apply(edit));
        assert_eq!(serving(&edited), serving(&after));
    }
}

#[test]
fn a_name_is_served_by_its_own_route_or_a_wildcards() {
    let set = set(&["x.a.b", "*.a.b", "*.b"]);
    let serving = |name: &str| {
        let route = set.serving(&name.parse().expect("a source"))?;
        Some(route.route.source.to_string())
    };
    for (name, source) in
        [("x.a.b", "x.a.b"), ("y.a.b", "*.a.b"), ("a.b", "*.b"), ("*.a.b", "*.a.b")]
    {
        assert_eq!(serving(name).as_deref(), Some(source), "{name}");
    }
    assert_eq!((serving("b"), serving("*.x.b"), serving("x.c")), (None, None, None));
}
