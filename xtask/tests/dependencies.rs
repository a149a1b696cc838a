//! docs/reference/dependencies.md gives a reason for each dependency of the workspace, and names no
//! other crate.

use std::{collections::BTreeSet, fs};
use testbed::workspace;

fn read(path: &str) -> String {
    let path = workspace::root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The keys of `[workspace.dependencies]` that are not crates of this workspace.
fn declared() -> BTreeSet<String> {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let dependencies = manifest["workspace"]["dependencies"].as_table().unwrap();
    let external = dependencies.iter().filter(|(_, dependency)| dependency.get("path").is_none());
    external.map(|(name, _)| name.clone()).collect()
}

/// The rows ``| `crate` | reason |`` as pairs.
fn documented() -> Vec<(String, String)> {
    let page = read("docs/reference/dependencies.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    rows.map(|(name, reason)| (name.to_owned(), reason.trim_matches([' ', '|']).to_owned()))
        .collect()
}

#[test]
fn every_dependency_is_documented_once_with_a_reason() {
    let (declared, documented) = (declared(), documented());
    let names: BTreeSet<String> = documented.iter().map(|(name, _)| name.clone()).collect();
    let missing: Vec<_> = declared.difference(&names).collect();
    let unknown: Vec<_> = names.difference(&declared).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "docs/reference/dependencies.md lacks {missing:?} and names unknown {unknown:?}"
    );
    assert_eq!(names.len(), documented.len(), "a crate has two rows");
    let bare: Vec<_> = documented.iter().filter(|(_, reason)| reason.is_empty()).collect();
    assert!(bare.is_empty(), "rows without a reason: {bare:?}");
}

#[test]
fn every_declared_dependency_is_used_by_a_crate() {
    let root: toml::Table = read("Cargo.toml").parse().unwrap();
    let members = root["workspace"]["members"].as_array().unwrap();
    let manifests: Vec<String> = members
        .iter()
        .map(|member| read(&format!("{}/Cargo.toml", member.as_str().unwrap())))
        .collect();
    let unused: Vec<String> = declared()
        .into_iter()
        .filter(|name| {
            !manifests.iter().any(|manifest| {
                manifest.lines().any(|line| {
                    line.strip_prefix(name.as_str()).is_some_and(|rest| {
                        rest.starts_with(".workspace") || rest.starts_with(" =")
                    })
                })
            })
        })
        .collect();
    assert!(unused.is_empty(), "no crate uses {unused:?}");
}
