//! The command line of `cargo xtask soak`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::ValueEnum as _;

use crate::fault::Attack;
use crate::profile::{Profile, ProfileName};
use crate::schedule::{self, Step};

/// The length of each attack unless another one is asked for, in minutes.
const ATTACK_MINUTES: f64 = 1.0;
/// The same for a mixed soak.
const MIXED_MINUTES: f64 = 10.0;

/// Arguments of `cargo xtask soak`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// What goes wrong
    #[arg(long, value_enum, default_value_t = ProfileName::Mixed)]
    pub profile: ProfileName,
    /// With `attacks`: only this one
    #[arg(long, value_enum, hide_possible_values = true)]
    pub attack: Option<Attack>,
    /// How long [default: 10; 1 for each attack; `kills` takes about five]
    #[arg(long)]
    pub minutes: Option<f64>,
    /// What the schedule follows from
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Play only these steps of the schedule, as FIRST-LAST or NUMBER
    #[arg(long, value_parser = parse_steps)]
    pub steps: Option<(usize, usize)>,
    /// Continue after a breach of the contract
    #[arg(long)]
    pub keep_going: bool,
    /// Print the schedule, and do nothing
    #[arg(long)]
    pub list: bool,
    /// The redirector under test [default: the release binary of `cargo xtask build`]
    #[arg(long)]
    pub binary: Option<PathBuf>,
    /// Write the report to this file too
    #[arg(long)]
    pub output: Option<PathBuf>,
}

impl Options {
    /// The soaks that they ask for, one after the other, each with its length.
    pub(crate) fn soaks(&self) -> Result<Vec<(Profile, Duration)>> {
        let minutes = |default: f64| {
            Duration::from_secs_f64(60.0 * self.minutes.unwrap_or(default).clamp(0.1, 10_000.0))
        };
        if let (Some(attack), ProfileName::Mixed | ProfileName::Kills) = (self.attack, self.profile)
        {
            bail!("--attack selects `{attack}`, which no soak plays: add `--profile attacks`");
        }
        Ok(match self.profile {
            ProfileName::Mixed => vec![(Profile::Mixed, minutes(MIXED_MINUTES))],
            ProfileName::Kills => {
                let steps = self.steps_of(Profile::Kills, Duration::ZERO)?;
                let last = steps.last().map_or(Duration::ZERO, Step::end);
                vec![(Profile::Kills, last + Duration::from_secs(10))]
            }
            ProfileName::Attacks => Attack::value_variants()
                .iter()
                .filter(|&attack| self.attack.is_none_or(|only| only == *attack))
                .map(|&attack| (Profile::Attacks(attack), minutes(ATTACK_MINUTES) + schedule::LEAD))
                .collect(),
        })
    }

    /// The selected steps of a soak.
    pub(crate) fn steps_of(&self, profile: Profile, length: Duration) -> Result<Vec<Step>> {
        let mut steps = schedule::schedule(profile, self.seed, length);
        if let Some((first, last)) = self.steps {
            steps.retain(|step| (first..=last).contains(&step.number));
            ensure!(
                !steps.is_empty(),
                "--steps {first}-{last} selects no step of `{profile}`: see `--list` without it"
            );
        }
        Ok(steps)
    }

    /// The schedules, a line for each step.
    pub fn schedules(&self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for (profile, length) in self.soaks()? {
            lines.extend(self.steps_of(profile, length)?.iter().map(Step::to_string));
        }
        Ok(lines)
    }
}

fn parse_steps(text: &str) -> Result<(usize, usize), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok((first, last)),
        _ => Err("expected FIRST-LAST or NUMBER, such as 3-7".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Options {
        #[derive(clap::Parser)]
        #[command(no_binary_name = true)]
        struct CommandLine {
            #[command(flatten)]
            options: Options,
        }
        <CommandLine as clap::Parser>::parse_from(words.split_whitespace()).options
    }

    #[test]
    fn each_attack_has_a_soak() {
        for attack in Attack::value_variants() {
            let value = attack.to_possible_value().unwrap();
            let options = parse(&format!("--profile attacks --attack {}", value.get_name()));
            let [(profile, length)] = options.soaks().unwrap()[..] else { panic!("{attack}") };
            assert_eq!(profile, Profile::Attacks(*attack));
            assert_eq!(options.steps_of(profile, length).unwrap().len(), 1, "{attack}");
        }
        let all = parse("--profile attacks").schedules().unwrap();
        assert_eq!(all.len(), Attack::value_variants().len(), "{all:?}");
    }

    #[test]
    fn a_selection_of_nothing_is_an_error() {
        for (words, expected) in [
            (
                "--attack spoofed-syns",
                "--attack selects `spoofed SYNs`, which no soak plays: add `--profile attacks`",
            ),
            (
                "--minutes 1 --steps 500-600",
                "--steps 500-600 selects no step of `mixed`: see `--list` without it",
            ),
            (
                "--profile kills --steps 500",
                "--steps 500-500 selects no step of `kills`: see `--list` without it",
            ),
        ] {
            assert_eq!(parse(words).schedules().unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn steps_are_a_number_or_a_range() {
        assert_eq!(parse_steps("4"), Ok((4, 4)));
        assert_eq!(parse_steps("3-7"), Ok((3, 7)));
        for text in ["", "7-3", "x", "1-2-3"] {
            assert!(parse_steps(text).is_err(), "{text}");
        }
    }
}
