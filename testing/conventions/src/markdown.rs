//! Documentation: links, source paths and functions that exist, prose at 100 columns, and a length
//! limit.

use std::path::{Component, Path, PathBuf};

use crate::files::TextFile;

const MAX_COLUMNS: usize = 100;

/// Pages that must stay short, with their limit in words.
const MAX_WORDS: &[(&str, usize)] = &[("docs/ARCHITECTURE.md", 3000)];

/// One line for each violation in a Markdown file.
pub fn check(files: &[TextFile], root: &Path) -> Vec<String> {
    let mut findings = Vec::new();
    for page in files.iter().filter(|file| is_markdown(&file.path)) {
        let mut find = |line: usize, text: String| {
            findings.push(format!("{}:{line}: {text}", page.path.display()));
        };
        let limit = MAX_WORDS.iter().find(|(path, _)| page.path.ends_with(path));
        let words = page.text.split_whitespace().count();
        if let Some((_, limit)) = limit.filter(|(_, limit)| words > *limit) {
            find(1, format!("{words} words; at most {limit} are allowed"));
        }
        for (number, line) in prose(&page.text) {
            let columns = line.chars().count();
            if columns > MAX_COLUMNS && !line.starts_with('|') {
                find(number, format!("{columns} columns"));
            }
            for link in links(line).filter(|link| !resolves(link, page, files, root)) {
                find(number, format!("broken link {link}"));
            }
            for path in source_paths(line).filter(|path| !is_source(path, files)) {
                find(number, format!("no file {path}"));
            }
            for function in functions(line).filter(|function| !is_function(function, files)) {
                find(number, format!("no function {function}"));
            }
        }
    }
    findings
}

fn is_markdown(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md")
}

/// The numbered lines outside code blocks and generated parts.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let (mut code, mut generated) = (false, false);
    text.lines().enumerate().filter_map(move |(number, line)| {
        if line.trim_start().starts_with("```") {
            code = !code;
            return None;
        }
        if line.starts_with("<!--") {
            generated = line.contains("generated:");
            return None;
        }
        (!code && !generated && !line.starts_with("    ")).then_some((number + 1, line))
    })
}

/// Targets of links to files of the workspace and to headings.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target).filter(|target| !target.contains("://"))
}

fn resolves(link: &str, page: &TextFile, files: &[TextFile], root: &Path) -> bool {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let folder = page.path.parent().unwrap_or(Path::new(""));
    let target = if path.is_empty() { page.path.clone() } else { normalize(&folder.join(path)) };
    let has_anchor = || {
        let text = files.iter().find(|file| file.path == target).map(|file| file.text.as_str());
        text.is_some_and(|text| text.lines().filter_map(heading).any(|slug| slug == anchor))
    };
    root.join(&target).exists() && (anchor.is_empty() || has_anchor())
}

/// The path without `.` and `..`.
fn normalize(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

/// The anchor that a heading gets.
fn heading(line: &str) -> Option<String> {
    let title = line.strip_prefix('#')?.trim_start_matches('#').trim();
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    Some(kept.collect::<String>().to_lowercase().replace(' ', "-"))
}

/// What stands between backticks.
fn code(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Rust files that the line names between backticks.
fn source_paths(line: &str) -> impl Iterator<Item = &str> {
    code(line).filter(|span| span.ends_with(".rs") && span.contains('/') && !span.contains(' '))
}

fn is_source(path: &str, files: &[TextFile]) -> bool {
    files.iter().any(|file| file.path.ends_with(path))
}

/// Functions of Rust files that the line names between backticks, as `folder/file.rs::function`.
fn functions(line: &str) -> impl Iterator<Item = &str> {
    code(line).filter(|span| span.contains(".rs::"))
}

fn is_function(function: &str, files: &[TextFile]) -> bool {
    let Some((path, name)) = function.split_once("::") else { return false };
    let definition = format!("fn {name}(");
    files.iter().any(|file| file.path.ends_with(path) && file.text.contains(&definition))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<String> {
        let page = |path: &str, text: &str| TextFile { path: path.into(), text: text.to_owned() };
        let files = [
            page("docs/page.md", text),
            page("README.md", "# A title, too"),
            page("src/a.rs", "fn f() {}"),
        ];
        check(&files, &crate::root())
    }

    #[test]
    fn links_and_paths_must_exist() {
        assert_eq!(findings("[a](../README.md#a-title-too), `src/a.rs`, `b.rs`"), [""; 0]);
        assert_eq!(findings("[a](gone.md)"), ["docs/page.md:1: broken link gone.md"]);
        assert_eq!(findings("[a](../README.md#gone)").len(), 1);
        assert_eq!(findings("`src/a.rs::f`"), [""; 0]);
        assert_eq!(findings("`src/a.rs::g`"), ["docs/page.md:1: no function src/a.rs::g"]);
        assert_eq!(findings("`src/gone.rs`"), ["docs/page.md:1: no file src/gone.rs"]);
    }

    #[test]
    fn only_prose_is_limited_to_100_columns() {
        let long = "a".repeat(101);
        assert_eq!(findings(&format!("```\n{long}\n```\n| {long} |")), [""; 0]);
        assert_eq!(findings(&format!("\n{long}")), ["docs/page.md:2: 101 columns"]);
    }
}
