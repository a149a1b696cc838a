//! The page of dependencies has a row for each crate that a manifest names, and no other.

use std::collections::BTreeSet;

/// Where the page is, relative to the workspace's root.
pub const PAGE: &str = "docs/reference/dependencies.md";

/// One line for each crate that only one of the two has.
pub fn check(page: &str, crates: &BTreeSet<String>) -> Vec<String> {
    let listed: BTreeSet<String> = page.lines().filter_map(row).map(str::to_owned).collect();
    let missing = crates.difference(&listed).map(|name| format!("{PAGE}: no row for `{name}`"));
    let unused = listed.difference(crates).map(|name| format!("{PAGE}: no manifest has `{name}`"));
    missing.chain(unused).collect()
}

/// The crate that a row of a table is about.
fn row(line: &str) -> Option<&str> {
    line.strip_prefix("| `")?.split_once("` |").map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_and_manifests_must_agree() {
        let crates = BTreeSet::from(["anyhow".to_owned(), "aya".to_owned()]);
        let page = "| crate | for |\n|---|---|\n| `aya` | maps |\n| `tower` | nothing |\n";
        assert_eq!(
            check(page, &crates),
            [format!("{PAGE}: no row for `anyhow`"), format!("{PAGE}: no manifest has `tower`")]
        );
    }
}
