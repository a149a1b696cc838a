//! A crate's modules: where each is, the names it declares and the paths it uses.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use super::references::{self, Collected, Reference};

/// The origin of the files' text: the disk, or a test's fixture.
pub trait Source {
    /// The file's text, or `None` if there is no such file.
    fn read(&self, path: &Path) -> Option<String>;
}

/// Reads files from the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Disk;

impl Source for Disk {
    fn read(&self, path: &Path) -> Option<String> {
        fs::read_to_string(path).ok()
    }
}

pub(super) type ModuleId = usize;
pub(super) type FileId = usize;

/// The files and modules of a crate; the root module comes first.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) files: Vec<PathBuf>,
    pub(super) modules: Vec<Module>,
}

#[derive(Debug)]
pub(super) struct Module {
    pub(super) name: String,
    pub(super) parent: Option<ModuleId>,
    pub(super) file: FileId,
    /// A module and a function may share a name.
    pub(super) names: HashMap<String, Vec<Name>>,
    /// The paths of its glob imports.
    pub(super) globs: Vec<Vec<String>>,
    pub(super) references: Vec<Reference>,
    /// Inherent methods: the type's path as the `impl` block names it, and the method.
    pub(super) methods: Vec<(Vec<String>, String)>,
}

/// The meaning of a name in a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Module(ModuleId),
    Item(FileId),
    Import(Vec<String>),
}

/// Where the files of a module's children are.
struct Location {
    /// The folder for `mod child;`.
    folder: PathBuf,
    /// The folder that `#[path]` starts from.
    path_base: PathBuf,
}

impl Tree {
    /// Reads the crate whose root file is given.
    pub(super) fn read(root: &Path, source: &dyn Source) -> anyhow::Result<Self> {
        let mut tree = Self::default();
        let folder = root.parent().unwrap_or(Path::new("")).to_owned();
        let location = Location { path_base: folder.clone(), folder };
        tree.add_file(root, String::new(), None, &location, source)?;
        Ok(tree)
    }

    fn add_file(
        &mut self,
        path: &Path,
        name: String,
        parent: Option<ModuleId>,
        location: &Location,
        source: &dyn Source,
    ) -> anyhow::Result<ModuleId> {
        let text = source.read(path).with_context(|| format!("no file {}", path.display()))?;
        let syntax = syn::parse_file(&text)
            .with_context(|| format!("failed to parse {}", path.display()))?;
        self.files.push(path.to_owned());
        let file = self.files.len() - 1;
        self.add_module((name, parent, file), &syntax.items, location, source)
    }

    fn add_module(
        &mut self,
        (name, parent, file): (String, Option<ModuleId>, FileId),
        items: &[syn::Item],
        location: &Location,
        source: &dyn Source,
    ) -> anyhow::Result<ModuleId> {
        let Collected { names, macros, imports, globs, references, methods, children } =
            references::collect(items);
        let mut declared: HashMap<String, Vec<Name>> = HashMap::new();
        for name in names {
            declared.entry(name).or_default().push(Name::Item(file));
        }
        for (name, path) in imports {
            declared.entry(name).or_default().push(Name::Import(path));
        }
        let id = self.modules.len();
        let module = Module { name, parent, file, names: declared, globs, references, methods };
        self.modules.push(module);
        for name in macros {
            // An exported macro belongs to the root, wherever it is written.
            self.modules[0].names.entry(name).or_default().push(Name::Item(file));
        }
        for child in children {
            let added = self.add_child(&child, (id, file), location, source)?;
            self.modules[id].names.entry(child.ident.to_string()).or_default().push(added);
        }
        Ok(id)
    }

    fn add_child(
        &mut self,
        child: &syn::ItemMod,
        (parent, file): (ModuleId, FileId),
        location: &Location,
        source: &dyn Source,
    ) -> anyhow::Result<Name> {
        let name = child.ident.to_string();
        if let Some((_, items)) = &child.content {
            let folder = location.folder.join(&name);
            let inner = Location { path_base: folder.clone(), folder };
            let id = self.add_module((name, Some(parent), file), items, &inner, source)?;
            return Ok(Name::Module(id));
        }
        let (path, folder) = find_file(child, &name, location, source)?;
        let path_base = path.parent().unwrap_or(Path::new("")).to_owned();
        let inner = Location { folder, path_base };
        let id = self.add_file(&path, name, Some(parent), &inner, source)?;
        Ok(Name::Module(id))
    }

    /// The modules above this one, nearest first.
    pub(super) fn ancestors(&self, module: ModuleId) -> impl Iterator<Item = ModuleId> {
        std::iter::successors(self.modules[module].parent, |id| self.modules[*id].parent)
    }

    /// The name of the top-level module that contains this one; `None` for the root.
    pub(super) fn top_level(&self, module: ModuleId) -> Option<&str> {
        let chain: Vec<_> = std::iter::once(module).chain(self.ancestors(module)).collect();
        let below_root = chain.len().checked_sub(2)?;
        Some(&self.modules[chain[below_root]].name)
    }
}

/// The file of `mod name;`, and the folder of its own children.
fn find_file(
    child: &syn::ItemMod,
    name: &str,
    location: &Location,
    source: &dyn Source,
) -> anyhow::Result<(PathBuf, PathBuf)> {
    if let Some(relative) = references::path_attribute(&child.attrs) {
        let path = location.path_base.join(relative);
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        return Ok((path, folder));
    }
    let folder = location.folder.join(name);
    for path in [location.folder.join(format!("{name}.rs")), folder.join("mod.rs")] {
        if source.read(&path).is_some() {
            return Ok((path, folder));
        }
    }
    bail!("no file for `mod {name};` in {}", location.folder.display())
}
