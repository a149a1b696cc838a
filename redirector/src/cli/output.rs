//! Output formats: tables for a person, JSON and YAML with the shapes of [`crate::control::api`].

use std::{io::Write, time::Duration};

use anyhow::Context;
use clap::{Args, ValueEnum};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::io::Env;

/// How what was read is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A table
    #[default]
    Table,
    /// One JSON object, documented in docs/reference/api.md
    Json,
    /// The same as YAML
    Yaml,
}

/// `-o table|json|yaml`.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(super) struct OutputArgs {
    /// Output format
    #[arg(
        short = 'o',
        long = "output",
        value_enum,
        value_name = "FORMAT",
        default_value_t = Format::Table
    )]
    pub(super) format: Format,
}

impl OutputArgs {
    /// Prints `value`, or what `table` writes.
    pub(super) fn print(
        self,
        env: &mut Env<'_>,
        value: &impl Serialize,
        table: impl FnOnce(&mut Env<'_>) -> std::io::Result<()>,
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Table => table(env)?,
            Format::Json => writeln!(
                env.out,
                "{}",
                serde_json::to_string_pretty(value).context("failed to write JSON")?
            )?,
            Format::Yaml => write!(
                env.out,
                "{}",
                serde_yaml_ng::to_string(value).context("failed to write YAML")?
            )?,
        }
        env.out.flush()?;
        Ok(())
    }
}

/// An empty table without borders, two blanks between columns.
pub(super) fn table<const N: usize>(env: &Env<'_>, header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec());
    match env.width {
        Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    if env.colour {
        table.enforce_styling()
    } else {
        table.force_no_tty()
    };
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// Writes a table without the blanks at the end of lines.
pub(super) fn write_table(out: &mut dyn Write, table: &Table) -> std::io::Result<()> {
    table.lines().try_for_each(|line| writeln!(out, "{}", line.trim_end()))
}

/// A length of time for a person: its two largest units.
pub(super) fn span(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0 => format!("{} ms", length.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86400, seconds % 86400 / 3600),
    }
}

/// A short time, given in nanoseconds, for a person: three digits at most.
pub(super) fn short(nanoseconds: u64) -> String {
    let microseconds = nanoseconds as f64 / 1e3;
    match nanoseconds {
        0..9_995 => format!("{microseconds:.1} µs"),
        9_995..999_500 => format!("{microseconds:.0} µs"),
        999_500..9_995_000 => format!("{:.1} ms", microseconds / 1e3),
        9_995_000..999_500_000 => format!("{:.0} ms", microseconds / 1e3),
        999_500_000..60_000_000_000 => format!("{:.1} s", microseconds / 1e6),
        _ => span(Duration::from_nanos(nanoseconds)),
    }
}

/// Text of several lines below a mark: the first line stands beside it.
pub(super) fn indented(text: &str) -> String {
    text.replace('\n', "\n    ")
}

/// A number of bytes for a person.
pub(super) fn bytes(number: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{number} B") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_formatted() {
        let spans = [
            (250, "250 ms"),
            (3_000, "3 s"),
            (61_000, "1 min 1 s"),
            (7_260_000, "2 h 1 min"),
            (180_000_000, "2 d 2 h"),
        ];
        for (milliseconds, words) in spans {
            assert_eq!(span(Duration::from_millis(milliseconds)), words);
        }
        let shorts = [
            (850, "0.8 µs"),
            (412_000, "412 µs"),
            (1_234_000, "1.2 ms"),
            (87_000_000, "87 ms"),
            (3_100_000_000, "3.1 s"),
        ];
        for (nanoseconds, words) in shorts {
            assert_eq!(short(nanoseconds), words);
        }
        for (number, words) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(number), words);
        }
    }
}
