//! Everything that is wrong with one route.

use std::fmt;

use crate::spanned::Diagnostic;

/// Everything that is wrong with one route. Displayed as one line for each problem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct RouteProblems {
    /// The source as it was written.
    pub route: String,
    /// The problems; their keys are those of the route (`ports[0]`).
    pub problems: Vec<Diagnostic>,
}

impl RouteProblems {
    /// In one line, where there is no room for more.
    pub fn one_line(&self) -> String {
        self.to_string().replace('\n', "; ")
    }
}

impl fmt::Display for RouteProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            write!(f, "{}route `{}`: {problem}", if n == 0 { "" } else { "\n" }, self.route)?;
        }
        Ok(())
    }
}
