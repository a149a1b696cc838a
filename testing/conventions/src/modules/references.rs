//! The names that one module declares, and the paths that it uses.

use std::path::PathBuf;

use proc_macro2::TokenStream;
use syn::{
    Attribute, Expr, ImplItem, Item, Meta, Type, UseTree,
    ext::IdentExt as _,
    visit::{self, Visit},
};

use super::tokens::{self, Used};

/// A path as it is written in a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) path: Vec<String>,
    pub(super) line: usize,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A path in a `use` declaration, an expression, a type.
    Path,
    /// `use path::*`.
    Glob,
    /// A method that is called on `self` or `Self`; the path is the type of the `impl` block, then
    /// the method.
    SelfMethod,
}

/// The declarations and paths of one module, without its child modules.
#[derive(Default)]
pub(super) struct Collected {
    pub(super) names: Vec<String>,
    /// Macros under `#[macro_export]`.
    pub(super) macros: Vec<String>,
    pub(super) imports: Vec<(String, Vec<String>)>,
    pub(super) globs: Vec<Vec<String>>,
    pub(super) references: Vec<Reference>,
    pub(super) methods: Vec<(Vec<String>, String)>,
    pub(super) children: Vec<syn::ItemMod>,
}

/// Reads the items of a module.
pub(super) fn collect(items: &[Item]) -> Collected {
    let mut collector = Collector::default();
    for item in items.iter().filter(|item| !only_for_tests(attributes(item))) {
        collector.declare(item);
        collector.visit_item(item);
    }
    collector.collected
}

/// The file that `#[path = "…"]` names.
pub(super) fn path_attribute(attributes: &[Attribute]) -> Option<PathBuf> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value().into()),
            _ => None,
        },
        _ => None,
    })
}

#[derive(Default)]
struct Collector {
    collected: Collected,
    /// The type of the enclosing `impl` block, if it is a path.
    self_type: Option<Vec<String>>,
}

impl Collector {
    fn declare(&mut self, item: &Item) {
        let ident = match item {
            Item::Const(item) => &item.ident,
            Item::Enum(item) => &item.ident,
            Item::Fn(item) => &item.sig.ident,
            Item::Static(item) => &item.ident,
            Item::Struct(item) => &item.ident,
            Item::Trait(item) => &item.ident,
            Item::TraitAlias(item) => &item.ident,
            Item::Type(item) => &item.ident,
            Item::Union(item) => &item.ident,
            Item::Macro(syn::ItemMacro { ident: Some(ident), attrs, .. }) => {
                if attrs.iter().any(|attribute| attribute.path().is_ident("macro_export")) {
                    self.collected.macros.push(ident.to_string());
                }
                ident
            }
            _ => return,
        };
        self.collected.names.push(ident.unraw().to_string());
    }

    fn add(&mut self, path: Vec<String>, line: usize, kind: Kind) {
        self.collected.references.push(Reference { path, line, kind });
    }

    fn add_path(&mut self, path: Vec<String>, line: usize) {
        match (&*path, &self.self_type) {
            ([own, method, ..], Some(self_type)) if own == "Self" => {
                let path = [&self_type[..], std::slice::from_ref(method)].concat();
                self.add(path, line, Kind::SelfMethod);
            }
            _ => self.add(path, line, Kind::Path),
        }
    }

    fn add_self_method(&mut self, method: String, line: usize) {
        if let Some(self_type) = &self.self_type {
            let path = [&self_type[..], &[method]].concat();
            self.add(path, line, Kind::SelfMethod);
        }
    }

    fn add_use(&mut self, tree: &UseTree, prefix: &[String]) {
        match tree {
            UseTree::Path(inner) => {
                let prefix = [prefix, &[inner.ident.unraw().to_string()]].concat();
                self.add_use(&inner.tree, &prefix);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_use(tree, prefix);
                }
            }
            UseTree::Name(name) => self.add_import(prefix, &name.ident, &name.ident),
            UseTree::Rename(rename) => self.add_import(prefix, &rename.ident, &rename.rename),
            UseTree::Glob(glob) => {
                let line = glob.star_token.spans[0].start().line;
                self.add(prefix.to_vec(), line, Kind::Glob);
                self.collected.globs.push(prefix.to_vec());
            }
        }
    }

    fn add_import(&mut self, prefix: &[String], ident: &syn::Ident, name: &syn::Ident) {
        let line = ident.span().start().line;
        let (path, name) = if ident == "self" {
            let last = prefix.last().cloned().unwrap_or_default();
            (prefix.to_vec(), if name == "self" { last } else { name.to_string() })
        } else {
            ([prefix, &[ident.unraw().to_string()]].concat(), name.unraw().to_string())
        };
        self.add(path.clone(), line, Kind::Path);
        self.collected.imports.push((name, path));
    }

    /// Paths in the tokens of a macro's or an attribute's arguments.
    fn add_tokens(&mut self, stream: TokenStream) {
        for (used, line) in tokens::uses(stream) {
            match used {
                Used::Path(path) => self.add_path(path, line),
                Used::SelfMethod(method) => self.add_self_method(method, line),
            }
        }
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item(&mut self, item: &'ast Item) {
        if !only_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.collected.children.push(module.clone());
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if item.leading_colon.is_none() {
            self.add_use(&item.tree, &[]);
        }
    }

    fn visit_item_impl(&mut self, block: &'ast syn::ItemImpl) {
        let self_type = match &*block.self_ty {
            Type::Path(path) if path.qself.is_none() => Some(segments(&path.path)),
            _ => None,
        };
        if let (None, Some(self_type)) = (&block.trait_, &self_type) {
            for item in &block.items {
                if let ImplItem::Fn(method) = item {
                    let name = method.sig.ident.unraw().to_string();
                    self.collected.methods.push((self_type.clone(), name));
                }
            }
        }
        let outer = std::mem::replace(&mut self.self_type, self_type);
        visit::visit_item_impl(self, block);
        self.self_type = outer;
    }

    fn visit_impl_item_fn(&mut self, method: &'ast syn::ImplItemFn) {
        if !only_for_tests(&method.attrs) {
            visit::visit_impl_item_fn(self, method);
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if matches!(&*call.receiver, Expr::Path(path) if path.path.is_ident("self")) {
            self.add_self_method(call.method.unraw().to_string(), call.method.span().start().line);
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            let line = path.segments[0].ident.span().start().line;
            self.add_path(segments(path), line);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.add_tokens(call.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        match &attribute.meta {
            Meta::List(list) => self.add_tokens(list.tokens.clone()),
            Meta::NameValue(_) | Meta::Path(_) => {}
        }
    }
}

fn segments(path: &syn::Path) -> Vec<String> {
    path.segments.iter().map(|segment| segment.ident.unraw().to_string()).collect()
}

/// Whether the attributes contain `cfg(test)`, or a `cfg(all(…))` with `test` among its conditions.
fn only_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            let condition = list.tokens.to_string().replace(' ', "");
            condition == "test" || condition.starts_with("all(test,")
        }
        _ => false,
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
