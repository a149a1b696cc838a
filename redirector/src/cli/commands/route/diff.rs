//! A difference between two sets of routes, as `import`, `history` and `rollback` print it.

use crate::{
    cli::io::{Env, Paint},
    control::api::{Differing, Imported},
    route::{RouteChange, RouteDiff},
};

/// One line per route that changes, its keys below it, and the sum.
pub(super) fn print_diff(env: &mut Env<'_>, imported: &Imported) -> std::io::Result<()> {
    let paint = Paint(env.colour);
    let changed = imported
        .changed
        .iter()
        .map(|Differing { old, new }| RouteChange { old: old.clone(), new: new.clone() });
    let diff = RouteDiff {
        added: imported.added.clone(),
        changed: changed.collect(),
        removed: imported.removed.clone(),
        unchanged: imported.unchanged,
    };
    for line in diff.to_string().lines() {
        let line = match line.get(..2) {
            Some("+ ") => paint.good(line),
            Some("~ ") => paint.warn(line),
            Some("- ") => paint.bad(line),
            _ => line.to_owned(),
        };
        writeln!(env.out, "{line}")?;
    }
    if imported.dry_run {
        writeln!(env.out, "dry run: nothing was changed")?;
    }
    Ok(())
}
