//! Every verb of xtask that the README names exists. What it does is run by `cargo xtask test`.

use std::process::Command;

#[test]
fn every_verb_that_the_readme_names_exists() {
    let readme = std::fs::read_to_string(testbed::workspace::root().join("README.md")).unwrap();
    let blocks = readme.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let lines: Vec<&str> =
        blocks.flat_map(str::lines).filter_map(|line| line.strip_prefix("$ ")).collect();
    assert!(lines.len() >= 4, "{lines:?}");
    for line in lines {
        let verb = line
            .strip_prefix("cargo xtask ")
            .unwrap_or_else(|| panic!("`{line}` is no verb of xtask"));
        let help = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(verb.split(' '))
            .arg("--help")
            .output()
            .unwrap();
        assert!(help.status.success(), "{line}: {}", String::from_utf8_lossy(&help.stderr));
    }
}
