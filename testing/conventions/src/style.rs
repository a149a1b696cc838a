//! Limits that rustfmt and clippy do not check.

use crate::files::TextFile;

/// rustfmt's width; it leaves strings and comments as they are.
const MAX_COLUMNS: usize = 100;

/// A test's name is a short fact.
const MAX_TEST_NAME: usize = 60;

/// One line for each line of Rust that is too long.
pub fn long_lines(files: &[TextFile]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        for (number, line) in file.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > MAX_COLUMNS {
                let path = file.path.display();
                findings.push(format!("{path}:{}: {columns} columns", number + 1));
            }
        }
    }
    findings
}

/// One line for each test whose name is too long.
pub fn long_test_names(files: &[TextFile]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        for (number, name) in tests(&file.text) {
            if name.len() > MAX_TEST_NAME {
                let path = file.path.display();
                findings.push(format!("{path}:{number}: {} characters: {name}", name.len()));
            }
        }
    }
    findings
}

/// The functions with a test attribute, also those in a macro's arguments.
fn tests(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut attribute = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let marks_test = line.starts_with("#[") && line.contains("test") && !line.contains("cfg");
        if marks_test && (line.contains("test]") || line.contains("test(")) {
            attribute = true;
        } else if let Some((_, rest)) = line.split_once("fn ")
            && attribute
        {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            found.push((number + 1, &rest[..end]));
            attribute = false;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: String) -> Vec<TextFile> {
        vec![TextFile { path: "file.rs".into(), text }]
    }

    #[test]
    fn only_lines_over_the_limit_are_too_long() {
        let text = format!("{}\n{}\n", "ä".repeat(100), "a".repeat(101));
        assert_eq!(long_lines(&file(text)), ["file.rs:2: 101 columns"]);
    }

    #[test]
    fn only_tests_names_are_limited() {
        let name = "n".repeat(61);
        let text = format!("#[tokio::test]\nasync fn {name}() {{}}\n\nfn {name}_helper() {{}}\n");
        assert_eq!(long_test_names(&file(text)), [format!("file.rs:2: 61 characters: {name}")]);
    }
}
