//! The shapes of the status: `GET /v1/status`, `redirector status -o json`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use crate::control::api::version::VERSION;
use crate::control::{
    api::{
        datapath::DatapathInfo,
        dns::DnsInfo,
        event::EventsInfo,
        problem::{Problem, ProblemCode},
        route::{BackendState, RouteView},
    },
    plural::count,
};

/// Everything that an operator asks first: `GET /v1/status`, `redirector status -o json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// Whether the agent is degraded.
    pub state: State,
    /// One line for a person, such as `redirecting 3 routes for 2 cgroups; 1 backend ejected`.
    pub summary: String,
    /// The problems, those that degrade first.
    pub problems: Vec<Problem>,
    /// The agent that answered; null when the state was read from the pins because no agent runs.
    pub agent: Option<AgentInfo>,
    /// The configuration in force; null without an agent.
    pub config: Option<ConfigInfo>,
    /// The DNS shim; null without an agent.
    pub dns: Option<DnsInfo>,
    /// The programs, maps and links in the kernel; null when there are none.
    pub datapath: Option<DatapathInfo>,
    /// Statistics of connect events; null without an agent.
    #[serde(default)]
    pub events: Option<EventsInfo>,
    /// Every route, by source.
    pub routes: Vec<RouteView>,
}

/// Whether the agent is degraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// No problem degrades it.
    Ok,
    /// A problem degrades it, see `problems`; everything else still works.
    Degraded,
}

/// The running agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// Its process ID, in its own PID namespace.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// When it was started.
    pub started_at: jiff::Timestamp,
    /// Seconds since then.
    pub uptime_seconds: u64,
    /// The agent that waits to take over; null if there is none.
    #[serde(default)]
    pub standby: Option<StandbyInfo>,
}

/// A second agent, which takes over when the running one ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyInfo {
    /// Its process ID; null if it is in another PID namespace.
    pub pid: Option<i32>,
    /// Whether it is ready.
    pub ready: bool,
}

/// The configuration in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigInfo {
    /// The file.
    pub path: PathBuf,
    /// When the configuration in force was read from it.
    pub loaded_at: jiff::Timestamp,
    /// Why its present content is not in force, one line per problem; null when it is.
    pub error: Option<String>,
    /// Keys whose new value takes effect after a restart of the agent, such as `dns.listen`.
    #[serde(default)]
    pub restart_needed_for: Vec<String>,
}

impl Status {
    /// Fills in `state` and `summary` from the rest.
    pub fn concluded(mut self) -> Self {
        self.state = if self.problems.iter().any(|problem| problem.degrades) {
            State::Degraded
        } else {
            State::Ok
        };
        self.summary = self.summarize();
        self
    }

    /// Whether the programs in the kernel belong to another version, so that nothing else is known.
    pub fn is_other_version(&self) -> bool {
        self.problems.iter().any(|problem| problem.code == ProblemCode::OtherVersion)
    }

    fn summarize(&self) -> String {
        if self.is_other_version() {
            return "another version's programs are in the kernel; their routes cannot be read"
                .to_owned();
        }
        let mut summary = self.redirecting();
        for (number, noun, attribute) in [
            (self.ejected_backends(), "backend", "ejected"),
            (self.empty_routes(), "route", "without backends"),
        ] {
            if number > 0 {
                summary.push_str(&format!("; {} {attribute}", count(number, noun)));
            }
        }
        if self.config.as_ref().is_some_and(|config| config.error.is_some()) {
            summary.push_str(
                "; the configuration file is invalid, the previous configuration stays in force",
            );
        }
        summary
    }

    fn redirecting(&self) -> String {
        let Some(datapath) = &self.datapath else {
            return "nothing is loaded into the kernel".to_owned();
        };
        let live = self.routes.iter().filter(|route| route.live).count();
        let cgroups = datapath.attachments.iter().filter(|at| at.live).count();
        let redirected =
            format!("redirecting {} for {}", count(live, "route"), count(cgroups, "cgroup"));
        if self.agent.is_some() {
            redirected
        } else {
            format!("no agent answers; the programs in the kernel keep {redirected}")
        }
    }

    fn ejected_backends(&self) -> usize {
        let backends = self.routes.iter().flat_map(|route| &route.backends);
        backends.filter(|backend| backend.state == BackendState::Ejected).count()
    }

    fn empty_routes(&self) -> usize {
        self.routes.iter().filter(|route| route.backends.is_empty()).count()
    }
}
