//! The workspace keeps its own rules.

use std::path::Path;

use conventions::{modules, targets};

/// Violations that are still there; the number only falls.
const KNOWN_MODULE_VIOLATIONS: usize = 209;

#[test]
fn no_crate_has_a_module_cycle_or_an_upward_import() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let mut found = Vec::new();
    for target in targets::of_workspace().unwrap() {
        let findings = modules::check(&target.root, &root).unwrap();
        found.extend(findings.iter().map(|finding| format!("{}: {finding}", target.label())));
    }
    assert!(
        found.len() <= KNOWN_MODULE_VIOLATIONS,
        "{} violations, {KNOWN_MODULE_VIOLATIONS} are known; `cargo run -p conventions PACKAGE` \
         lists those of one package:\n{}",
        found.len(),
        found.join("\n")
    );
}
