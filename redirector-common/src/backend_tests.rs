use super::*;

const SECOND: u64 = 1_000_000_000;
const HTTPS: PortBe = PortBe::new(443);
const ONE: Caller = Caller::new(HTTPS, Witness::cgroup(1));
const TWO: Caller = Caller::new(HTTPS, Witness::cgroup(2));
const THREE: Caller = Caller::new(HTTPS, Witness::cgroup(3));

/// The moment in which an ejection that ends at `ns` has ended for sure.
const fn after(ns: u64) -> u64 {
    ns + Health::UNIT_NS
}

fn is_avoided(health: Health, caller: Caller, now: u64) -> bool {
    health.eligible_bit(caller, now) == 0
}

#[test]
fn a_healthy_backend_is_never_ejected() {
    for ns in [0, SECOND, u64::MAX >> 1] {
        assert!(!Health::HEALTHY.is_ejected(ns) && !is_avoided(Health::HEALTHY, ONE, ns));
    }
}

#[test]
fn each_failure_doubles_the_ejection_up_to_thirty_seconds() {
    let mut health = Health::HEALTHY;
    for (failures, seconds) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 30), (7, 30), (7, 30)]
    {
        let now = u64::from(failures) * 100 * SECOND;
        health = health.after_failure(ONE, now);
        assert_eq!(health.failures(), failures);
        let end = now + seconds * SECOND;
        assert!(health.is_ejected(end - 256) && is_avoided(health, ONE, end - 256));
        assert!(!health.is_ejected(after(end)) && !is_avoided(health, ONE, after(end)));
        assert_eq!(health.left_ns(now).div_ceil(SECOND), seconds + 1);
    }
}

#[test]
fn a_failure_counts_for_its_own_cgroup_until_another_agrees() {
    let one = Health::HEALTHY.after_failure(ONE, 10 * SECOND).after_failure(ONE, 11 * SECOND);
    let now = 12 * SECOND;
    assert!(is_avoided(one, ONE, now) && !is_avoided(one, TWO, now));
    assert_eq!((one.witness(), one.failures()), (Some(Witness::cgroup(1)), 2));
    let both = one.after_failure(TWO, now);
    assert!([ONE, TWO, THREE].into_iter().all(|caller| is_avoided(both, caller, now)));
    assert_eq!((both.witness(), both.failures()), (None, 1), "the failures of one count for it");
    assert!(!both.is_ejected(after(now + SECOND)));
    let probed = one.agreed_on(now);
    assert_eq!(probed, both);
    assert_eq!(probed.agreed_on(now), probed);
}

#[test]
fn a_missing_source_port_counts_for_its_own_cgroup_only() {
    let now = 10 * SECOND;
    let one = Health::HEALTHY.after_no_port(ONE, now);
    assert!(is_avoided(one, ONE, now) && !is_avoided(one, TWO, now) && one.lacked_port());
    assert_eq!(one.witness(), Some(Witness::cgroup(1)));
    // Nobody agrees with it, and no probe shows that there are ports again.
    assert_eq!((one.agreed_on(now), one.after_probe(now)), (one, one));
    let both = one.after_no_port(TWO, now);
    assert!(is_avoided(both, TWO, now) && !is_avoided(both, THREE, now));
    let failed = one.after_failure(TWO, now);
    assert_eq!((failed.witness(), failed.lacked_port()), (Some(Witness::cgroup(2)), false));
    assert_eq!(failed, Health::HEALTHY.after_failure(TWO, now));
    // Each doubles the time, and a connect of the same cgroup clears it.
    for (failures, seconds) in [(2, 2), (3, 4), (4, 8), (5, 16), (6, 30), (7, 30), (7, 30)] {
        let now = u64::from(failures) * 100 * SECOND;
        let before = (2..failures).fold(one, |health, _| health.after_no_port(ONE, 150 * SECOND));
        let again = before.after_no_port(ONE, now);
        assert!(again.failures() == failures && again.is_ejected(now + seconds * SECOND - 256));
        assert!(!again.is_ejected(after(now + seconds * SECOND)));
    }
    assert_eq!((one.after_success(TWO), one.after_success(ONE)), (one, Health::HEALTHY));
}

#[test]
fn a_missing_source_port_hides_no_failure() {
    let now = 10 * SECOND;
    let one = Health::HEALTHY.after_failure(ONE, now);
    assert_eq!(one.after_no_port(TWO, now), one);
    let own = one.after_no_port(ONE, now + SECOND);
    assert!(own.failures() == 1 && !own.lacked_port() && own.is_ejected(now + 2 * SECOND - 256));
    let all = one.after_failure(TWO, now);
    assert_eq!((all.after_no_port(ONE, now), all.after_no_port(THREE, now)), (all, all));
    let later = one.after_no_port(TWO, 500 * SECOND);
    assert_eq!(later, Health::HEALTHY.after_no_port(TWO, 500 * SECOND));
}

#[test]
fn one_cgroup_does_not_prolong_an_ejection_for_all() {
    let all = Health::HEALTHY.after_failure(ONE, 10 * SECOND).after_failure(TWO, 10 * SECOND);
    let during = 10 * SECOND + SECOND / 2;
    assert_eq!(all.after_failure(ONE, during), all);
    assert_eq!(all.with_extended_ejection(ONE, during), all);
    let later = after(11 * SECOND);
    let alone = all.after_failure(ONE, later);
    assert!(is_avoided(alone, ONE, later) && !is_avoided(alone, TWO, later));
    assert!(alone.is_ejected(later + 2 * SECOND - 256), "the failures before count");
    let again = alone.after_failure(THREE, later + SECOND);
    assert_eq!((again.witness(), again.failures()), (None, 2));
}

#[test]
fn a_failure_long_ago_is_no_agreement() {
    let one = Health::HEALTHY.after_failure(ONE, 10 * SECOND);
    let much_later = one.after_failure(TWO, 200 * SECOND);
    assert_eq!((much_later.witness(), much_later.failures()), (Some(Witness::cgroup(2)), 1));
}

#[test]
fn a_failed_trial_counts_for_its_own_cgroup() {
    let all = Health::HEALTHY.after_failure(ONE, 10 * SECOND).after_failure(TWO, 10 * SECOND);
    let now = after(11 * SECOND);
    let trial = all.on_trial(ONE, now);
    assert!(is_avoided(trial, TWO, now + 2 * SECOND - 256));
    assert!(!is_avoided(trial, TWO, after(now + 2 * SECOND)));
    assert_eq!(trial.failures(), 1, "a trial is no failure");
    let failed = trial.after_failure(ONE, now + SECOND);
    assert!(is_avoided(failed, ONE, now + SECOND) && !is_avoided(failed, TWO, now + SECOND));
    assert_eq!(failed.on_trial(TWO, now + SECOND), failed);
}

#[test]
fn a_first_failure_follows_a_success() {
    let first = Health::HEALTHY.after_failure(ONE, 10 * SECOND);
    let all = first.agreed_on(10 * SECOND);
    let (ended, now) = (first.after_probe(11 * SECOND), after(11 * SECOND));
    for (health, is_first) in [
        (Health::HEALTHY, false),
        (first, true),
        (ended.on_trial(ONE, now), true),
        (ended.on_trial(ONE, now).after_failure(ONE, now), false),
        (all, false),
        (all.on_trial(ONE, now).after_failure(ONE, now), false),
        (all.after_success(ONE).after_failure(ONE, now), true),
        (Health::HEALTHY.after_no_port(ONE, now), false),
    ] {
        assert_eq!(health.is_first_failure(), is_first, "{health:?}");
    }
}

#[test]
fn a_success_clears_what_concerns_its_cgroup() {
    let one = Health::HEALTHY.after_failure(ONE, SECOND);
    assert_eq!(one.after_success(TWO), one);
    assert_eq!(one.after_success(ONE), Health::HEALTHY);
    assert_eq!(one.after_failure(TWO, SECOND).after_success(THREE), Health::HEALTHY);
}

#[test]
fn another_port_is_not_judged() {
    let http = Caller::new(PortBe::new(80), Witness::cgroup(1));
    let refused = Health::HEALTHY.after_failure(http, SECOND);
    assert!(is_avoided(refused, http, SECOND) && !is_avoided(refused, ONE, SECOND));
    assert_eq!(refused.after_success(ONE), refused);
    assert_eq!(refused.after_failure(ONE, SECOND).port(), HTTPS, "the latest port replaces");
    let all = Health::HEALTHY.after_failure(ONE, SECOND).after_failure(TWO, SECOND);
    assert_eq!(all.after_failure(http, SECOND), all, "but not an ejection for all");
}

#[test]
fn usual_ports_have_words_of_their_own() {
    let words = [22, 80, 443].map(|port| Health::index(BackendId(7), PortBe::new(port)));
    assert!(words.iter().all(|word| (28..32).contains(word)), "{words:?}");
    assert!(words[0] != words[1] && words[1] != words[2] && words[0] != words[2], "{words:?}");
}

#[test]
fn a_confirmed_failure_counts_once_and_restarts_the_ejection() {
    let once = Health::HEALTHY.after_failure(ONE, 10 * SECOND);
    let confirmed = once.with_extended_ejection(ONE, 13 * SECOND);
    assert_eq!(confirmed.failures(), 1);
    assert!(confirmed.is_ejected(14 * SECOND - 256) && !confirmed.is_ejected(after(14 * SECOND)));
    assert_eq!(
        Health::HEALTHY.with_extended_ejection(ONE, SECOND),
        Health::HEALTHY.after_failure(ONE, SECOND),
        "reset by a success in between"
    );
}

#[test]
fn only_a_probe_shortens_an_ejection() {
    let held =
        Health::HEALTHY.after_failure(ONE, 10 * SECOND).ejected_until(20 * SECOND, 10 * SECOND);
    let now = 12 * SECOND;
    assert!(held.is_ejected(20 * SECOND - 256) && !held.is_ejected(after(20 * SECOND)));
    for later in [
        held.with_extended_ejection(ONE, now),
        held.after_failure(ONE, now),
        held.ejected_until(15 * SECOND, now),
        held.on_trial(ONE, now),
    ] {
        assert_eq!(later.left_ns(now), held.left_ns(now));
    }
    let probed = held.after_probe(now);
    assert_eq!((probed.failures(), probed.is_ejected(now)), (1, false));
    assert_eq!(probed.after_probe(now), probed);
    assert_eq!(Health::HEALTHY.after_probe(now), Health::HEALTHY);
    assert_eq!(Health::HEALTHY.ejected_until(SECOND, 0), Health::HEALTHY);
}

#[test]
fn times_may_wrap() {
    let wrap = (Health::END_MASK + 1) << Health::UNIT_SHIFT;
    let now = wrap - SECOND / 2;
    let failed = Health::HEALTHY.after_failure(ONE, now);
    assert!(failed.is_ejected(wrap) && !failed.is_ejected(after(now + SECOND)));
    assert!(!failed.is_ejected(now + wrap / 2));
}

#[test]
fn a_witness_is_somebody() {
    for id in (0..100_000).chain([u64::MAX]) {
        let witness = Witness::cgroup(id);
        assert!(witness.bits() > 0 && witness.bits() < 1 << 14);
        assert_eq!(Witness::from_bits(witness.bits()), witness);
    }
    assert_ne!(Witness::interface(7), Witness::cgroup(7));
}

#[test]
fn only_service_ends_an_ejection_for_resets() {
    let now = 10 * SECOND;
    let health = Health::HEALTHY.after_reset(ONE, now);
    assert!(health.is_resetting() && is_avoided(health, ONE, now) && !is_avoided(health, TWO, now));
    assert_eq!(health.after_success(ONE), health);
    assert_eq!(health.after_probe(now), health);
    assert_eq!(health.after_service(TWO), health, "another cgroup's");
    assert_eq!(health.after_service(ONE), Health::HEALTHY);
    // Accepted connects in between do not shorten the next ejection.
    let later = after(11 * SECOND);
    let again = health.on_trial(ONE, later).after_success(ONE).after_reset(ONE, later);
    assert_eq!((again.failures(), again.is_resetting()), (2, true));
    assert!(again.is_ejected(later + 2 * SECOND - 256));
    let refused = again.after_failure(ONE, later);
    assert!(refused.is_resetting(), "it may accept connects again, and reset the connections");
}

#[test]
fn resets_of_two_cgroups_eject_for_all() {
    let now = 10 * SECOND;
    let both = Health::HEALTHY.after_reset(ONE, now).after_reset(TWO, now);
    assert!(both.is_resetting() && both.witness().is_none() && is_avoided(both, THREE, now));
    let later = after(11 * SECOND);
    assert_eq!(both.on_trial(THREE, later).after_service(THREE), Health::HEALTHY);
    // An ejection for failed connects stays what it is.
    let refused = Health::HEALTHY.after_failure(ONE, now).after_failure(TWO, now);
    assert_eq!(refused.after_reset(THREE, now), refused);
    let other = Caller::new(PortBe::new(80), Witness::cgroup(1));
    assert_eq!(refused.after_reset(other, now), refused);
}

/// What one of two cgroups or the prober may report, each half a second after the other.
const REPORTS: [fn(Health, u64) -> Health; 13] = [
    |health, now| health.after_failure(ONE, now),
    |health, now| health.after_reset(ONE, now),
    |health, now| health.with_extended_ejection(ONE, now),
    |health, now| health.after_no_port(ONE, now),
    |health, now| health.after_failure(TWO, now),
    |health, now| health.after_no_port(TWO, now),
    |health, now| health.agreed_on(now),
    |health, now| health.on_trial(ONE, now),
    |health, now| health.ejected_until(now + 30 * SECOND, now),
    |health, now| health.after_probe(now),
    |health, _| health.after_success(ONE),
    |health, _| health.after_success(TWO),
    |health, _| health.after_service(ONE),
];

/// Every sequence of five reports: nobody avoids a backend without a failure of its own, unless two
/// others have seen one.
#[test]
fn no_sequence_of_reports_ejects_without_evidence() {
    let reports = REPORTS.len();
    for sequence in 0..reports.pow(5) {
        let (mut health, mut now, mut seen) = (Health::HEALTHY, 10 * SECOND, [false; 13]);
        for place in 0..5 {
            let report = sequence / reports.pow(place) % reports;
            health = REPORTS[report](health, now);
            seen[report] = true;
            let (one, two, prober) = (seen[0] || seen[1] || seen[2], seen[4], seen[6]);
            let agreed = [one, two, prober].into_iter().filter(|failed| *failed).count() > 1;
            let own = [(ONE, one || seen[3]), (TWO, two || seen[5]), (THREE, false)];
            for (caller, evidence) in own {
                let avoided = is_avoided(health, caller, now);
                assert!(!avoided || evidence || agreed, "{caller:?} after {sequence}: {health:?}");
            }
            assert!(report != 12 || !is_avoided(health, ONE, now), "served: {health:?}");
            now += SECOND / 2;
        }
    }
}
