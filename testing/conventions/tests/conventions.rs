//! The workspace keeps its own rules.

#[track_caller]
fn holds(name: &str) {
    let (_, find) = conventions::RULES.iter().find(|(rule, _)| *rule == name).unwrap();
    let violations = find().unwrap();
    assert!(
        violations.is_empty(),
        "{} violations (`cargo run -p conventions {name} PATH` lists those below a path):\n{}",
        violations.len(),
        violations.join("\n")
    );
}

#[test]
fn no_crate_has_a_module_cycle_or_an_upward_import() {
    holds("modules");
}

#[test]
fn no_text_has_a_banned_idiom() {
    holds("words");
}

#[test]
fn no_line_of_rust_is_over_100_columns() {
    holds("lines");
}

#[test]
fn pages_are_short_and_their_links_exist() {
    holds("docs");
}

#[test]
fn no_test_name_is_over_60_characters() {
    holds("tests");
}

#[test]
fn no_unsafe_code_ships_uncounted() {
    holds("unsafe");
}
