//! A sample as lines for a person; pure.

use super::{
    columns::{Column, Columns},
    sample::{Activity, BackendRow, Latency, RouteRow, Sample},
    served::Served,
};
use crate::{
    cli::{
        event_text,
        io::Paint,
        output::{bytes, short, span},
    },
    control::{
        api::{BackendState, Event, Problem, State},
        count,
    },
};

/// How many problems are shown; `redirector status` has all.
const PROBLEMS: usize = 3;

/// How a piece of text is painted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Strong,
    Dim,
    Good,
    Warn,
    Bad,
}

/// A line in pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line(Vec<(Tone, String)>);

impl Line {
    pub(super) fn one(tone: Tone, text: impl Into<String>) -> Self {
        Self(vec![(tone, text.into())])
    }

    fn and(mut self, tone: Tone, text: impl Into<String>) -> Self {
        self.0.push((tone, text.into()));
        self
    }

    /// Its pieces, with what each says.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (Tone, &str)> {
        self.0.iter().map(|(tone, text)| (*tone, text.as_str()))
    }

    /// The text, cut to `width` columns, without blanks at its end.
    pub(super) fn paint(&self, paint: Paint, width: usize) -> String {
        let (mut text, mut left) = (String::new(), width);
        let last = self.0.iter().rposition(|(_, piece)| !piece.trim_end().is_empty());
        for (number, (tone, piece)) in
            self.0.iter().enumerate().take(last.map_or(0, |last| last + 1))
        {
            let piece = if Some(number) == last { piece.trim_end() } else { piece };
            let piece: String = piece.chars().take(left).collect();
            left -= piece.chars().count();
            text.push_str(&match tone {
                Tone::Plain => piece,
                Tone::Strong => paint.strong(&piece),
                Tone::Dim => paint.dim(&piece),
                Tone::Good => paint.good(&piece),
                Tone::Warn => paint.warn(&piece),
                Tone::Bad => paint.bad(&piece),
            });
        }
        text
    }
}

/// What comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Order {
    /// The routes with the most new connections
    #[default]
    Busiest,
    /// The routes with failures, ejected backends, or none
    Failing,
    /// By name
    Name,
}

impl Order {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Busiest => Self::Failing,
            Self::Failing => Self::Name,
            Self::Name => Self::Busiest,
        }
    }

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Busiest => "busiest first",
            Self::Failing => "failing first",
            Self::Name => "by name",
        }
    }

    fn sort(self, routes: &mut [RouteRow]) {
        let trouble = |row: &RouteRow| {
            (row.activity.failed_per_second + row.activity.denied_per_second, troubled(row))
        };
        match self {
            Self::Busiest => routes.sort_by(|a, b| {
                b.activity.started_per_second.total_cmp(&a.activity.started_per_second)
            }),
            Self::Failing => routes.sort_by(|a, b| {
                let ((a_rate, a_troubled), (b_rate, b_troubled)) = (trouble(a), trouble(b));
                b_rate.total_cmp(&a_rate).then(b_troubled.cmp(&a_troubled))
            }),
            Self::Name => {
                routes.sort_by(|a, b| (&a.source, a.vip.index).cmp(&(&b.source, b.vip.index)))
            }
        }
    }
}

fn troubled(row: &RouteRow) -> bool {
    row.backends.is_empty()
        || row.backends.iter().any(|backend| backend.state == BackendState::Ejected)
}

/// A screenful, whose middle can be scrolled.
pub(super) struct Page {
    pub(super) head: Vec<Line>,
    pub(super) rows: Vec<Line>,
    pub(super) foot: Vec<Line>,
}

impl Page {
    /// On a screen of `width` columns. `failures` are the last connects that have failed.
    pub(super) fn new(
        mut sample: Sample,
        problems: &[Problem],
        failures: &[Event],
        (order, width): (Order, usize),
    ) -> Self {
        order.sort(&mut sample.routes);
        let longest =
            sample.routes.iter().map(|row| row_name(row).chars().count()).max().unwrap_or_default();
        let columns = Columns::fitting(width, longest);
        let mut head = head(&sample, problems);
        head.push(Line::default());
        head.push(Line::one(Tone::Strong, columns.header()));
        let rows = sample.routes.iter().flat_map(|row| route(row, &columns)).collect();
        Self { head, rows, foot: foot(failures) }
    }

    /// Everything, for output that does not scroll.
    pub(super) fn lines(&self) -> impl Iterator<Item = &Line> {
        self.head.iter().chain(&self.rows).chain(&self.foot)
    }
}

fn head(sample: &Sample, problems: &[Problem]) -> Vec<Line> {
    let tone = if sample.state == State::Ok { Tone::Good } else { Tone::Warn };
    let (total, traffic) = (&sample.total, &sample.traffic);
    let mut rates = format!(
        "{}/s established, {}/s failed, {}/s denied; {} open, {} under way",
        number(total.established_per_second),
        number(total.failed_per_second),
        number(total.denied_per_second),
        total.open,
        total.connecting
    );
    if let Some(round_trip) = traffic.srtt_us {
        let (rx, tx) =
            (bytes(traffic.rx_bytes_per_second as u64), bytes(traffic.tx_bytes_per_second as u64));
        rates.push_str(&format!(
            "; ended: {rx}/s received, {tx}/s sent, round trip {}",
            short(round_trip * 1000)
        ));
    }
    if traffic.retransmitted_per_second > 0.0 {
        rates.push_str(&format!(
            ", {}/s segments sent again",
            number(traffic.retransmitted_per_second)
        ));
    }
    let mut lines = vec![Line::one(tone, &sample.summary), Line::one(Tone::Plain, rates)];
    let served = sample.served.as_ref().and_then(Served::line);
    lines.extend(served.map(|text| Line::one(Tone::Plain, text)));
    lines.extend(problems.iter().take(PROBLEMS).map(|problem| {
        let mark = if problem.degrades { Tone::Bad } else { Tone::Dim };
        Line::one(mark, "! ").and(Tone::Plain, &problem.message)
    }));
    let more = problems.len().saturating_sub(PROBLEMS);
    if more > 0 {
        lines.push(Line::one(
            Tone::Dim,
            format!("  and {}: see `redirector status`", count(more, "more problem")),
        ));
    }
    lines
}

fn route(row: &RouteRow, columns: &Columns) -> Vec<Line> {
    let eligible =
        row.backends.iter().filter(|backend| backend.state == BackendState::Eligible).count();
    let (tone, state) = match (eligible, row.backends.len()) {
        _ if !row.live => (Tone::Bad, "not live".to_owned()),
        (_, 0) => (Tone::Bad, "no backend".to_owned()),
        (0, all) => (
            Tone::Bad,
            format!("{} ejected", if all == 1 { "backend".into() } else { format!("all {all}") }),
        ),
        (eligible, all) if eligible < all => {
            (Tone::Warn, format!("{} of {all} ejected", all - eligible))
        }
        _ => (Tone::Good, "serving".to_owned()),
    };
    let (p50, p99, recent) = match row.latency {
        Some(Latency { p50_ns, p99_ns, recent, .. }) => (short(p50_ns), short(p99_ns), recent),
        None => ("-".into(), "-".into(), false),
    };
    let line =
        numbers(Line::one(Tone::Strong, padded(&row_name(row), columns.name)), columns, |column| {
            match column {
                Column::P50 => (if recent { Tone::Plain } else { Tone::Dim }, p50.clone()),
                Column::P99 => (if recent { Tone::Plain } else { Tone::Dim }, p99.clone()),
                other => activity(&row.activity, other),
            }
        });
    let line = line.and(tone, format!("  {state}"));
    std::iter::once(line)
        .chain(row.backends.iter().map(|backend| backend_line(backend, columns)))
        .collect()
}

fn backend_line(row: &BackendRow, columns: &Columns) -> Line {
    let name = padded(&format!("  {}", row.address), columns.name);
    // A backend has a mean only: where it stands depends on what is shown.
    let mean_at = if columns.numbers.contains(&Column::P50) { Column::P50 } else { Column::P99 };
    let line = numbers(Line::one(Tone::Plain, name), columns, |column| match column {
        column if column == mean_at => (
            Tone::Plain,
            row.mean_ns.map_or_else(|| "-".into(), |mean| format!("ø {}", short(mean))),
        ),
        Column::Deny | Column::P50 | Column::P99 => (Tone::Plain, String::new()),
        other => activity(&row.activity, other),
    });
    match row.state {
        BackendState::Eligible => line.and(Tone::Dim, "  eligible"),
        BackendState::Ejected => line.and(Tone::Warn, format!("  {}", ejected(row, columns.state))),
    }
}

/// As much detail as fits.
fn ejected(row: &BackendRow, room: usize) -> String {
    let again = row.retry_in_ms.map(|left| span(std::time::Duration::from_millis(left)));
    let failures = count(row.failures as usize, "failure");
    let whole = format!(
        "ejected, {failures}{}",
        again.as_ref().map(|left| format!(", retry in {left}")).unwrap_or_default()
    );
    if whole.chars().count() <= room {
        return whole;
    }
    again.map_or_else(|| "ejected".to_owned(), |left| format!("retry in {left}"))
}

/// A line's numbers, each in its column.
fn numbers(line: Line, columns: &Columns, of: impl Fn(Column) -> (Tone, String)) -> Line {
    columns.numbers.iter().fold(line, |line, &column| {
        let (tone, text) = of(column);
        line.and(tone, format!(" {text:>width$}", width = column.width()))
    })
}

fn activity(activity: &Activity, column: Column) -> (Tone, String) {
    let bad = |rate: f64| if rate > 0.0 { Tone::Bad } else { Tone::Plain };
    match column {
        Column::Ok => (Tone::Plain, number(activity.established_per_second)),
        Column::Fail => (bad(activity.failed_per_second), number(activity.failed_per_second)),
        Column::Deny => (bad(activity.denied_per_second), number(activity.denied_per_second)),
        Column::Wait => (Tone::Plain, activity.connecting.to_string()),
        Column::Open => (Tone::Plain, activity.open.to_string()),
        Column::P50 | Column::P99 => (Tone::Plain, String::new()),
    }
}

fn foot(failures: &[Event]) -> Vec<Line> {
    if failures.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![Line::default(), Line::one(Tone::Strong, "LAST FAILURES (TIME IN UTC)")];
    lines.extend(failures.iter().map(|event| {
        let backend = event.backend.map(|backend| format!(" → {backend}")).unwrap_or_default();
        Line::one(Tone::Plain, format!("{}  ", event.at.strftime("%T")))
            .and(Tone::Bad, format!("{:<11}", event.result.label()))
            .and(Tone::Plain, format!("  {}{backend}  ", event_text::target(event)))
            .and(Tone::Dim, event_text::process(event))
    }));
    lines
}

fn row_name(row: &RouteRow) -> String {
    match (&row.source, row.vip.ipv4) {
        (Some(source), _) => source.to_string(),
        (None, Some(vip)) => format!("{vip} (name unknown)"),
        (None, None) => format!("#{}", row.vip.index),
    }
}

/// Filled up to `width`, or cut with a mark.
fn padded(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return format!("{text:<width$}");
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

/// A rate in few digits.
fn number(rate: f64) -> String {
    match rate {
        0.0 => "0".into(),
        rate if rate < 10.0 => format!("{rate:.1}"),
        rate if rate < 99_999.5 => format!("{rate:.0}"),
        rate => format!("{:.0}k", rate / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_to_the_screen_before_it_is_coloured() {
        let line = Line::one(Tone::Bad, "abc").and(Tone::Plain, "dé").and(Tone::Dim, "   ");
        assert_eq!(line.paint(Paint(false), 80), "abcdé");
        assert_eq!(line.paint(Paint(true), 80), "\x1b[31mabc\x1b[0mdé");
        assert_eq!(line.paint(Paint(true), 4), "\x1b[31mabc\x1b[0md");
    }

    #[test]
    fn rates_are_short() {
        for (rate, words) in [
            (0.0, "0"),
            (0.25, "0.2"),
            (9.94, "9.9"),
            (12.4, "12"),
            (99_999.0, "99999"),
            (250_000.0, "250k"),
        ] {
            assert_eq!(number(rate), words);
        }
    }
}
