//! The three rules, and the texts of their violations.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    path::Path,
};

use super::{
    dependencies::{Dependencies, dependencies, references},
    graph,
    references::{Kind, Reference},
    resolve::What,
    tree::{Disk, FileId, ModuleId, Source, Tree},
};

/// A violation, ready to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// One line per fault, so that a crate's number of faults can be compared.
    pub lines: Vec<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.lines.join("\n"))
    }
}

/// Checks the crate with this root file; paths are shown relative to `base`.
///
/// # Errors
/// Fails if a file can't be read or parsed.
pub fn check(root: &Path, base: &Path) -> anyhow::Result<Vec<Finding>> {
    check_source(root, base, &Disk)
}

/// As `check`, with the files' text from `source`.
pub(super) fn check_source(
    root: &Path,
    base: &Path,
    source: &dyn Source,
) -> anyhow::Result<Vec<Finding>> {
    let tree = Tree::read(root, source)?;
    let dependencies = dependencies(&tree);
    let rules = Rules { tree: &tree, base, dependencies: &dependencies };
    let mut findings = rules.upward_imports();
    findings.extend(rules.file_cycles());
    findings.extend(rules.top_level_cycles());
    Ok(findings)
}

/// How many dependencies are shown between two top-level modules of a cycle.
const MAX_SHOWN: usize = 6;

/// A crate that is checked.
struct Rules<'a> {
    tree: &'a Tree,
    base: &'a Path,
    dependencies: &'a Dependencies,
}

impl Rules<'_> {
    /// Rule: files do not import each other in a cycle.
    fn file_cycles(&self) -> Vec<Finding> {
        let mut edges: BTreeMap<FileId, Vec<FileId>> = BTreeMap::new();
        for (from, to) in self.dependencies.keys() {
            edges.entry(*from).or_default().push(*to);
        }
        graph::cycles(&edges).iter().map(|group| self.file_cycle(group)).collect()
    }

    fn file_cycle(&self, group: &[FileId]) -> Finding {
        let inside = |(from, to): &(FileId, FileId)| group.contains(from) && group.contains(to);
        let mut lines = vec![format!("cycle of {} files:", group.len())];
        for (ends, names) in self.dependencies.iter().filter(|(ends, _)| inside(ends)) {
            lines.push(format!("    {}", self.show_dependency(*ends, names)));
        }
        Finding { lines }
    }

    /// Rule: no file imports from a module above its own.
    fn upward_imports(&self) -> Vec<Finding> {
        let mut first_lines: BTreeMap<(String, String), usize> = BTreeMap::new();
        for (module, reference) in references(self.tree) {
            if reference.kind != Kind::SelfMethod
                && !self.is_use_of_import(module, reference)
                && let Some(fault) = self.upward(module, reference)
            {
                let file = self.show(self.tree.modules[module].file);
                let fault = format!("`{}` {fault}", reference.path.join("::"));
                let line = first_lines.entry((file, fault)).or_insert(reference.line);
                *line = reference.line.min(*line);
            }
        }
        first_lines
            .into_iter()
            .map(|((file, fault), line)| Finding { lines: vec![format!("{file}:{line}: {fault}")] })
            .collect()
    }

    /// Whether the path starts with an item in scope, whose own import is checked instead.
    fn is_use_of_import(&self, module: ModuleId, reference: &Reference) -> bool {
        let Some(first) = reference.path.first() else { return true };
        !matches!(first.as_str(), "crate" | "self" | "super")
            && self
                .tree
                .resolve(module, std::slice::from_ref(first))
                .iter()
                .any(|found| matches!(found.what, What::Item { .. }))
    }

    fn upward(&self, module: ModuleId, reference: &Reference) -> Option<String> {
        let own = self.tree.modules[module].file;
        let above: HashSet<ModuleId> = self
            .tree
            .ancestors(module)
            .filter(|ancestor| self.tree.modules[*ancestor].file != own)
            .collect();
        for found in self.tree.resolve(module, &reference.path) {
            match found.what {
                What::Module(target) if reference.kind == Kind::Glob && above.contains(&target) => {
                    return Some(format!("imports everything from {}", self.show_module(target)));
                }
                What::Item { module: target, file, .. }
                    if above.contains(&target) && file == self.tree.modules[target].file =>
                {
                    return Some(format!("is defined above, in {}", self.show_module(target)));
                }
                _ => {}
            }
            if let Some(face) = found.through.iter().find(|face| above.contains(face)) {
                return Some(format!("is only re-exported by {}, above", self.show_module(*face)));
            }
        }
        None
    }

    /// Rule: top-level modules do not depend on each other in a cycle.
    fn top_level_cycles(&self) -> Vec<Finding> {
        let homes = self.top_level_of_files();
        let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (from, to) in self.dependencies.keys() {
            if let (Some(from), Some(to)) = (homes.get(from), homes.get(to))
                && from != to
            {
                edges.entry(from).or_default().push(to);
            }
        }
        graph::cycles(&edges).iter().map(|group| self.top_level_cycle(group, &homes)).collect()
    }

    fn top_level_cycle(&self, group: &[&str], homes: &HashMap<FileId, &str>) -> Finding {
        let mut lines = vec![format!("cycle of top-level modules: {}", group.join(", "))];
        let mut shown: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for (ends, names) in self.dependencies {
            let (Some(from), Some(to)) = (homes.get(&ends.0), homes.get(&ends.1)) else { continue };
            if from == to || !group.contains(from) || !group.contains(to) {
                continue;
            }
            let count = shown.entry((from, to)).or_default();
            *count += 1;
            if *count <= MAX_SHOWN {
                lines.push(format!("    {from} -> {to}: {}", self.show_dependency(*ends, names)));
            }
        }
        Finding { lines }
    }

    fn top_level_of_files(&self) -> HashMap<FileId, &str> {
        let mut homes = HashMap::new();
        for (id, module) in self.tree.modules.iter().enumerate() {
            if let Some(home) = self.tree.top_level(id)
                && module.file != self.tree.modules[0].file
            {
                homes.entry(module.file).or_insert(home);
            }
        }
        homes
    }

    fn show_dependency(
        &self,
        (from, to): (FileId, FileId),
        names: &BTreeSet<(String, usize)>,
    ) -> String {
        format!("{} -> {}: {}", self.show(from), self.show(to), show_names(names))
    }

    fn show(&self, file: FileId) -> String {
        let path = &self.tree.files[file];
        path.strip_prefix(self.base).unwrap_or(path).display().to_string()
    }

    fn show_module(&self, module: ModuleId) -> String {
        self.show(self.tree.modules[module].file)
    }
}

/// `super::Owner (line 12), super::Settings (line 14)`; at most six, and imports rather than their
/// uses.
fn show_names(names: &BTreeSet<(String, usize)>) -> String {
    let is_import = |(name, _): &&(String, usize)| {
        ["crate::", "self::", "super::"].iter().any(|prefix| name.starts_with(prefix))
    };
    let imports: Vec<_> = names.iter().filter(is_import).collect();
    let names = if imports.is_empty() { names.iter().collect() } else { imports };
    let mut shown: Vec<_> =
        names.iter().take(6).map(|(name, line)| format!("{name} (line {line})")).collect();
    if names.len() > shown.len() {
        shown.push(format!("and {} more", names.len() - shown.len()));
    }
    shown.join(", ")
}
