//! The dependencies between a crate's files, with the names that cause them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    references::{Kind, Reference},
    resolve::What,
    tree::{FileId, ModuleId, Tree},
};

/// From a file to another one: the names that cause the dependency, and their lines.
pub(super) type Dependencies = BTreeMap<(FileId, FileId), BTreeSet<(String, usize)>>;

/// The type that a method belongs to: its module and name.
type TypeKey = (ModuleId, String);

/// The files that have inherent methods of each type.
type Methods<'a> = HashMap<TypeKey, Vec<(&'a str, FileId)>>;

/// Every reference of the crate, with the module that it is in.
pub(super) fn references(tree: &Tree) -> impl Iterator<Item = (ModuleId, &Reference)> {
    tree.modules
        .iter()
        .enumerate()
        .flat_map(|(id, module)| module.references.iter().map(move |reference| (id, reference)))
}

/// The dependencies between the crate's files.
pub(super) fn dependencies(tree: &Tree) -> Dependencies {
    let methods = methods(tree);
    let mut dependencies = Dependencies::new();
    for (module, reference) in references(tree) {
        let from = tree.modules[module].file;
        let targets = match reference.kind {
            Kind::Path => files_of(tree, module, &reference.path),
            Kind::Glob => Vec::new(),
            Kind::SelfMethod => method_files(tree, module, &reference.path, &methods),
        };
        for to in targets.into_iter().filter(|to| *to != from) {
            let name = (reference.path.join("::"), reference.line);
            dependencies.entry((from, to)).or_default().insert(name);
        }
    }
    dependencies
}

fn files_of(tree: &Tree, module: ModuleId, path: &[String]) -> Vec<FileId> {
    let found = tree.resolve(module, path);
    found
        .into_iter()
        .filter_map(|found| match found.what {
            What::Item { file, .. } => Some(file),
            What::Module(_) | What::Foreign => None,
        })
        .collect()
}

fn methods(tree: &Tree) -> Methods<'_> {
    let mut methods = Methods::new();
    for (id, module) in tree.modules.iter().enumerate() {
        for (self_type, method) in &module.methods {
            if let Some(key) = type_key(tree, id, self_type) {
                methods.entry(key).or_default().push((method, module.file));
            }
        }
    }
    methods
}

fn type_key(tree: &Tree, module: ModuleId, self_type: &[String]) -> Option<TypeKey> {
    tree.resolve(module, self_type).into_iter().find_map(|found| match found.what {
        What::Item { module, name, .. } => Some((module, name)),
        What::Module(_) | What::Foreign => None,
    })
}

/// The files that define the method at the end of the path for the type before it.
fn method_files(
    tree: &Tree,
    module: ModuleId,
    path: &[String],
    methods: &Methods<'_>,
) -> Vec<FileId> {
    let Some((method, self_type)) = path.split_last() else { return Vec::new() };
    let known = type_key(tree, module, self_type).and_then(|key| methods.get(&key));
    known.into_iter().flatten().filter(|(name, _)| name == method).map(|(_, file)| *file).collect()
}
