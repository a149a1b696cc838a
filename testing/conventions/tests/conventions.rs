//! The workspace keeps its own rules.

/// Violations that are still there, by rule; the numbers only fall.
const KNOWN: &[(&str, usize)] = &[("words", 604), ("lines", 163), ("tests", 120)];

#[track_caller]
fn holds(name: &str) {
    let (_, find) = conventions::RULES.iter().find(|(rule, _)| *rule == name).unwrap();
    let violations = find().unwrap();
    let known = KNOWN.iter().find(|(rule, _)| *rule == name).map_or(0, |(_, count)| *count);
    assert!(
        violations.len() <= known,
        "{} violations, {known} are known (`cargo run -p conventions {name} PATH` lists those \
         below a path):\n{}",
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
