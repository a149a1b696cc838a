//! What a soak consists of.

use std::fmt;
use std::time::Duration;

use crate::fault::Attack;

/// What goes wrong, and how much load there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Every kind of fault, by the seed.
    Mixed,
    /// Fifty times SIGKILL and twenty upgrades at random instants, under a high load.
    Kills,
    /// A tenant attacks throughout.
    Attacks(Attack),
}

/// The words of `--profile`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ProfileName {
    /// Every kind of fault, in a sequence that the seed determines
    Mixed,
    /// Kill the agent 50 times and upgrade it 20 times under a high load
    Kills,
    /// One tenant attacks, a minute for each attack
    Attacks,
}

/// The load of a client, in operations a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    /// Connects to the route under observation.
    pub(crate) connects: u32,
    /// Look-ups of mapped names, answered in the kernel.
    pub(crate) mapped: u32,
    /// Look-ups of other names.
    pub(crate) unrelated: u32,
    /// Each other kind of operation.
    pub(crate) others: u32,
}

impl fmt::Display for Profile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mixed => formatter.write_str("mixed"),
            Self::Kills => formatter.write_str("kills"),
            Self::Attacks(attack) => write!(formatter, "attack: {attack}"),
        }
    }
}

impl Profile {
    /// The load of each of the three clients.
    pub(crate) fn rates(self) -> Rates {
        match self {
            // Together 1,000 connects and 2,000 look-ups a second.
            Self::Kills => Rates { connects: 334, mapped: 500, unrelated: 160, others: 4 },
            Self::Mixed | Self::Attacks(_) => {
                Rates { connects: 50, mapped: 40, unrelated: 20, others: 5 }
            }
        }
    }

    /// Whether names are intercepted at sockets, where two of the attacks aim.
    pub(crate) fn at_sockets(self) -> bool {
        matches!(self, Self::Attacks(Attack::ResolverCrowd | Attack::SilentResolver))
    }

    /// The longest that a look-up may take: the victims of an attack must not notice it.
    pub(crate) fn slowest_lookup(self) -> Option<Duration> {
        matches!(self, Self::Attacks(_)).then_some(Duration::from_secs(1))
    }

    /// Whether a tenant uses the route under observation, so that its counters are no client's.
    pub(crate) fn tenant_connects(self) -> bool {
        self == Self::Attacks(Attack::MisboundConnects)
    }
}
