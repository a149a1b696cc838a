//! Idioms that are not used in code, comments, messages or documentation.
//!
//! They sound translated, or are private words for things that have a standard term. Each is listed
//! with its replacements. Only this file may contain them.

use crate::files::TextFile;

/// The file that this rule skips.
const OWN_PATH: &str = "testing/conventions/src/words.rs";

/// A phrase, in lower case, and its replacements.
struct Banned {
    phrase: &'static str,
    instead: &'static str,
}

const fn banned(phrase: &'static str, instead: &'static str) -> Banned {
    Banned { phrase, instead }
}

const BANNED: &[Banned] = &[
    banned("told", "a program reports, logs, prints, distinguishes; a thing is known from"),
    banned("tell", "report, show, distinguish"),
    banned("tells", "reports, shows, distinguishes"),
    banned("telling", "reporting, showing"),
    banned("amiss", "wrong, degraded; or name the fault"),
    banned("became of", "outcome, result"),
    banned("becomes of", "outcome, result"),
    banned("become of", "outcome, result"),
    banned("anew", "again"),
    banned("afresh", "again; reload, re-read"),
    banned("aside", "ejected (a backend), quarantined (a file), temporary, separate"),
    banned("whoever", "a caller, a reader, the operator"),
    banned("is to be", "must be, should be; or the fact"),
    banned("are to be", "must be, should be; or the fact"),
    banned("at hand", "available"),
    banned("say so", "report it"),
    banned("says so", "reports it"),
    banned("said so", "reported it"),
    banned("all the same", "anyway, still"),
    banned("sign of life", "heartbeat"),
    banned("signs of life", "heartbeats"),
    banned("of so many", "one in N, ratio"),
    banned("goes on", "keeps doing it, continues"),
    banned("go on", "keep doing it, continue"),
    banned("went on", "kept doing it, continued"),
    banned("by itself", "alone, automatically, on its own"),
];

/// One line for each occurrence: `path:line: "phrase": write …`.
pub fn check(files: &[TextFile]) -> Vec<String> {
    let own = |file: &&TextFile| !file.path.ends_with(OWN_PATH);
    files.iter().filter(own).flat_map(check_file).collect()
}

fn check_file(file: &TextFile) -> Vec<String> {
    // The changelog's table of renamed words contains the old ones.
    let is_changelog = file.path.ends_with("CHANGELOG.md");
    let words = words(&file.text, |line| !(is_changelog && line.starts_with('|')));
    let mut findings = Vec::new();
    for at in 0..words.len() {
        for Banned { phrase, instead } in BANNED {
            if starts_with(&words[at..], phrase) {
                let (path, line) = (file.path.display(), words[at].line);
                findings.push(format!("{path}:{line}: \"{phrase}\": write {instead}"));
            }
        }
    }
    findings
}

/// A word in lower case; an empty one stands for punctuation that ends a phrase.
struct Word {
    text: String,
    line: usize,
}

fn starts_with(words: &[Word], phrase: &str) -> bool {
    let mut words = words.iter();
    phrase.split(' ').all(|part| words.next().is_some_and(|word| word.text == part))
}

/// Splits prose, `snake_case` and `CamelCase` into words. Skips lines that are not read; a phrase
/// may span the lines of a comment.
fn words(text: &str, is_read: impl Fn(&str) -> bool) -> Vec<Word> {
    let mut words = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| is_read(line)) {
        let line = line.trim_start().trim_start_matches(['/', '!', '#', '*', '>']);
        let mut current = String::new();
        for character in line.chars().chain([' ']) {
            let starts_new = character.is_uppercase() && current.ends_with(char::is_lowercase);
            if (!character.is_alphanumeric() || starts_new) && !current.is_empty() {
                let text = std::mem::take(&mut current).to_lowercase();
                words.push(Word { text, line: number + 1 });
            }
            if character.is_alphanumeric() {
                current.push(character);
            } else if matches!(character, '.' | ',' | ';' | ':' | '(' | ')' | '{' | '}' | '"') {
                words.push(Word { text: String::new(), line: number + 1 });
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<String> {
        check(&[TextFile { path: "file.rs".into(), text: text.to_owned() }])
    }

    #[test]
    fn a_phrase_is_found_in_prose_and_in_identifiers() {
        assert_eq!(findings("It tells why.").len(), 1);
        assert_eq!(findings("let set_aside = SetAside::new();").len(), 2);
        assert_eq!(findings("fn a_moment() {}\n\nWhoever asks").len(), 1);
    }

    #[test]
    fn a_phrase_is_found_across_the_lines_of_a_comment() {
        let found = findings("/// The address is to\n/// be X.\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("file.rs:1: \"is to be\""), "{found:?}");
    }

    #[test]
    fn parts_of_words_and_phrases_across_a_full_stop_are_not_found() {
        assert_eq!(findings("retold, besides; it says. So it is"), Vec::<String>::new());
    }
}
