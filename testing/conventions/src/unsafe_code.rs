//! How much unsafe code ships: the page about the supply chain states it, and grows only with a
//! reason. Clippy demands a reason at each place (`undocumented_unsafe_blocks`).

use std::collections::BTreeMap;

use anyhow::Context as _;
use syn::visit::{self, Visit};

use crate::files::TextFile;

/// The page with the table.
const PAGE: &str = "docs/supply-chain.md";

/// What ships.
const SHIPPED: [&str; 3] = ["redirector/src", "redirector-common/src", "redirector-ebpf/src"];

/// One line for each folder whose number on the page is another one.
///
/// # Errors
/// Fails if the page is missing or a file is not Rust.
pub fn check(files: &[TextFile]) -> anyhow::Result<Vec<String>> {
    let page = files.iter().find(|file| file.path.as_os_str() == PAGE);
    let stated = stated(&page.with_context(|| format!("no {PAGE}"))?.text);
    let mut findings = Vec::new();
    for folder in SHIPPED {
        let count = count(files, folder)?;
        if stated.get(folder) != Some(&count) {
            findings.push(format!("{PAGE}: {folder} has {count} unsafe places"));
        }
    }
    Ok(findings)
}

fn count(files: &[TextFile], folder: &str) -> anyhow::Result<usize> {
    let mut counter = Counter::default();
    for file in files.iter().filter(|file| file.is_rust() && file.path.starts_with(folder)) {
        let syntax = syn::parse_file(&file.text)
            .with_context(|| format!("failed to parse {}", file.path.display()))?;
        counter.visit_file(&syntax);
    }
    Ok(counter.places)
}

/// The rows "| `folder` | number | … |".
fn stated(page: &str) -> BTreeMap<&str, usize> {
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let folder = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
        Some((folder, cells.next()?.parse().ok()?))
    });
    rows.collect()
}

/// Unsafe blocks, functions, traits and implementations.
#[derive(Default)]
struct Counter {
    places: usize,
}

impl<'ast> Visit<'ast> for Counter {
    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.places += 1;
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.places += usize::from(signature.unsafety.is_some());
        visit::visit_signature(self, signature);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.places += usize::from(item.unsafety.is_some());
        visit::visit_item_impl(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.places += usize::from(item.unsafety.is_some());
        visit::visit_item_trait(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unsafe_place_counts() {
        let text = "unsafe fn a() { unsafe { b() } }\nunsafe impl C for D {}\nfn safe() {}\n";
        let source = TextFile { path: "redirector/src/file.rs".into(), text: text.to_owned() };
        let table = "| `redirector/src` | 3 | x |\n| `redirector-common/src` | 1 | x |\n";
        let page = TextFile { path: PAGE.into(), text: table.to_owned() };
        assert_eq!(
            check(&[source, page]).unwrap(),
            [
                "docs/supply-chain.md: redirector-common/src has 0 unsafe places",
                "docs/supply-chain.md: redirector-ebpf/src has 0 unsafe places",
            ]
        );
    }
}
