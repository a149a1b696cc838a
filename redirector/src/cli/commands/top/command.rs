//! `redirector top`: its options, and the loop that reads and shows.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    page::{Order, Page},
    sample::{Look, sample},
    screen::{self, Screen, Wish},
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

/// Failures that are shown.
const FAILURES: usize = 5;
/// So soon there is something to see.
const FIRST: Duration = Duration::from_millis(250);

/// `top`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector top
  redirector top --once                         one page, as text
  redirector top -o json | jq .total            one object a second
  redirector top --route artifactory.internal.company.net --interval 0.5

OK/S, FAIL/S and DENY/S are connects that a backend accepted, that came to nothing (refused, timed out, unreachable, given up,
never sent) and that were refused here, per second. WAIT is connects under way, OPEN established connections. P50 and P99 are the
time that connects took, estimated from a histogram whose buckets double; dim: of all before, since this interval had none. A
backend has the mean (ø). Keys: q quits, s sorts, arrows scroll. Without an agent the numbers come from the pinned tables, and
the last failures are missing. A screen that is too narrow for all columns does without WAIT, P50, DENY/S and OPEN, in this order.
When standard output is no terminal, one page is printed, as with --once.")]
pub(crate) struct Top {
    /// Print one page and end
    #[arg(long)]
    once: bool,
    /// End after so many [default: never]
    #[arg(long, value_name = "NUMBER", conflicts_with = "once", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Seconds between two looks, 0.1 to 60
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// Only this route
    #[arg(long, value_name = "SOURCE")]
    route: Option<SourceName>,
    /// What comes first
    #[arg(long, value_enum, value_name = "ORDER", default_value_t = Order::Busiest)]
    sort: Order,
    /// How to print it
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For a person
    Table,
    /// One JSON object per line, documented in docs/reference/api.md
    Json,
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds is wanted".to_owned())?;
    if (0.1..=60.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("it is to be from 0.1 to 60 seconds".into())
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
        let mut before = source.look().await?;
        while left != Some(0) {
            tokio::time::sleep(self.interval).await;
            let now = source.look().await?;
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

    /// The whole screen, until somebody has seen enough.
    async fn watch(&self, env: &mut Env<'_>, source: &Source) -> anyhow::Result<()> {
        let mut before = source.look().await?;
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut screen = Screen::open(env.out, Paint(env.colour))?;
        let mut wishes = screen::wishes();
        let (mut order, mut left) = (self.sort, self.count);
        let mut next = tokio::time::Instant::now() + FIRST;
        let mut shown: Option<(Look, Look, Vec<Event>)> = None;
        loop {
            let wish = tokio::select! {
                () = tokio::time::sleep_until(next) => None,
                wish = wishes.recv() => Some(wish.unwrap_or(Wish::Quit)),
                _ = terminate.recv() => Some(Wish::Quit),
                _ = interrupt.recv() => Some(Wish::Quit),
            };
            match wish {
                Some(Wish::Quit) => return Ok(()),
                Some(Wish::NextOrder) => order = order.next(),
                Some(Wish::Scroll(by)) => screen.scroll(by),
                Some(Wish::Redraw) => {}
                None => {
                    next = tokio::time::Instant::now() + self.interval;
                    let now = source.look().await?;
                    let failures = source.failures(&now).await;
                    let last = std::mem::replace(&mut before, now.clone());
                    shown = Some((last, now, failures));
                }
            }
            if let Some((last, now, failures)) = &shown {
                let bar = format!(
                    "q quits   s sorts: {}   ↑↓ scroll   every {} s",
                    order.words(),
                    self.interval.as_secs_f64()
                );
                let width = screen.width()?;
                screen.draw(&page((last, now), failures, (order, width)), &bar)?;
            }
            if wish.is_none() {
                left = left.map(|left| left - 1);
                if left == Some(0) {
                    return Ok(());
                }
            }
        }
    }
}

/// In this order, on a screen of this width.
fn page((before, now): (&Look, &Look), failures: &[Event], shown: (Order, usize)) -> Page {
    Page::new(sample(before, now), &now.status.problems, failures, shown)
}

/// Where the numbers come from.
struct Source {
    paths: AgentPaths,
    route: Option<SourceName>,
}

impl Source {
    async fn look(&self) -> anyhow::Result<Look> {
        let mut status = status_source::fetch(&self.paths).await?;
        if let Some(only) = &self.route {
            status.routes.retain(|route| route.source.as_ref() == Some(only));
            if status.routes.is_empty() {
                anyhow::bail!(
                    "there is no route for {only}: `redirector route list` shows the routes"
                );
            }
        }
        Ok(Look { at: Instant::now(), status })
    }

    /// The last connects that have failed; none without an agent, which alone remembers them.
    async fn failures(&self, now: &Look) -> Vec<Event> {
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
