//! The licence texts of what is linked; crates that share a text have it once.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::Context as _;
use testbed::workspace;

use super::parts::{Part, Parts};

/// How the name of a file with a licence or a notice begins, in lower case.
const NAMES: [&str; 5] = ["license", "licence", "copying", "notice", "unlicense"];

/// What separates two texts.
const RULE: &str =
    "================================================================================";

pub(super) fn text(parts: &Parts) -> anyhow::Result<String> {
    let mut owners: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let foreign = parts.crates.iter().filter(|(_, part)| part.checksum.is_some());
    for ((name, version), part) in foreign {
        for text in texts(part).with_context(|| format!("no licence of {name} {version}"))? {
            owners.entry(text).or_default().push(format!("{name} {version} ({})", part.licence));
        }
    }
    for text in standard("MIT OR Apache-2.0")? {
        let name = format!("Rust's standard library {} (MIT OR Apache-2.0)", parts.rust);
        owners.entry(text).or_default().push(name);
    }
    let glibc = format!("glibc {} (LGPL-2.1-or-later)", parts.glibc);
    owners.entry(parts.glibc_licences.trim().to_owned()).or_default().push(glibc);

    let mut sorted: Vec<_> = owners.iter().map(|(text, names)| (names, text)).collect();
    sorted.sort();
    let mut all = String::from(
        "What redirector contains beside its own code, and under which licence.\n\n\
         glibc is linked statically. redirector's source is public, and `cargo xtask build`\n\
         links it with any version of glibc.\n",
    );
    for (names, text) in sorted {
        let _ = write!(all, "\n{RULE}\n{}\n\n{text}\n", names.join("\n"));
    }
    Ok(all)
}

/// The texts that a crate ships, or those that its expression names.
fn texts(part: &Part) -> anyhow::Result<Vec<String>> {
    let mut paths: Vec<_> = fs::read_dir(&part.folder)
        .with_context(|| format!("failed to list {}", part.folder.display()))?
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().to_lowercase();
            NAMES.iter().any(|start| name.starts_with(start))
        })
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    paths.sort();
    if paths.is_empty() {
        return standard(&part.licence);
    }
    paths.iter().map(|path| read(path)).collect()
}

/// The texts of the licences that redirector itself has.
fn standard(expression: &str) -> anyhow::Result<Vec<String>> {
    let known = [("MIT", "LICENSE-MIT"), ("Apache-2.0", "LICENSE-APACHE")];
    let named = known
        .iter()
        .filter(|(licence, _)| expression.split([' ', '/', '(', ')']).any(|word| word == *licence));
    let texts: Vec<_> = named
        .map(|(_, file)| read(&workspace::root().join(file)))
        .collect::<anyhow::Result<_>>()?;
    anyhow::ensure!(!texts.is_empty(), "it ships no text, and `{expression}` has none here");
    Ok(texts)
}

fn read(path: &Path) -> anyhow::Result<String> {
    let bytes = fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).replace("\r\n", "\n").trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Arch;

    #[test]
    fn every_linked_crate_has_its_licence() {
        let parts = Parts::find(Arch::HOST).unwrap();
        let text = text(&parts).unwrap();
        for ((name, version), part) in &parts.crates {
            let heading = format!("{name} {version} ({})", part.licence);
            assert_eq!(text.contains(&heading), part.checksum.is_some(), "{heading}");
        }
        assert!(parts.crates.contains_key(&("aya-ebpf".to_owned(), "0.2.1".to_owned())));
        assert!(!parts.crates.keys().any(|(name, _)| name == "insta" || name == "serde_derive"));
        assert!(text.contains("GNU Lesser General Public"), "{text}");
    }

    #[test]
    fn a_licence_without_a_text_is_an_error() {
        assert!(standard("ISC").unwrap_err().to_string().contains("`ISC`"));
    }
}
