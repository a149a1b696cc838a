//! When what goes wrong: a function of the profile, the seed and the length alone.
//!
//! Faults come in episodes of one to three, with calm between them, so that the trace before a
//! failure is short. All kinds of faults are dealt like cards: none comes twice before all others
//! have come once.

use std::fmt;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use testbed::customer::Obstacle;

use crate::fault::{Attack, Fault};
use crate::profile::Profile;

/// Without faults at the beginning: what is normal is measured.
pub(crate) const LEAD: Duration = Duration::from_secs(4);
/// Without faults between two episodes, at least and at most, in milliseconds.
const CALM_MS: (u64, u64) = (3000, 6000);
/// How long a fault lasts, in milliseconds.
const LASTS_MS: (u64, u64) = (1500, 7000);
/// How much later than the first fault of its episode another one may begin, in milliseconds.
const SPREAD_MS: u64 = 2500;
/// The most faults of an episode.
const TOGETHER: usize = 3;
/// Kills and upgrades of [`Profile::Kills`].
pub(crate) const KILLS: (usize, usize) = (50, 20);
/// Time from the start of an agent to its end in [`Profile::Kills`], in milliseconds: some are
/// killed while they start.
const LIFE_MS: (u64, u64) = (50, 4000);

/// A fault with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Its number in the schedule.
    pub(crate) number: usize,
    /// When it begins, since the start of the soak.
    pub(crate) at: Duration,
    /// For how long.
    pub(crate) lasts: Duration,
    /// What.
    pub(crate) fault: Fault,
}

impl Step {
    /// When it is undone, since the start of the soak.
    pub(crate) fn end(&self) -> Duration {
        self.at + self.lasts
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, at, lasts, fault } = self;
        write!(
            formatter,
            "step {number}: {fault}, at {:.1} s for {:.1} s",
            at.as_secs_f64(),
            lasts.as_secs_f64()
        )
    }
}

/// The faults of a soak, in the order of their times.
pub(crate) fn schedule(profile: Profile, seed: u64, length: Duration) -> Vec<Step> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut steps = match profile {
        Profile::Mixed => episodes(&mut random, length),
        Profile::Kills => kills(&mut random),
        Profile::Attacks(attack) => {
            let lasts = length.saturating_sub(LEAD);
            vec![Step { number: 0, at: LEAD, lasts, fault: Fault::Tenant(attack) }]
        }
    };
    steps.sort_by_key(|step| step.at);
    for (number, step) in steps.iter_mut().enumerate() {
        step.number = number;
    }
    steps
}

/// Every kind of fault that [`Profile::Mixed`] deals.
fn deck() -> Vec<Fault> {
    let mut deck = vec![
        Fault::AgentKilled,
        Fault::AgentStopped,
        Fault::AgentUpgraded,
        Fault::AgentCrashLoop,
        Fault::AgentWithoutMemory,
        Fault::DnsStopped,
        Fault::DnsKilled,
        Fault::UplinkLossy,
        Fault::UplinkSlow,
        Fault::RoutesChanged,
        Fault::GuestReplaced,
        Fault::DiskFull,
        Fault::PinsRemoved,
        Fault::BpffsUnmounted,
        Fault::ShimAddressRemoved,
    ];
    for at in 0..2 {
        deck.extend([
            Fault::BackendKilled(at),
            Fault::BackendStopped(at),
            Fault::BackendObstructed(at, Obstacle::Silent),
            Fault::BackendObstructed(at, Obstacle::Refusing),
            Fault::BackendObstructed(at, Obstacle::Unreachable),
            Fault::UpstreamObstructed(at, Obstacle::Silent),
            Fault::UpstreamObstructed(at, Obstacle::Refusing),
            Fault::AddressesChanged(at),
        ]);
    }
    let attacks = [
        Attack::SynFlood,
        Attack::QueryFlood,
        Attack::SpoofedSyns,
        Attack::RefusedConnects,
        Attack::MisboundConnects,
        Attack::HalfRequests,
        Attack::ResolverCrowd,
    ];
    deck.extend(attacks.map(Fault::Tenant));
    deck
}

fn episodes(random: &mut Xoshiro256PlusPlus, length: Duration) -> Vec<Step> {
    let (mut steps, mut dealt, mut now) = (Vec::new(), Vec::new(), LEAD);
    loop {
        let episode = episode(random, &mut dealt, now);
        let end = episode.iter().map(Step::end).max().unwrap_or(now);
        // The last calm is the run's own.
        if end > length {
            return steps;
        }
        steps.extend(episode);
        now = end + Duration::from_millis(random.random_range(CALM_MS.0..=CALM_MS.1));
    }
}

fn episode(random: &mut Xoshiro256PlusPlus, dealt: &mut Vec<Fault>, now: Duration) -> Vec<Step> {
    let count = random.random_range(1..=TOGETHER);
    let (mut chosen, mut put_back): (Vec<Fault>, Vec<Fault>) = (Vec::new(), Vec::new());
    for _ in 0..2 * TOGETHER {
        if dealt.is_empty() {
            *dealt = deck();
            dealt.shuffle(random);
        }
        if chosen.len() == count {
            break;
        }
        let Some(card) = dealt.pop() else { break };
        let taken: Vec<_> = chosen.iter().flat_map(|fault| fault.resources()).collect();
        if card.resources().iter().any(|needed| taken.contains(needed)) {
            put_back.push(card);
        } else {
            chosen.push(card);
        }
    }
    dealt.extend(put_back.into_iter().rev());
    let step = |(place, fault): (usize, Fault)| {
        let spread = if place == 0 { 0 } else { random.random_range(0..=SPREAD_MS) };
        Step {
            number: 0,
            at: now + Duration::from_millis(spread),
            lasts: Duration::from_millis(random.random_range(LASTS_MS.0..=LASTS_MS.1)),
            fault,
        }
    };
    chosen.into_iter().enumerate().map(step).collect()
}

fn kills(random: &mut Xoshiro256PlusPlus) -> Vec<Step> {
    let mut faults =
        [vec![Fault::AgentKilled; KILLS.0], vec![Fault::AgentUpgraded; KILLS.1]].concat();
    faults.shuffle(random);
    let mut now = LEAD;
    let step = |fault| {
        let at = now;
        let away = if fault == Fault::AgentUpgraded { 0 } else { random.random_range(0..=1500) };
        let lasts = Duration::from_millis(away);
        now += lasts + Duration::from_millis(random.random_range(LIFE_MS.0..=LIFE_MS.1));
        Step { number: 0, at, lasts, fault }
    };
    faults.into_iter().map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(1200);

    #[test]
    fn the_same_seed_makes_the_same_schedule() {
        for profile in [Profile::Mixed, Profile::Kills] {
            assert_eq!(schedule(profile, 7, LENGTH), schedule(profile, 7, LENGTH));
            assert_ne!(schedule(profile, 7, LENGTH), schedule(profile, 8, LENGTH));
        }
    }

    /// A change of the algorithm would make every published seed meaningless.
    #[test]
    fn the_schedule_of_a_seed_is_known() {
        let first = schedule(Profile::Mixed, 1, LENGTH);
        let shown: Vec<String> = first.iter().take(2).map(ToString::to_string).collect();
        assert_eq!(shown, EXPECTED);
    }

    const EXPECTED: [&str; 2] = [
        "step 0: tenant: crowd of resolvers, at 4.0 s for 4.4 s",
        "step 1: lb2 silent, at 4.2 s for 2.2 s",
    ];

    #[test]
    fn a_longer_soak_begins_like_a_shorter_one() {
        let (short, long) =
            (schedule(Profile::Mixed, 3, LENGTH / 10), schedule(Profile::Mixed, 3, LENGTH));
        assert!(!short.is_empty() && long.starts_with(&short));
    }

    #[test]
    fn every_kind_of_fault_comes_before_one_comes_three_times() {
        for seed in 0..50 {
            let steps = schedule(Profile::Mixed, seed, LENGTH);
            let count = |fault| steps.iter().filter(|step| step.fault == fault).count();
            let counts: Vec<usize> = deck().into_iter().map(count).collect();
            let (fewest, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(*fewest > 0 && most - fewest <= 2, "seed {seed}: {counts:?}");
        }
    }

    #[test]
    fn faults_at_one_time_share_nothing_and_calm_follows() {
        for seed in 0..50 {
            let steps = schedule(Profile::Mixed, seed, LENGTH);
            for (at, step) in steps.iter().enumerate() {
                for other in steps[at + 1..].iter().filter(|other| other.at < step.end()) {
                    let shared = step.fault.resources();
                    assert!(
                        !other.fault.resources().iter().any(|needed| shared.contains(needed)),
                        "seed {seed}: {step}, {other}"
                    );
                }
            }
            let busy: Duration = steps.iter().map(|step| step.lasts).sum();
            assert!(steps.iter().all(|step| step.end() <= LENGTH) && busy > LENGTH / 3);
        }
    }

    #[test]
    fn kills_and_upgrades_are_complete_and_in_turn() {
        let steps = schedule(Profile::Kills, 5, LENGTH);
        let killed = steps.iter().filter(|step| step.fault == Fault::AgentKilled).count();
        assert_eq!((steps.len(), killed), (KILLS.0 + KILLS.1, KILLS.0));
        assert!(steps.windows(2).all(|pair| pair[0].end() < pair[1].at));
    }
}
