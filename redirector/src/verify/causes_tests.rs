//! docs/reference/causes.md lists every cause that `verify` and `explain` name, and where each is
//! tested; docs/operator.md gives the remedy.

use std::collections::BTreeSet;

use super::cause_code::CauseCode;

const CAUSES: &str = include_str!("../../../docs/reference/causes.md");
const OPERATOR: &str = include_str!("../../../docs/operator.md");

/// The cells of each row of the table: code, commands that stage it, whether a unit test has it.
fn rows() -> impl Iterator<Item = [&'static str; 3]> {
    CAUSES.lines().filter_map(|line| {
        let cells: Vec<_> = line.strip_prefix("| `")?.split('|').map(str::trim).collect();
        Some([cells[0].trim_end_matches('`'), cells[1], cells[2]])
    })
}

#[test]
fn the_page_of_causes_has_every_code_and_no_other() {
    let codes: BTreeSet<_> = CauseCode::ALL.iter().map(|code| code.as_str()).collect();
    let listed: Vec<_> = rows().map(|[code, ..]| code).collect();
    assert_eq!(listed, codes.iter().copied().collect::<Vec<_>>(), "the rows, sorted by code");
    for code in codes {
        assert!(
            OPERATOR.contains(&format!("`{code}`")),
            "docs/operator.md has no remedy for {code}"
        );
    }
}

#[test]
fn every_cause_names_its_test() {
    for [code, commands, unit_test] in rows() {
        assert!(!commands.is_empty() || unit_test == "yes", "no test of {code} is named");
    }
}
