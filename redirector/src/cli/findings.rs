//! What `verify` and `explain` found: causes, each with the next step.

use std::io;

use super::{
    io::{Env, Paint},
    output::indented,
};
use crate::verify::Finding;

/// Causes with what to do next.
pub(super) fn print_findings(env: &mut Env<'_>, findings: &[Finding]) -> io::Result<()> {
    let paint = Paint(env.colour);
    for finding in findings {
        let mark = if finding.prevents { paint.bad("!") } else { paint.dim("-") };
        writeln!(env.out, "{mark} {}", indented(&finding.cause))?;
        if let Some(next) = &finding.next {
            writeln!(env.out, "    {}", paint.dim(next))?;
        }
    }
    Ok(())
}
