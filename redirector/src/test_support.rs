//! Pages of docs/reference that are generated: each has a part between two marks, which a test
//! keeps equal to the code.

use std::path::PathBuf;

const BEGIN: &str = "<!-- generated: REDIRECTOR_BLESS=1 cargo test -p redirector reference -->\n";
const END: &str = "<!-- end of what is generated -->\n";

/// Asserts that the generated part of docs/reference/`page` is `text`. With REDIRECTOR_BLESS=1 in
/// the environment it is written instead.
#[track_caller]
pub(crate) fn assert_generated(page: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/reference").join(page);
    let whole = std::fs::read_to_string(&path).unwrap_or_default();
    let (before, rest) =
        whole.split_once(BEGIN).unwrap_or_else(|| panic!("{} has no line {BEGIN}", path.display()));
    let (old, after) =
        rest.split_once(END).unwrap_or_else(|| panic!("{} has no line {END}", path.display()));
    let new = format!("\n{text}\n");
    if std::env::var_os("REDIRECTOR_BLESS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{new}{END}{after}")).expect("written");
    } else {
        assert_eq!(
            old,
            new,
            "{} is not what the code says: REDIRECTOR_BLESS=1 cargo test -p redirector reference",
            path.display()
        );
    }
}
