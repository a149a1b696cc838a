//! Globs, in the configuration and wherever it is applied.

/// Whether a pattern is more than a name or a path.
pub(crate) fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

/// Whether a glob matches a text. Globs were checked with the configuration.
pub(crate) fn is_match(glob: &str, text: &str) -> bool {
    glob::Pattern::new(glob).is_ok_and(|glob| glob.matches(text))
}
