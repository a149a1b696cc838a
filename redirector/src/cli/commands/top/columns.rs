//! Which columns fit the screen. What is least important goes first, so that what is shown is shown
//! whole.

/// A column of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Ok,
    Fail,
    Deny,
    Wait,
    Open,
    P50,
    P99,
}

use Column::{Deny, Fail, Ok, Open, P50, P99, Wait};

const ALL: [Column; 7] = [Ok, Fail, Deny, Wait, Open, P50, P99];
/// Those that a narrow screen does without, the first one first.
const DISPENSABLE: [Column; 4] = [Wait, P50, Deny, Open];

/// A name has room for this many characters, or for the longest one.
const NAME: usize = 32;
/// The longest state of a route, or the short one of a backend.
const STATE: usize = 20;

impl Column {
    fn title(self) -> &'static str {
        match self {
            Ok => "OK/S",
            Fail => "FAIL/S",
            Deny => "DENY/S",
            Wait => "WAIT",
            Open => "OPEN",
            P50 => "P50",
            P99 => "P99",
        }
    }

    pub(super) fn width(self) -> usize {
        match self {
            Ok | Fail | Deny | Open => 7,
            Wait => 6,
            P50 | P99 => 9,
        }
    }
}

/// The columns of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    /// Room for a name.
    pub(super) name: usize,
    pub(super) numbers: Vec<Column>,
    /// Room for the state, behind two blanks.
    pub(super) state: usize,
}

impl Columns {
    /// On a screen of this width, with names up to this long.
    pub(super) fn fitting(screen: usize, longest: usize) -> Self {
        let longest = longest.clamp(24, 60);
        let mut numbers = ALL.to_vec();
        let taken =
            |numbers: &[Column]| numbers.iter().map(|column| 1 + column.width()).sum::<usize>() + 2;
        for column in DISPENSABLE {
            if taken(&numbers) + longest.min(NAME) + STATE <= screen {
                break;
            }
            numbers.retain(|kept| *kept != column);
        }
        let left = screen.saturating_sub(taken(&numbers));
        let name = longest.min(left.saturating_sub(STATE)).max(longest.min(NAME));
        Self { name, state: left.saturating_sub(name), numbers }
    }

    pub(super) fn header(&self) -> String {
        let numbers = self
            .numbers
            .iter()
            .map(|column| format!(" {:>width$}", column.title(), width = column.width()));
        format!("{:<name$}{}  STATE", "ROUTE", numbers.collect::<String>(), name = self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_screen_omits_the_least_important_columns() {
        let shown = |screen, longest| {
            let columns = Columns::fitting(screen, longest);
            assert!(columns.header().len() <= screen, "{columns:?}");
            (
                columns.name,
                columns.header().split_whitespace().skip(1).collect::<Vec<_>>().join(" "),
            )
        };
        assert_eq!(
            shown(usize::MAX, 80),
            (60, "OK/S FAIL/S DENY/S WAIT OPEN P50 P99 STATE".to_owned())
        );
        assert_eq!(shown(120, 30), (30, "OK/S FAIL/S DENY/S WAIT OPEN P50 P99 STATE".to_owned()));
        assert_eq!(shown(108, 33), (33, "OK/S FAIL/S DENY/S OPEN P50 P99 STATE".to_owned()));
        assert_eq!(shown(100, 10), (24, "OK/S FAIL/S DENY/S OPEN P50 P99 STATE".to_owned()));
        assert_eq!(shown(80, 10), (24, "OK/S FAIL/S OPEN P99 STATE".to_owned()));
        assert_eq!(shown(80, 33), (32, "OK/S FAIL/S P99 STATE".to_owned()));
        assert!(Columns::fitting(80, 33).state >= STATE);
    }
}
