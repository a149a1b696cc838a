//! docs/reference/causes.md lists every cause that `verify` and `explain` name, and where each is
//! staged; docs/operator.md says what to do about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::cause_code::CauseCode;

/// Where it is staged on the real kernel.
const STAGED: [(&str, &str); 4] = [
    ("verify", include_str!("../../tests/agent/commands/verify.rs")),
    ("verify", include_str!("../../tests/agent/dns/interception.rs")),
    ("explain", include_str!("../../tests/agent/commands/explain.rs")),
    ("explain", include_str!("../../tests/agent/attach/foreign_programs.rs")),
];
/// Where it is tested without one.
const TESTED: [&str; 2] = [include_str!("diagnose/tests.rs"), include_str!("explain/tests.rs")];
const OPERATOR: &str = include_str!("../../../docs/operator.md");

/// Texts in quotes that can be a code.
fn quoted_words(text: &str) -> impl Iterator<Item = &str> {
    text.split('"')
        .filter(|word| word.len() > 3 && word.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
}

#[test]
fn the_reference_of_causes_is_generated() {
    let codes: BTreeSet<&str> = CauseCode::ALL.iter().map(|code| code.as_str()).collect();
    let mut staged: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (command, test) in STAGED {
        for code in quoted_words(test).filter(|word| codes.contains(word)).collect::<BTreeSet<_>>()
        {
            staged.entry(code).or_default().push(command);
        }
    }
    let tested: BTreeSet<_> = TESTED.into_iter().flat_map(quoted_words).collect();
    let mut page = "| code | staged on the real kernel | unit test |\n|---|---|---|\n".to_owned();
    for code in &codes {
        assert!(
            OPERATOR.contains(&format!("`{code}`")),
            "docs/operator.md does not say what to do about {code}"
        );
        let commands = staged.get(code).map(|commands| {
            commands.iter().map(|command| format!("`{command}`")).collect::<Vec<_>>().join(", ")
        });
        assert!(commands.is_some() || tested.contains(code), "{code} is named and no test has it");
        let without = if tested.contains(code) { "yes" } else { "" };
        let _ = writeln!(page, "| `{code}` | {} | {without} |", commands.unwrap_or_default());
    }
    assert!(staged.len() >= 20, "{staged:?}");
    let _ = write!(
        page,
        "\n{} causes, {} of them staged on the real kernel.",
        codes.len(),
        staged.len()
    );
    crate::test_support::assert_generated("causes.md", &page);
}
