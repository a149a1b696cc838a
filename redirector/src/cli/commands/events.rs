//! `redirector events`: the outcome of each connect, as the kernel saw it.

use std::io;

use clap::{Args, ValueEnum};

use crate::{
    cli::{
        agent_paths,
        context::{Context, block_on},
        event_text,
        exit::Exit,
        io::{Env, Paint},
        output::short,
    },
    control::{
        Client, KEPT,
        api::{Event, EventLine, EventQuery, EventResult, Lost, LostBy},
        count,
    },
    route::SourceName,
};

/// How many past events `--follow` prints first.
const BEFORE: usize = 10;

/// `events`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector events                           the last events, 1000 at most
  redirector events --follow                  and new ones, until interrupted
  redirector events -f --route artifactory.internal.company.net
  redirector events -f --failed               failures only
  redirector events -f -o json --result timed_out | jq -c '[.at, .backend]'
  redirector events -f -n 0 --count 1 --failed    wait for the next failure

A connection has two events: established, with the time that the connect took, and closed, with \
its traffic. A connect that fails has one event, and so has one that the datapath refuses \
(denied: no route, port not listed, no backend). The process is the one that called connect. The \
agent keeps the events; without it there are none to show. On a busy node (over 2,000 connects \
per second) successes are sampled, and so are the failures of a cgroup or guest that has over \
256 in 134 ms; such a line shows how many it represents. Failures of all others are shown one by \
one.")]
pub(crate) struct Events {
    /// Keep printing new events
    #[arg(short, long)]
    follow: bool,
    /// Only this route
    #[arg(long, value_name = "SOURCE")]
    route: Option<SourceName>,
    /// Only these results, separated by commas
    #[arg(
        long,
        visible_alias = "outcome",
        value_name = "RESULT",
        value_enum,
        value_delimiter = ','
    )]
    result: Vec<EventResult>,
    /// Only connects that failed
    #[arg(long)]
    failed: bool,
    /// Exit after this many events [default with --follow: never]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print at most this many past events [default: all; 10 with --follow]
    #[arg(short = 'n', long, value_name = "NUMBER")]
    limit: Option<usize>,
    /// Output format
    #[arg(
        short = 'o',
        long = "output",
        value_enum,
        value_name = "FORMAT",
        default_value_t = Format::Table
    )]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One line of text per event, within a terminal's width
    Table,
    /// One JSON object per line, documented in docs/reference/api.md
    Json,
}

impl Events {
    pub(crate) fn run(self, env: &mut Env<'_>, context: &Context) -> anyhow::Result<Exit> {
        let paths = context.agent_paths()?;
        let limit = self.limit.or(self.follow.then_some(BEFORE));
        let query = EventQuery {
            follow: self.follow,
            route: self.route,
            result: self.result,
            failed: self.failed,
            limit,
        };
        let mut printer = Printer::new(self.format, env.width);
        let mut left = self.count;
        block_on(async {
            let asked = Client::new(paths.control_socket()).events(&query).await;
            let mut stream = asked.map_err(|error| agent_paths::explain(&paths, error))?;
            let mut any = false;
            while let Some(mut lines) = stream.next().await? {
                any = true;
                let done = shorten(&mut lines, &mut left);
                printer.print(env, &lines)?;
                if done {
                    return Ok(Exit::Done);
                }
            }
            if query.follow {
                anyhow::bail!("the agent stopped; run this again once it is back");
            }
            if !any && self.format == Format::Table {
                writeln!(env.err, "no such event yet: the agent keeps the last {KEPT} events")?;
            }
            Ok(Exit::Done)
        })?
    }
}

/// Drops what exceeds `left` events; returns whether none are left.
fn shorten(lines: &mut Vec<EventLine>, left: &mut Option<u64>) -> bool {
    let Some(left) = left else { return false };
    lines.retain(|line| {
        let wanted = *left > 0;
        *left -= u64::from(wanted && line.event().is_some());
        wanted
    });
    *left == 0
}

/// Writes lines with aligned columns, as far as their widths are known.
struct Printer {
    format: Format,
    /// The widest target so far.
    target: usize,
    /// The day of the previous line, at first today: lines have the time only.
    day: String,
    /// The columns of the terminal: each event has one line of it.
    width: Option<usize>,
}

/// A narrower terminal has no column for the backend.
const WIDTH_WITH_BACKEND: usize = 110;
/// Columns before the route on a terminal: time, result, took, and a space after each.
const BEFORE_ROUTE: usize = 8 + 1 + 11 + 1 + 7 + 1;

impl Printer {
    fn new(format: Format, width: Option<u16>) -> Self {
        let today = day(jiff::Timestamp::now());
        Self { format, target: 0, day: today, width: width.map(usize::from) }
    }

    fn print(&mut self, env: &mut Env<'_>, lines: &[EventLine]) -> anyhow::Result<()> {
        if self.format == Format::Table {
            self.table(env, lines)?;
        } else {
            for line in lines {
                writeln!(env.out, "{}", serde_json::to_string(line)?)?;
            }
        }
        env.out.flush()?;
        Ok(())
    }

    fn table(&mut self, env: &mut Env<'_>, lines: &[EventLine]) -> io::Result<()> {
        let first = self.target == 0;
        let targets =
            lines.iter().filter_map(EventLine::event).map(|event| event_text::target(event).len());
        self.target = targets.chain([self.target, "ROUTE".len()]).max().unwrap_or_default();
        if first && let Some(columns) = self.columns() {
            let route = columns.route;
            let head = format!("{:<8} {:<11} {:>7} {:<route$}", "TIME", "RESULT", "TOOK", "ROUTE");
            let backend = columns.backend.map(|width| format!(" {:<width$}", "BACKEND"));
            writeln!(env.out, "{head}{} PROCESS", backend.unwrap_or_default())?;
        } else if first {
            let width = self.target;
            writeln!(
                env.out,
                "{:<12}  {:<11}  {:>7}  {:<width$}  {:<21}  PROCESS",
                "TIME (UTC)", "RESULT", "TOOK", "ROUTE", "BACKEND"
            )?;
        }
        for line in lines {
            match line {
                EventLine::Event(event) => self.event(env, event)?,
                EventLine::Lost(lost) => writeln!(env.err, "{}", render_lost(lost))?,
            }
        }
        Ok(())
    }

    fn event(&mut self, env: &mut Env<'_>, event: &Event) -> io::Result<()> {
        let (paint, day) = (Paint(env.colour), day(event.at));
        if day != self.day {
            writeln!(env.out, "{}", paint.dim(&day))?;
            self.day = day;
        }
        let result = format!("{:<11}", event.result.label());
        let result = match event.result {
            EventResult::Established => paint.good(&result),
            EventResult::Closed => paint.dim(&result),
            EventResult::Aborted | EventResult::Passed => paint.warn(&result),
            _ => paint.bad(&result),
        };
        let took = if event.elapsed_ns == 0 { "-".to_owned() } else { short(event.elapsed_ns) };
        let backend = event.backend.map_or_else(|| "-".to_owned(), |backend| backend.to_string());
        if let Some(columns) = self.columns() {
            let line = columns.after_took(event, &backend);
            return writeln!(env.out, "{} {result} {took:>7} {line}", event.at.strftime("%T"));
        }
        let (time, width) = (event.at.strftime("%T%.3f"), self.target);
        writeln!(
            env.out,
            "{time}  {result}  {took:>7}  {:<width$}  {backend:<21}  {}",
            event_text::target(event),
            event_text::process(event)
        )
    }

    /// The columns on a terminal.
    fn columns(&self) -> Option<Columns> {
        let room = self.width?.saturating_sub(BEFORE_ROUTE);
        let backend = (self.width? >= WIDTH_WITH_BACKEND).then_some(21);
        let room = room.saturating_sub(backend.map_or(1, |width| width + 2));
        let route = self.target.min(room / 2);
        Some(Columns { route, backend, process: room - route })
    }
}

/// The widths of the columns after the third, on a terminal.
struct Columns {
    route: usize,
    backend: Option<usize>,
    process: usize,
}

impl Columns {
    fn after_took(&self, event: &Event, backend: &str) -> String {
        let cell =
            |text: &str, width: usize| format!("{:<width$} ", event_text::within(text, width));
        let backend = self.backend.map(|width| cell(backend, width)).unwrap_or_default();
        let route = cell(&event_text::target(event), self.route);
        format!("{route}{backend}{}", event_text::process_within(event, self.process))
    }
}

fn day(at: jiff::Timestamp) -> String {
    at.strftime("%F").to_string()
}

fn render_lost(lost: &Lost) -> String {
    let events = count(usize::try_from(lost.lost).unwrap_or(usize::MAX), "event");
    match lost.lost_by {
        LostBy::Kernel => format!("{events} lost: the ring buffer was full"),
        LostBy::Reader => format!("{events} lost: this reader is too slow"),
    }
}
