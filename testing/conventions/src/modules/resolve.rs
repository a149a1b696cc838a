//! Which item a path names, and which file defines it.

use super::tree::{FileId, ModuleId, Name, Tree};

/// Longer chains of re-exports are taken for loops.
const MAX_DEPTH: usize = 16;

/// What a path resolves to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) what: What,
    /// The modules whose re-exports the path itself names, in the order of its segments.
    pub(super) through: Vec<ModuleId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Module(ModuleId),
    Item {
        module: ModuleId,
        name: String,
        file: FileId,
    },
    /// Of another crate.
    Foreign,
}

impl Tree {
    /// What the path means in the module; nothing for a local variable or another crate's item.
    ///
    /// There may be two: a module and a function of the same name.
    pub(super) fn resolve(&self, from: ModuleId, path: &[String]) -> Vec<Found> {
        self.resolve_at(from, path, 0)
    }

    fn resolve_at(&self, from: ModuleId, path: &[String], depth: usize) -> Vec<Found> {
        if depth > MAX_DEPTH {
            return Vec::new();
        }
        let Some((first, rest)) = path.split_first() else { return Vec::new() };
        match first.as_str() {
            "crate" => self.walk(0, rest, Vec::new(), depth),
            "self" => self.walk(from, rest, Vec::new(), depth),
            "super" => {
                let ups = path.iter().take_while(|segment| *segment == "super").count();
                let module = self.ancestors(from).nth(ups - 1).unwrap_or(0);
                self.walk(module, &path[ups..], Vec::new(), depth)
            }
            _ => self.in_scope(from, first, rest, depth),
        }
    }

    /// A path that starts with a name of the module's own scope.
    fn in_scope(&self, from: ModuleId, first: &str, rest: &[String], depth: usize) -> Vec<Found> {
        let mut found = Vec::new();
        for (what, _) in modules_before_path(self.named(from, first, depth), rest) {
            match what {
                What::Module(module) => found.extend(self.walk(module, rest, Vec::new(), depth)),
                other => found.push(Found { what: other, through: Vec::new() }),
            }
        }
        prefer_items(found)
    }

    /// Follows the segments down from a module.
    fn walk(
        &self,
        module: ModuleId,
        rest: &[String],
        through: Vec<ModuleId>,
        depth: usize,
    ) -> Vec<Found> {
        let Some((first, rest)) = rest.split_first() else {
            return vec![Found { what: What::Module(module), through }];
        };
        let mut found = Vec::new();
        for (what, imported) in modules_before_path(self.named(module, first, depth), rest) {
            let mut through = through.clone();
            if imported {
                through.push(module);
            }
            match what {
                What::Module(child) => found.extend(self.walk(child, rest, through, depth)),
                other => found.push(Found { what: other, through }),
            }
        }
        if found.is_empty() {
            // Something that a macro of the module wrote.
            let file = self.modules[module].file;
            let what = What::Item { module, name: first.clone(), file };
            found.push(Found { what, through });
        }
        prefer_items(found)
    }

    /// What a name stands for in a module, and whether by an import.
    fn named(&self, module: ModuleId, name: &str, depth: usize) -> Vec<(What, bool)> {
        let mut found = Vec::new();
        for declared in self.modules[module].names.get(name).into_iter().flatten() {
            match declared {
                Name::Module(id) => found.push((What::Module(*id), false)),
                Name::Item(file) => {
                    let what = What::Item { module, name: name.to_owned(), file: *file };
                    found.push((what, false));
                }
                Name::Import(path) => {
                    let imported = self.resolve_at(module, path, depth + 1);
                    if imported.is_empty() {
                        found.push((What::Foreign, true));
                    }
                    found.extend(imported.into_iter().map(|found| (found.what, true)));
                }
            }
        }
        if found.is_empty() && depth < MAX_DEPTH {
            found = self.by_glob(module, name, depth + 1);
        }
        let child = |(what, imported): &(What, bool)| matches!(what, What::Module(_)) && !imported;
        if found.iter().any(child) {
            // A child module and a re-export have the same name: the module is there without it.
            found.iter_mut().for_each(|(_, imported)| *imported = false);
        }
        found
    }

    fn by_glob(&self, module: ModuleId, name: &str, depth: usize) -> Vec<(What, bool)> {
        let mut found = Vec::new();
        for path in &self.modules[module].globs {
            for target in self.resolve_at(module, path, depth) {
                if let What::Module(id) = target.what
                    && id != module
                {
                    found.extend(
                        self.named(id, name, depth).into_iter().map(|(what, _)| (what, true)),
                    );
                }
            }
        }
        found
    }
}

/// With more segments to follow, only the modules, if there are any.
fn modules_before_path(found: Vec<(What, bool)>, rest: &[String]) -> Vec<(What, bool)> {
    let is_module = |(what, _): &(What, bool)| matches!(what, What::Module(_));
    if !rest.is_empty() && found.iter().any(is_module) {
        found.into_iter().filter(is_module).collect()
    } else {
        found
    }
}

/// Modules only where nothing else has the name.
fn prefer_items(found: Vec<Found>) -> Vec<Found> {
    let is_item = |found: &Found| matches!(found.what, What::Item { .. });
    if found.iter().any(is_item) { found.into_iter().filter(is_item).collect() } else { found }
}
