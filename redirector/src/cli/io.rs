//! A command's streams and variables, injected so that a test can call each command.

use std::io::{self, IsTerminal, Read, Write};

use crate::agent;

/// Streams and variables of one invocation.
pub struct Env<'a> {
    /// Standard input.
    pub input: &'a mut dyn Read,
    /// Standard output, for data.
    pub out: &'a mut dyn Write,
    /// Standard error, for messages.
    pub err: &'a mut dyn Write,
    /// Whether standard output is a terminal that takes colours.
    pub colour: bool,
    /// The width of that terminal in columns; none when there is no terminal.
    pub width: Option<u16>,
    /// The environment's variables.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Env<'_> {
    /// Writes a warning on standard error.
    pub(crate) fn warn(&mut self, warning: &str) -> io::Result<()> {
        writeln!(self.err, "redirector: warning: {warning}")
    }
}

/// Runs `body` with the process's own streams and variables.
pub fn with_real<T>(body: impl FnOnce(&mut Env<'_>) -> T) -> T {
    let variable = |name: &str| std::env::var(name).ok();
    let terminal = io::stdout().is_terminal();
    let colour = terminal && takes_colour(&variable);
    let width = terminal
        .then(|| rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| size.ws_col))
        .flatten();
    let (mut input, mut out, mut err) = (io::stdin(), io::stdout(), agent::StandardError);
    let result = body(&mut Env {
        input: &mut input,
        out: &mut out,
        err: &mut err,
        colour,
        width: width.filter(|&columns| columns > 0),
        variable: &variable,
    });
    agent::flush_log();
    result
}

/// <https://no-color.org>: any non-empty NO_COLOR turns colours off; so does a dumb terminal.
pub fn takes_colour(variable: &dyn Fn(&str) -> Option<String>) -> bool {
    variable("NO_COLOR").is_none_or(|value| value.is_empty())
        && variable("TERM").is_none_or(|term| term != "dumb")
}

/// Colours for single words outside of tables; plain text when there is no terminal.
#[derive(Clone, Copy, Debug)]
pub struct Paint(pub bool);

impl Paint {
    /// Green: good.
    pub fn good(self, text: &str) -> String {
        self.wrap(text, "32")
    }

    /// Yellow: a warning.
    pub fn warn(self, text: &str) -> String {
        self.wrap(text, "33")
    }

    /// Red: wrong.
    pub fn bad(self, text: &str) -> String {
        self.wrap(text, "31")
    }

    /// Bold.
    pub fn strong(self, text: &str) -> String {
        self.wrap(text, "1")
    }

    /// Dim.
    pub fn dim(self, text: &str) -> String {
        self.wrap(text, "2")
    }

    fn wrap(self, text: &str, code: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
