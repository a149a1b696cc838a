//! Every verb of xtask that a page names exists, with its arguments. What the verbs do is run by
//! `cargo xtask test`, and `cargo xtask kube`, `executor-vm` and `soak`, which have tests of their
//! own.

use std::{fs, path::Path, process::Command};

/// Adds the commands of the pages in `folder`.
fn collect(folder: &Path, lines: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            collect(&path, lines);
        } else if name.ends_with(".md") {
            let text = fs::read_to_string(&path).unwrap();
            let verbs = text.lines().filter_map(|line| line.trim().strip_prefix("$ cargo xtask "));
            lines.extend(verbs.map(str::to_owned));
        }
    }
}

#[test]
fn every_verb_that_a_page_names_exists() {
    let mut lines = Vec::new();
    collect(&testbed::workspace::root(), &mut lines);
    assert!(lines.len() >= 10, "{lines:?}");
    for line in lines {
        let verb = line.split(" #").next().unwrap_or_default();
        let help = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(verb.split_whitespace())
            .arg("--help")
            .output()
            .unwrap();
        assert!(help.status.success(), "{line}: {}", String::from_utf8_lossy(&help.stderr));
    }
}
