//! The status in words: one line, and whether anything is amiss.

use crate::control::api::{BackendState, OTHER_VERSION, State, Status};

impl Status {
    /// Fills in `state` and `summary` from the rest.
    pub fn concluded(mut self) -> Self {
        self.state = if self.problems.iter().any(|problem| problem.degrades) {
            State::Degraded
        } else {
            State::Ok
        };
        self.summary = self.words();
        self
    }

    /// Whether what is in the kernel is another version's, so that nothing else is known.
    pub fn is_other_version(&self) -> bool {
        self.problems.iter().any(|problem| problem.code == OTHER_VERSION)
    }

    fn words(&self) -> String {
        if self.is_other_version() {
            return "another version's programs are in the kernel; what they redirect can't be told".to_owned();
        }
        let live = self.routes.iter().filter(|route| route.live).count();
        let cgroups = self
            .datapath
            .as_ref()
            .map_or(0, |datapath| datapath.attachments.iter().filter(|at| at.live).count());
        let mut words = match (&self.agent, &self.datapath) {
            (_, None) => "nothing is loaded into the kernel".to_owned(),
            (Some(_), _) => {
                format!("redirecting {} for {}", count(live, "route"), count(cgroups, "cgroup"))
            }
            (None, _) => {
                format!(
                    "no agent answers; the programs in the kernel go on redirecting {} for {}",
                    count(live, "route"),
                    count(cgroups, "cgroup")
                )
            }
        };
        let set_aside = self
            .routes
            .iter()
            .flat_map(|route| &route.backends)
            .filter(|backend| backend.state == BackendState::Ejected)
            .count();
        let empty = self.routes.iter().filter(|route| route.backends.is_empty()).count();
        for (number, of, what) in
            [(set_aside, "backend", "set aside"), (empty, "route", "without backends")]
        {
            if number > 0 {
                words.push_str(&format!("; {} {what}", count(number, of)));
            }
        }
        if self.config.as_ref().is_some_and(|config| config.error.is_some()) {
            words
                .push_str("; the configuration file is wrong, what it said before is still in use");
        }
        words
    }
}

/// `1 route`, `2 routes`.
pub(crate) fn count(number: usize, of: &str) -> String {
    match number {
        1 => format!("1 {of}"),
        _ => format!("{number} {of}s"),
    }
}
