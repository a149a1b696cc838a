//! Resolves a path to the item that it names and the file that defines it.

use super::tree::{FileId, ModuleId, Name, Tree};

/// The names that are being looked up, which ends the lookup of a re-export of itself.
type Trail<'a> = Vec<(ModuleId, &'a str)>;

/// The result of resolving a path.
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
    /// An item of another crate.
    Foreign,
}

impl Tree {
    /// Resolves a path in a module; empty for a local variable or another crate's item.
    ///
    /// There may be two: a module and a function of the same name.
    pub(super) fn resolve(&self, from: ModuleId, path: &[String]) -> Vec<Found> {
        self.resolve_at(from, path, &mut Trail::new())
    }

    fn resolve_at<'a>(
        &'a self,
        from: ModuleId,
        path: &'a [String],
        trail: &mut Trail<'a>,
    ) -> Vec<Found> {
        let Some((first, rest)) = path.split_first() else { return Vec::new() };
        match first.as_str() {
            "crate" => self.walk(0, rest, Vec::new(), trail),
            "self" => self.walk(from, rest, Vec::new(), trail),
            "super" => {
                let ups = path.iter().take_while(|segment| *segment == "super").count();
                let module = self.ancestors(from).nth(ups - 1).unwrap_or(0);
                self.walk(module, &path[ups..], Vec::new(), trail)
            }
            _ => self.in_scope(from, first, rest, trail),
        }
    }

    /// A path that starts with a name of the module's own scope.
    fn in_scope<'a>(
        &'a self,
        from: ModuleId,
        first: &'a str,
        rest: &'a [String],
        trail: &mut Trail<'a>,
    ) -> Vec<Found> {
        let mut found = Vec::new();
        for (what, _) in modules_before_path(self.named(from, first, trail), rest) {
            match what {
                What::Module(module) => found.extend(self.walk(module, rest, Vec::new(), trail)),
                other => found.push(Found { what: other, through: Vec::new() }),
            }
        }
        prefer_items(found)
    }

    /// Follows the segments down from a module.
    fn walk<'a>(
        &'a self,
        module: ModuleId,
        rest: &'a [String],
        through: Vec<ModuleId>,
        trail: &mut Trail<'a>,
    ) -> Vec<Found> {
        let Some((first, rest)) = rest.split_first() else {
            return vec![Found { what: What::Module(module), through }];
        };
        let mut found = Vec::new();
        for (what, imported) in modules_before_path(self.named(module, first, trail), rest) {
            let mut through = through.clone();
            if imported {
                through.push(module);
            }
            match what {
                What::Module(child) => found.extend(self.walk(child, rest, through, trail)),
                other => found.push(Found { what: other, through }),
            }
        }
        if found.is_empty() {
            // An item that a macro of this module generates.
            let file = self.modules[module].file;
            let what = What::Item { module, name: first.clone(), file };
            found.push(Found { what, through });
        }
        prefer_items(found)
    }

    /// The meanings of a name in a module, and whether each comes from an import.
    fn named<'a>(
        &'a self,
        module: ModuleId,
        name: &'a str,
        trail: &mut Trail<'a>,
    ) -> Vec<(What, bool)> {
        let mut found = self.declared(module, name);
        if !trail.contains(&(module, name)) {
            trail.push((module, name));
            found.extend(self.by_import(module, name, trail));
            if found.is_empty() {
                found = self.by_glob(module, name, trail);
            }
            trail.pop();
        }
        let child = |(what, imported): &(What, bool)| matches!(what, What::Module(_)) && !imported;
        if found.iter().any(child) {
            // A child module and a re-export have the same name: no import is needed.
            found.iter_mut().for_each(|(_, imported)| *imported = false);
        }
        found
    }

    fn declared(&self, module: ModuleId, name: &str) -> Vec<(What, bool)> {
        let mut found = Vec::new();
        for declared in self.modules[module].names.get(name).into_iter().flatten() {
            match declared {
                Name::Module(id) => found.push((What::Module(*id), false)),
                Name::Item(file) => {
                    let what = What::Item { module, name: name.to_owned(), file: *file };
                    found.push((what, false));
                }
                Name::Import(_) => {}
            }
        }
        found
    }

    fn by_import<'a>(
        &'a self,
        module: ModuleId,
        name: &'a str,
        trail: &mut Trail<'a>,
    ) -> Vec<(What, bool)> {
        let mut found = Vec::new();
        for declared in self.modules[module].names.get(name).into_iter().flatten() {
            if let Name::Import(path) = declared {
                let imported = self.resolve_at(module, path, trail);
                if imported.is_empty() {
                    found.push((What::Foreign, true));
                }
                found.extend(imported.into_iter().map(|found| (found.what, true)));
            }
        }
        found
    }

    fn by_glob<'a>(
        &'a self,
        module: ModuleId,
        name: &'a str,
        trail: &mut Trail<'a>,
    ) -> Vec<(What, bool)> {
        let mut found = Vec::new();
        for path in &self.modules[module].globs {
            for target in self.resolve_at(module, path, trail) {
                if let What::Module(id) = target.what
                    && id != module
                {
                    found.extend(
                        self.named(id, name, trail).into_iter().map(|(what, _)| (what, true)),
                    );
                }
            }
        }
        found
    }
}

/// Keeps only the modules, if there are any and more segments follow.
fn modules_before_path(found: Vec<(What, bool)>, rest: &[String]) -> Vec<(What, bool)> {
    let is_module = |(what, _): &(What, bool)| matches!(what, What::Module(_));
    if !rest.is_empty() && found.iter().any(is_module) {
        found.into_iter().filter(is_module).collect()
    } else {
        found
    }
}

/// Drops modules if an item has the same name.
fn prefer_items(found: Vec<Found>) -> Vec<Found> {
    let is_item = |found: &Found| matches!(found.what, What::Item { .. });
    if found.iter().any(is_item) { found.into_iter().filter(is_item).collect() } else { found }
}
