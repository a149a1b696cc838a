//! Leases: stable and distinct, and as the file and what happened since say.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// The index of each source.
fn by_source(leases: &Leases) -> BTreeMap<SourceName, u32> {
    leases.iter().map(|(source, index)| (source.clone(), index)).collect()
}

fn name(text: &str) -> SourceName {
    text.parse().expect("a name")
}

fn pool(ipv4: &str) -> Pool {
    Pool { ipv4: ipv4.parse().expect("a network"), ipv6: None, guard: true }
}

/// A directory of its own for each test, and the file in it.
fn place_on_disk() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("leases.json");
    (directory, path)
}

fn open(path: &Path, ipv4: &str) -> Leases {
    let mut leases = Leases::open(path.to_owned(), &pool(ipv4), vec![]).expect("opened");
    // As an agent that starts.
    if !leases.warnings().is_empty() {
        leases.save().expect("saved");
    }
    leases
}

/// One at a time, and a new file each time.
impl Leases {
    fn lease(&mut self, source: &SourceName) -> Result<u32, LeaseError> {
        self.lease_all([source])?;
        self.save()?;
        Ok(self.get(source).expect("leased"))
    }

    fn release(&mut self, source: &SourceName) -> Result<(), FileError> {
        self.release_all([source]);
        self.save()
    }
}

#[test]
fn a_lease_survives_a_restart() {
    let (_directory, path) = place_on_disk();
    let mut leases = open(&path, "198.18.0.0/16");
    let index = leases.lease(&name("a.internal")).expect("leased");
    assert_eq!(open(&path, "198.18.0.0/16").get(&name("a.internal")), Some(index));
    assert_eq!(leases.lease(&name("a.internal")).expect("leased"), index);
    assert_eq!(leases.source_of(index), Some(&name("a.internal")));
}

#[test]
fn the_first_place_of_a_name_never_changes() {
    // These are a promise to clients that remember a VIP across a lost state directory: never adapt
    // them to the code.
    let (_directory, path) = place_on_disk();
    let mut leases = open(&path, "198.18.0.0/16");
    let vip = |leases: &mut Leases, text| {
        pool("198.18.0.0/16")
            .ipv4_at(leases.lease(&name(text)).expect("leased"))
            .expect("in the pool")
            .to_string()
    };
    assert_eq!(vip(&mut leases, "artifactory.internal.company.net"), "198.18.70.153");
    assert_eq!(vip(&mut leases, "*.internal.company.net"), "198.18.232.43");
}

#[test]
fn a_lost_file_gives_the_same_addresses_again() {
    let names: Vec<_> = (0..500).map(|n| name(&format!("host{n}.internal"))).collect();
    let leased = || {
        let (_directory, path) = place_on_disk();
        let mut leases = open(&path, "198.18.0.0/16");
        leases.lease_all(&names).expect("leased");
        leases.iter().map(|(source, index)| (source.clone(), index)).collect::<Vec<_>>()
    };
    assert_eq!(leased(), leased());
}

#[test]
fn a_freed_address_is_reused_last_and_returns_to_its_source() {
    let (_directory, path) = place_on_disk();
    let mut leases = open(&path, "10.0.0.0/29"); // six addresses
    let freed = leases.lease(&name("a")).expect("leased");
    leases.release(&name("a")).expect("released");
    for n in 0..5 {
        assert_ne!(leases.lease(&name(&format!("b{n}"))).expect("leased"), freed);
    }
    let mut leases = open(&path, "10.0.0.0/29");
    assert_eq!(leases.source_of(freed), Some(&name("a")), "who had it is known");
    assert_eq!(leases.lease(&name("a")).expect("leased"), freed);
    leases.release(&name("a")).expect("released");
    assert_eq!(leases.lease(&name("c")).expect("leased"), freed, "nothing else is left");
    assert!(matches!(
        leases.lease(&name("d")),
        Err(LeaseError::PoolFull(PoolFull { usable: 6, .. }))
    ));
}

#[test]
fn the_address_freed_first_is_leased_first() {
    let (_directory, path) = place_on_disk();
    let mut leases = open(&path, "10.0.0.0/30"); // two addresses
    let a = leases.lease(&name("a")).expect("leased");
    let b = leases.lease(&name("b")).expect("leased");
    leases.release(&name("b")).expect("released");
    leases.release(&name("a")).expect("released");
    let mut leases = open(&path, "10.0.0.0/30");
    assert_eq!(leases.lease(&name("c")).expect("leased"), b);
    assert_eq!(leases.lease(&name("d")).expect("leased"), a);
}

#[test]
fn a_batch_that_does_not_fit_leases_none_of_it() {
    let (_directory, path) = place_on_disk();
    let mut leases = open(&path, "10.0.0.0/30");
    leases.lease(&name("a")).expect("leased");
    let error = leases.lease_all(&[name("b"), name("c")]).expect_err("one too many").to_string();
    assert_eq!(
        error,
        "the pool 10.0.0.0/30 has no address left for `c`: all 2 are leased; widen `pool.ipv4` or \
            remove routes"
    );
    assert_eq!(leases.iter().count(), 1);
    assert_eq!(open(&path, "10.0.0.0/30").iter().count(), 1);
}

#[test]
fn failed_writes_stay_pending() {
    let (directory, path) = place_on_disk();
    let mut leases = open(&path, "198.18.0.0/16");
    let a = leases.lease(&name("a")).expect("leased");
    assert!(leases.pending().is_empty());
    // A directory in the file's place fails every rename, for root as well.
    std::fs::remove_file(&path).expect("removed");
    std::fs::create_dir_all(path.join("inner")).expect("made");
    leases.release_all([&name("a")]);
    assert!(matches!(leases.lease(&name("b")), Err(LeaseError::Durable(_))));
    let b = leases.get(&name("b")).expect("leased, though nobody may hear of it");
    assert_eq!(
        leases.pending(),
        [LeaseChange::Freed(name("a"), a), LeaseChange::Leased(name("b"), b)]
    );
    assert_eq!(
        std::fs::read_dir(directory.path()).expect("listed").count(),
        1,
        "no temporary file is left"
    );
}

#[test]
fn replaying_changes_twice_does_no_harm() {
    let (_directory, path) = place_on_disk();
    let mut leases = open(&path, "10.0.0.0/30"); // two addresses
    leases.lease(&name("a")).expect("leased");
    let old = std::fs::read(&path).expect("read");
    leases.lease_all([&name("b")]).expect("leased");
    leases.release_all([&name("a")]);
    leases.lease_all([&name("c")]).expect("the one of a, which is free");
    leases.release_all([&name("b")]);
    let since = leases.pending().to_vec();
    leases.save().expect("saved");
    let opened = |since: &[LeaseChange]| {
        Leases::open(path.clone(), &pool("10.0.0.0/30"), since.to_vec()).expect("opened").table
    };
    assert_eq!(opened(&[]), leases.table);
    assert_eq!(opened(&since), leases.table, "once more than it happened");
    std::fs::write(&path, old).expect("written");
    assert_eq!(opened(&since), leases.table, "from where it began");
}

#[test]
fn a_full_pool_is_leased_at_once() {
    let (_directory, path) = place_on_disk();
    let names: Vec<_> =
        (0..65_534).map(|n| name(&format!("host{n}.internal.company.net"))).collect();
    let mut leases = open(&path, "198.18.0.0/16");
    let began = std::time::Instant::now();
    leases.lease_all(&names).expect("leased");
    leases.save().expect("saved");
    let took = began.elapsed();
    println!("65,534 leases in {took:?}");
    // A release build takes a tenth of a second. What must never come back is a search for each
    // lease through all the others.
    assert!(took < std::time::Duration::from_secs(20), "{took:?}");
    let distinct: BTreeSet<_> = leases.iter().map(|(_, index)| index).collect();
    assert_eq!(
        (distinct.len(), distinct.first(), distinct.last()),
        (65_534, Some(&1), Some(&65_534))
    );
    assert_eq!(open(&path, "198.18.0.0/16").iter().count(), 65_534);
}

#[test]
fn a_damaged_file_is_copied_and_addresses_usually_return() {
    let (directory, path) = place_on_disk();
    let index = open(&path, "198.18.0.0/16").lease(&name("a")).expect("leased");
    let whole = std::fs::read(&path).expect("read");
    std::fs::write(&path, &whole[..whole.len() / 2]).expect("written");
    let mut leases = open(&path, "198.18.0.0/16");
    let [LeaseWarning::Damaged { copy, kept: 0, .. }] = leases.warnings() else {
        panic!("{:?}", leases.warnings())
    };
    assert_eq!(*copy, directory.path().join("leases.json.damaged-1"));
    assert_eq!(std::fs::read(copy).expect("kept"), &whole[..whole.len() / 2]);
    assert_eq!(leases.lease(&name("a")).expect("leased"), index);
}

#[test]
fn readable_entries_of_a_damaged_file_are_kept() {
    let (_directory, path) = place_on_disk();
    let damaged = r#"{"version": 1, "pool": {"ipv4": "10.0.0.0/24", "ipv6": null},
        "leases": {"a": 7, "b": 7, "c": 255, "d..e": 9, "f": 10}, "freed": []}"#;
    std::fs::write(&path, damaged).expect("written");
    let leases = open(&path, "10.0.0.0/24");
    assert_eq!(leases.iter().collect::<Vec<_>>(), [(&name("a"), 7), (&name("f"), 10)]);
    assert!(
        leases.warnings()[0].to_string().contains("leases.json.damaged-1: 2 leases were kept"),
        "{}",
        leases.warnings()[0]
    );
    assert!(open(&path, "10.0.0.0/24").warnings().is_empty(), "the file is whole again");
}

#[test]
fn an_invalid_pool_in_the_file_counts_as_damage() {
    let (_directory, path) = place_on_disk();
    for ipv4 in ["0.0.0.0/0", "10.0.0.0/32"] {
        let damaged = format!(
            r#"{{"version": 1, "pool": {{"ipv4": "{ipv4}", "ipv6": null}},
                "leases": {{"a": 7}}, "freed": []}}"#
        );
        std::fs::write(&path, damaged).expect("written");
        assert!(matches!(open(&path, "10.0.0.0/24").warnings(), [LeaseWarning::Damaged { .. }]));
    }
}

#[test]
fn a_file_of_a_newer_version_is_left_alone() {
    let (_directory, path) = place_on_disk();
    std::fs::write(&path, r#"{"version": 3, "shape": "unknown"}"#).expect("written");
    assert!(matches!(
        Leases::open(path.clone(), &pool("10.0.0.0/24"), vec![]),
        Err(LeaseError::Newer { found: 3, .. })
    ));
    assert!(path.exists());
}

#[test]
fn another_pool_keeps_the_indices_that_fit_and_warns() {
    let (_directory, path) = place_on_disk();
    let file = r#"{"version": 1, "pool": {"ipv4": "10.0.0.0/24", "ipv6": null},
        "leases": {"a": 7, "b": 200}, "freed": [{"index": 3, "source": "c"}]}"#;
    std::fs::write(&path, file).expect("written");
    let leases = open(&path, "10.1.0.0/28");
    assert_eq!(leases.iter().collect::<Vec<_>>(), [(&name("a"), 7)]);
    assert_eq!(leases.source_of(3), None, "nobody has seen 10.1.0.3");
    let [LeaseWarning::OtherPool { kept: 1, dropped: 1, .. }] = leases.warnings() else {
        panic!("{:?}", leases.warnings())
    };
    assert!(
        leases.warnings()[0]
            .to_string()
            .starts_with("the pool was 10.0.0.0/24 and is now 10.1.0.0/28")
    );
    assert!(open(&path, "10.1.0.0/28").warnings().is_empty(), "it is reported once");
}

#[test]
fn a_wider_pool_of_the_same_base_keeps_every_address() {
    let (_directory, path) = place_on_disk();
    let index = open(&path, "10.0.0.0/24").lease(&name("a")).expect("leased");
    open(&path, "10.0.0.0/24").lease(&name("b")).expect("leased");
    open(&path, "10.0.0.0/24").release(&name("b")).expect("released");
    let leases = open(&path, "10.0.0.0/20");
    assert_eq!(leases.get(&name("a")), Some(index));
    assert!(
        (0..4096).any(|index| leases.source_of(index) == Some(&name("b"))),
        "the freed one is still the last to be given out"
    );
}

/// What a test does to the leases.
#[derive(Clone, Debug)]
enum Step {
    Lease(Vec<u8>),
    Release(Vec<u8>),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let names = || prop::collection::vec(0u8..24, 1..6);
    prop_oneof![
        4 => names().prop_map(Step::Lease),
        3 => names().prop_map(Step::Release),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever is leased and released: no address twice, none outside the pool, a lease never
    /// moves, a source that comes back while its address is free gets that one, and a file has it
    /// all.
    #[test]
    fn leases_are_distinct_stable_and_on_disk(steps in prop::collection::vec(step(), 1..40)) {
        let (_directory, path) = place_on_disk();
        let mut leases = open(&path, "10.0.0.0/28"); // 14 addresses for up to 24 names
        let named = |ns: &[u8]| ns.iter().map(|n| name(&format!("host{n}"))).collect::<Vec<_>>();
        for step in steps {
            let before = by_source(&leases);
            let freed = leases.table.freed.iter();
            let had: BTreeMap<_, _> =
                freed.map(|freed| (freed.source.clone(), freed.index)).collect();
            match step {
                Step::Lease(ns) => match leases.lease_all(&named(&ns)) {
                    Ok(()) => for source in named(&ns) {
                        let index = leases.get(&source).expect("leased");
                        let old = before.get(&source).or(had.get(&source));
                        prop_assert!(old.is_none_or(|old| *old == index));
                    },
                    Err(LeaseError::PoolFull { .. }) => {
                        prop_assert_eq!(&before, &by_source(&leases));
                    }
                    Err(error) => panic!("{error}"),
                },
                Step::Release(ns) => leases.release_all(&named(&ns)),
                Step::Reopen => {
                    leases.save().expect("saved");
                    let again = open(&path, "10.0.0.0/28");
                    prop_assert_eq!(&again.table, &leases.table);
                    leases = again;
                }
            }
            let freed = leases.table.freed.iter().map(|freed| freed.index);
            let all: Vec<_> = leases.iter().map(|(_, index)| index).chain(freed).collect();
            prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
            prop_assert!(all.iter().all(|index| (1..15).contains(index)));
            for (source, index) in &before {
                prop_assert!(leases.get(source).is_none_or(|now| now == *index));
            }
        }
    }

    /// A file of any bytes is read, or quarantined, or refused; never a panic, never lost.
    #[test]
    fn any_file_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (directory, path) = place_on_disk();
        std::fs::write(&path, &bytes).expect("written");
        if let Ok(mut leases) = Leases::open(path.clone(), &pool("10.0.0.0/28"), vec![]) {
            prop_assert_eq!(leases.warnings().len(), 1);
            prop_assert_eq!(&std::fs::read(&path).expect("read"), &bytes, "nothing was written");
            leases.save().expect("saved");
            let copy = directory.path().join("leases.json.damaged-1");
            prop_assert_eq!(std::fs::read(copy).expect("kept"), bytes);
        }
    }
}
