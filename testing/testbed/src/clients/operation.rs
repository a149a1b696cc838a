//! The line that `testbed-client operations` prints for an operation, and the task that it belongs
//! to.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// What the operations of a task are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TaskKind {
    /// Connects to a virtual address; getpeername and the server's banner are read.
    Connect,
    /// Connects to a virtual address, and keeps the connection for twenty seconds, in which what is
    /// sent must come back.
    Held,
    /// As [`TaskKind::Connect`] to an address outside the pool.
    Direct,
    /// Connects that must be refused.
    Denied,
    /// Look-ups by UDP: the virtual address, or the scripted resolver's answer octet for octet.
    Udp,
    /// As [`TaskKind::Udp`], by TCP: never the virtual address.
    Tcp,
    /// Look-ups by UDP at the shim: the virtual address, or the scripted resolver's.
    ShimUdp,
    /// As [`TaskKind::ShimUdp`], by TCP.
    ShimTcp,
}

impl TaskKind {
    const WORDS: [(Self, &str); 8] = [
        (Self::Connect, "connect"),
        (Self::Held, "held"),
        (Self::Direct, "direct"),
        (Self::Denied, "denied"),
        (Self::Udp, "udp"),
        (Self::Tcp, "tcp"),
        (Self::ShimUdp, "shim-udp"),
        (Self::ShimTcp, "shim-tcp"),
    ];

    /// Whether its operations are look-ups.
    pub fn is_lookup(self) -> bool {
        !matches!(self, Self::Connect | Self::Held | Self::Direct | Self::Denied)
    }
}

impl fmt::Display for TaskKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::WORDS.iter().find(|(kind, _)| kind == self);
        formatter.write_str(found.map_or("", |(_, word)| word))
    }
}

/// Operations of one kind at a steady rate, written as `RATE/KIND/TARGET[/NAME[=ADDRESS]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Operations a second.
    pub rate: u32,
    /// What they are.
    pub kind: TaskKind,
    /// The server.
    pub target: SocketAddr,
    /// The name to look up.
    pub name: Option<String>,
    /// Its virtual address; `None` for a name that only the resolver knows.
    pub address: Option<Ipv4Addr>,
}

impl fmt::Display for Task {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{}", self.rate, self.kind, self.target)?;
        if let Some(name) = &self.name {
            write!(formatter, "/{name}")?;
        }
        if let Some(address) = self.address {
            write!(formatter, "={address}")?;
        }
        Ok(())
    }
}

impl FromStr for Task {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let [rate, kind, target, rest @ ..] = &parts[..] else {
            bail!("expected RATE/KIND/TARGET, got {text}");
        };
        let found = TaskKind::WORDS.iter().find(|(_, word)| word == kind);
        let (kind, _) = found.with_context(|| format!("no such kind of task: {kind}"))?;
        let (name, address) = match rest.first().map(|name| name.split_once('=')) {
            None => (None, None),
            Some(None) => (rest.first().map(ToString::to_string), None),
            Some(Some((name, address))) => {
                let parsed = address.parse().with_context(|| format!("no address: {address}"))?;
                (Some(name.to_owned()), Some(parsed))
            }
        };
        if kind.is_lookup() != name.is_some() {
            bail!("look-ups have a name, connects have none: {text}");
        }
        Ok(Self {
            rate: rate.parse().with_context(|| format!("not a rate: {rate}"))?,
            kind: *kind,
            target: target.parse().with_context(|| format!("no address with port: {target}"))?,
            name,
            address,
        })
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// As it must.
    Right,
    /// With another peer, another answer, or a connection where none may be.
    Wrong,
    /// With an error or without an answer.
    Failed,
    /// Connected, but without a whole banner, or broken later.
    Ungreeted,
}

impl Outcome {
    const WORDS: [(Self, &str); 4] = [
        (Self::Right, "right"),
        (Self::Wrong, "wrong"),
        (Self::Failed, "failed"),
        (Self::Ungreeted, "ungreeted"),
    ];
}

/// One operation, written as `TASK START TOOK OUTCOME DETAIL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The number of its task on the command line.
    pub task: usize,
    /// When it began: microseconds of `CLOCK_MONOTONIC`, which all namespaces share.
    pub start_us: u64,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// The banner, the error, or what was wrong.
    pub detail: String,
}

impl Operation {
    /// When it ended.
    pub fn end_us(&self) -> u64 {
        self.start_us + self.took_us
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Outcome::WORDS.iter().find(|(outcome, _)| *outcome == self.outcome);
        let word = found.map_or("", |(_, word)| word);
        let detail = self.detail.replace('\n', " ");
        write!(formatter, "{} {} {} {word} {detail}", self.task, self.start_us, self.took_us)
    }
}

impl FromStr for Operation {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self> {
        let mut words = line.splitn(5, ' ');
        let mut next = || words.next().with_context(|| format!("not an operation: {line}"));
        let (task, start, took, word) = (next()?, next()?, next()?, next()?);
        let found = Outcome::WORDS.iter().find(|(_, known)| *known == word);
        Ok(Self {
            task: task.parse().with_context(|| format!("no task's number: {line}"))?,
            start_us: start.parse().with_context(|| format!("no time: {line}"))?,
            took_us: took.parse().with_context(|| format!("no time: {line}"))?,
            outcome: found.with_context(|| format!("not an outcome: {line}"))?.0,
            detail: words.next().unwrap_or_default().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_and_operations_are_read_as_written() {
        for text in [
            "200/connect/198.18.0.1:8080",
            "5/shim-tcp/169.254.20.53:53/a.test=198.18.0.1",
            "50/udp/203.0.113.54:53/b.test",
        ] {
            assert_eq!(text.parse::<Task>().unwrap().to_string(), text);
        }
        for text in ["3 10 7 right lb1", "0 1 5000000 failed ECONNREFUSED", "0 1 2 wrong a b c"] {
            assert_eq!(text.parse::<Operation>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_task_without_its_parts_is_refused() {
        for text in ["1/connect", "1/fly/1.2.3.4:5", "1/udp/1.2.3.4:53", "x/connect/1.2.3.4:5"] {
            assert!(text.parse::<Task>().is_err(), "{text}");
        }
    }
}
