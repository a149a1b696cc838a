//! `redirector top`: its options, and the loop that reads and shows.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    page::{Order, Page},
    sample::{Reading, sample},
    screen::{self, Input, Screen},
};
use crate::{
    cli::{
        agent_paths::AgentPaths,
        context::{Context, block_on},
        exit::Exit,
        io::{Env, Paint},
        status_source,
    },
    control::{
        Client,
        api::{Event, EventQuery},
    },
    route::SourceName,
};

/// How many of the last failures are shown.
const FAILURES: usize = 5;
/// When the first page appears.
const FIRST: Duration = Duration::from_millis(250);

/// `top`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector top
  redirector top --once                         print one page
  redirector top -o json | jq .total            one object per second
  redirector top --route artifactory.internal.company.net --interval 0.5

Columns, per second: OK/S connects that a backend accepted, FAIL/S connects that failed \
(refused, timed out, unreachable, aborted, never sent), DENY/S connects that the datapath \
refused. WAIT counts connects in progress, OPEN established connections. P50 and P99 are connect \
times, estimated from a histogram whose buckets double; they are dim if the interval had no \
connect and earlier ones are shown. A backend shows the mean (ø). A host with guests has a line \
with the open connections of processes (by cgroup) and of guests (by packet), and the interfaces \
with most of them.

Keys: q quits, s changes the order, arrows scroll. Without an agent the numbers come from the \
pinned maps, and the last failures are missing. A narrow screen omits WAIT, P50, DENY/S and \
OPEN, in this order. If standard output is not a terminal, one page is printed, as with --once.")]
pub(crate) struct Top {
    /// Print one page and exit
    #[arg(long)]
    once: bool,
    /// Exit after this many pages [default: never]
    #[arg(
        long,
        value_name = "NUMBER",
        conflicts_with = "once",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    count: Option<u64>,
    /// Seconds between two samples, 0.1 to 60
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// Only this route
    #[arg(long, value_name = "SOURCE")]
    route: Option<SourceName>,
    /// The order of the routes
    #[arg(long, value_enum, value_name = "ORDER", default_value_t = Order::Busiest)]
    sort: Order,
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
    /// A screen, or pages of text
    Table,
    /// One JSON object per line, documented in docs/reference/api.md
    Json,
}

/// What `--interval` takes.
const EXPECTED_INTERVAL: &str = "expected seconds, 0.1 to 60";

fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| EXPECTED_INTERVAL.to_owned())?;
    if (0.1..=60.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(EXPECTED_INTERVAL.to_owned())
    }
}

impl Top {
    pub(crate) fn run(self, env: &mut Env<'_>, context: &Context) -> anyhow::Result<Exit> {
        let source = Source { paths: context.agent_paths()?, route: self.route.clone() };
        block_on(async {
            match (self.format, env.width) {
                (Format::Table, Some(_)) if !self.once => self.watch(env, &source).await,
                _ => self.print(env, &source).await,
            }
        })??;
        Ok(Exit::Done)
    }

    /// Page after page, or object after object.
    async fn print(&self, env: &mut Env<'_>, source: &Source) -> anyhow::Result<()> {
        let single = self.once || (self.format == Format::Table && self.count.is_none());
        let mut left = if single { Some(1) } else { self.count };
        let mut before = source.read().await?;
        while left != Some(0) {
            tokio::time::sleep(self.interval).await;
            let now = source.read().await?;
            match self.format {
                Format::Json => {
                    writeln!(env.out, "{}", serde_json::to_string(&sample(&before, &now))?)?
                }
                Format::Table => {
                    let width = env.width.map_or(usize::MAX, usize::from);
                    let page =
                        page((&before, &now), &source.failures(&now).await, (self.sort, width));
                    page.lines().try_for_each(|line| {
                        writeln!(env.out, "{}", line.paint(Paint(env.colour), width))
                    })?;
                }
            }
            env.out.flush()?;
            before = now;
            left = left.map(|left| left - 1);
        }
        Ok(())
    }

    /// The whole screen, until it is closed.
    async fn watch(&self, env: &mut Env<'_>, source: &Source) -> anyhow::Result<()> {
        let mut before = source.read().await?;
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut screen = Screen::open(env.out, Paint(env.colour))?;
        let mut inputs = screen::inputs();
        let (mut order, mut left) = (self.sort, self.count);
        let mut next = tokio::time::Instant::now() + FIRST;
        let mut shown: Option<(Reading, Reading, Vec<Event>)> = None;
        loop {
            let input = tokio::select! {
                () = tokio::time::sleep_until(next) => None,
                input = inputs.recv() => Some(input.unwrap_or(Input::Quit)),
                _ = terminate.recv() => Some(Input::Quit),
                _ = interrupt.recv() => Some(Input::Quit),
            };
            match input {
                Some(Input::Quit) => return Ok(()),
                Some(Input::NextOrder) => order = order.next(),
                Some(Input::Scroll(by)) => screen.scroll(by),
                Some(Input::Redraw) => {}
                None => {
                    next = tokio::time::Instant::now() + self.interval;
                    let now = source.read().await?;
                    let failures = source.failures(&now).await;
                    let last = std::mem::replace(&mut before, now.clone());
                    shown = Some((last, now, failures));
                }
            }
            if let Some((last, now, failures)) = &shown {
                let bar = format!(
                    "q quits   s sorts: {}   ↑↓ scroll   every {} s",
                    order.label(),
                    self.interval.as_secs_f64()
                );
                let width = screen.width()?;
                screen.draw(&page((last, now), failures, (order, width)), &bar)?;
            }
            if input.is_none() {
                left = left.map(|left| left - 1);
                if left == Some(0) {
                    return Ok(());
                }
            }
        }
    }
}

/// In this order, on a screen of this width.
fn page((before, now): (&Reading, &Reading), failures: &[Event], shown: (Order, usize)) -> Page {
    Page::new(sample(before, now), &now.status.problems, failures, shown)
}

/// Where the numbers come from.
struct Source {
    paths: AgentPaths,
    route: Option<SourceName>,
}

impl Source {
    async fn read(&self) -> anyhow::Result<Reading> {
        let mut status = status_source::fetch(&self.paths).await?;
        if let Some(only) = &self.route {
            status.routes.retain(|route| route.source.as_ref() == Some(only));
            if status.routes.is_empty() {
                anyhow::bail!(
                    "there is no route for {only}: `redirector route list` shows the routes"
                );
            }
        }
        Ok(Reading { at: Instant::now(), status, whole: self.route.is_none() })
    }

    /// The last connects that have failed; none without an agent, which alone remembers them.
    async fn failures(&self, now: &Reading) -> Vec<Event> {
        if now.status.agent.is_none() {
            return Vec::new();
        }
        let query = EventQuery {
            failed: true,
            route: self.route.clone(),
            limit: Some(FAILURES),
            ..EventQuery::default()
        };
        let Ok(mut stream) = Client::new(self.paths.control_socket()).events(&query).await else {
            return Vec::new();
        };
        let mut failures = Vec::new();
        while let Ok(Some(lines)) = stream.next().await {
            failures.extend(lines.into_iter().filter_map(|line| line.event().cloned()));
        }
        failures
    }
}
