//! The compiler's flags for what ships.

use testbed::workspace;

/// The compiler's flags: a static link, and nothing of where it was built.
pub(crate) fn of_release() -> String {
    format!("-C\u{1f}target-feature=+crt-static\u{1f}{}", without_paths().join("\u{1f}"))
}

/// Flags that replace this machine's folders in what is compiled, so that two clones give the same
/// bytes.
pub(crate) fn without_paths() -> Vec<String> {
    let replaced = [
        // The last match wins, and the target directory is usually below the workspace.
        (workspace::root(), "/redirector"),
        (workspace::target_dir(), "/redirector/target"),
        (workspace::cargo_home(), "/cargo"),
    ];
    let flags =
        replaced.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
    flags.collect()
}
