//! Rules about the workspace's own source text that no lint checks.

pub mod files;
pub mod markdown;
pub mod modules;
pub mod style;
pub mod targets;
pub mod unsafe_code;
pub mod words;

use std::path::{Path, PathBuf};

/// A rule's name, and the function that returns one text for each violation.
pub type Rule = (&'static str, fn() -> anyhow::Result<Vec<String>>);

/// Every rule.
pub const RULES: &[Rule] = &[
    ("modules", module_violations),
    ("words", || Ok(words::check(&files::of_workspace(&root())?))),
    ("lines", || Ok(style::long_lines(&files::of_workspace(&root())?))),
    ("docs", || Ok(markdown::check(&files::of_workspace(&root())?, &root()))),
    ("unsafe", || unsafe_code::check(&files::of_workspace(&root())?)),
    ("tests", || Ok(style::long_test_names(&files::of_workspace(&root())?))),
];

/// The workspace's root.
pub fn root() -> PathBuf {
    // The variable at run time comes first, since clones may share a target directory.
    let own = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    own.ancestors().nth(2).unwrap_or(Path::new(".")).to_owned()
}

fn module_violations() -> anyhow::Result<Vec<String>> {
    let root = root();
    let mut violations = Vec::new();
    for target in targets::of_workspace(&root)? {
        for finding in modules::check(&target.root, &root)? {
            violations.push(format!("{}: {finding}", target.label()));
        }
    }
    Ok(violations)
}
