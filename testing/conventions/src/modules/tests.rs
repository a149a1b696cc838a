//! The rules, on small crates that have one fault or none.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use super::{rules::check_source, tree::Source};

struct Fixture(HashMap<PathBuf, String>);

impl Source for Fixture {
    fn read(&self, path: &Path) -> Option<String> {
        self.0.get(path).cloned()
    }
}

/// The findings for a crate of these files, `lib.rs` among them, as one text.
fn findings(files: &[(&str, &str)]) -> String {
    let fixture = Fixture(
        files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect(),
    );
    let findings = check_source(Path::new("lib.rs"), Path::new(""), &fixture).unwrap();
    findings.iter().map(|finding| format!("{finding}\n")).collect()
}

#[test]
fn two_files_that_import_each_other_are_a_cycle() {
    let found = findings(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "use crate::b::B; pub struct A(B);"),
        ("b.rs", "pub struct B; fn f() { super::a::A::new(); }"),
    ]);
    assert!(found.contains("cycle of 2 files"), "{found}");
    assert!(found.contains("a.rs -> b.rs: crate::b::B (line 1)"), "{found}");
    assert!(found.contains("cycle of top-level modules: a, b"), "{found}");
}

#[test]
fn a_re_export_is_followed_to_the_file_that_defines_the_item() {
    let found = findings(&[
        ("lib.rs", "mod user; mod face;"),
        ("user.rs", "use crate::face::{self, Deep}; fn f(d: Deep) { face::g(d) }"),
        ("face/mod.rs", "mod deep; pub use self::deep::*;"),
        ("face/deep.rs", "pub struct Deep; pub fn g(_: Deep) { crate::user::f }"),
    ]);
    assert!(found.contains("user.rs -> face/deep.rs: crate::face::Deep"), "{found}");
    assert!(!found.contains("face/mod.rs"), "{found}");
}

#[test]
fn a_function_called_through_its_module_counts() {
    let found = findings(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "use super::b; pub fn f() { b::g() }"),
        ("b.rs", "use super::a; pub fn g() { a::f() }"),
    ]);
    assert!(found.contains("a.rs -> b.rs: b::g (line 1)"), "{found}");
}

#[test]
fn a_mod_rs_that_only_re_exports_is_in_no_cycle() {
    let found = findings(&[
        ("lib.rs", "mod face; mod user;"),
        ("face/mod.rs", "mod one; mod two; pub use self::{one::One, two::Two};"),
        ("face/one.rs", "use super::two::Two; pub struct One(Two);"),
        ("face/two.rs", "pub struct Two;"),
        ("user.rs", "use crate::face::{One, Two};"),
    ]);
    assert_eq!(found, "");
}

#[test]
fn importing_a_siblings_item_from_mod_rs_is_upward() {
    let found = findings(&[
        ("lib.rs", "mod face;"),
        ("face/mod.rs", "mod one; mod two; pub use self::two::Two;"),
        ("face/one.rs", "use super::Two;"),
        ("face/two.rs", "pub struct Two;"),
    ]);
    assert_eq!(found, "face/one.rs:1: `super::Two` is only re-exported by face/mod.rs, above\n");
}

#[test]
fn an_item_of_the_root_is_an_upward_import() {
    let found = findings(&[
        ("lib.rs", "mod a; const LIMIT: u8 = 1;"),
        ("a.rs", "fn f() -> u8 { println!(\"{}\", crate::LIMIT) }"),
    ]);
    assert_eq!(found, "a.rs:1: `crate::LIMIT` is defined above, in lib.rs\n");
}

#[test]
fn a_glob_import_of_the_parent_is_upward_except_in_tests() {
    let files = |attribute: &str| {
        findings(&[
            ("lib.rs", "mod a; "),
            ("a.rs", &format!("{attribute} mod inner; fn f() {{}}")),
            ("a/inner.rs", "use super::*; fn g() { f() }"),
        ])
    };
    assert!(files("").contains("imports everything from a.rs"), "{}", files(""));
    assert_eq!(files("#[cfg(test)]"), "");
}

#[test]
fn methods_that_call_each_other_across_files_are_a_cycle() {
    let found = findings(&[
        ("lib.rs", "mod owner; mod more;"),
        ("owner.rs", "pub struct Owner; impl Owner { fn run(&self) { self.reload() } }"),
        ("more.rs", "use crate::owner::Owner; impl Owner { pub fn reload(&self) {} }"),
    ]);
    assert!(found.contains("owner.rs -> more.rs: Owner::reload"), "{found}");
}

#[test]
fn an_inline_module_belongs_to_its_file() {
    let found = findings(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "pub mod inner { use super::X; } struct X; use crate::b::B;"),
        ("b.rs", "pub struct B;"),
    ]);
    assert_eq!(found, "");
}

#[test]
fn a_path_attribute_and_an_exported_macro_are_resolved() {
    let found = findings(&[
        ("lib.rs", "#[path = \"other/name.rs\"] mod a; mod b;"),
        ("other/name.rs", "#[macro_export] macro_rules! twice { () => {} } use crate::b::B;"),
        ("b.rs", "pub struct B; fn f() { crate::twice!() }"),
    ]);
    assert!(found.contains("b.rs -> other/name.rs: crate::twice"), "{found}");
}

#[test]
fn a_path_in_an_attribute_counts() {
    let found = findings(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "struct S { #[serde(with = \"crate::b::seconds\")] t: u8 } pub struct A;"),
        ("b.rs", "pub mod seconds {} use crate::a::A; pub fn seconds() {}"),
    ]);
    assert!(found.contains("a.rs -> b.rs: crate::b::seconds"), "{found}");
}

#[test]
fn a_child_module_named_like_a_function_is_no_re_export() {
    let found = findings(&[
        ("lib.rs", "mod face;"),
        ("face/mod.rs", "mod one; mod two; use self::two::{two, self}; pub fn one() { two() }"),
        ("face/one.rs", "use super::{two, two::Two};"),
        ("face/two.rs", "pub struct Two; pub fn two() {}"),
    ]);
    assert_eq!(found, "");
}
