//! Redirector and its peers on one site, each with a client, and their turns.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};

use super::{
    direct::Direct,
    dnsmasq::Dnsmasq,
    haproxy::Haproxy,
    netfilter::{Kind, Netfilter},
    peer::{Peer, Routes},
    redirector::Redirector,
    report::{Figure, Report, compare},
    site::Site,
    socket_lb::SocketLb,
};
use crate::{
    options::{Options, last_core},
    rounds::alternate,
    worker::{Batch, Operation, Worker},
};

/// A figure that a batch yields.
pub(crate) struct Measure<'a> {
    name: &'a str,
    unit: &'a str,
    /// From the nanoseconds of an operation.
    convert: fn(f64) -> f64,
    more_is_better: bool,
}

impl<'a> Measure<'a> {
    pub(crate) fn less_is_better(name: &'a str, unit: &'a str, convert: fn(f64) -> f64) -> Self {
        Self { name, unit, convert, more_is_better: false }
    }

    pub(crate) fn more_is_better(name: &'a str, unit: &'a str, convert: fn(f64) -> f64) -> Self {
        Self { name, unit, convert, more_is_better: true }
    }
}

/// As that of the measured processes.
const PRIORITY: i32 = -15;

/// Those that take part. Fields are dropped in this order.
pub(crate) struct Lineup {
    /// The client of each peer.
    pub(crate) clients: Vec<Worker>,
    pub(crate) peers: Vec<Box<dyn Peer>>,
    pub(crate) site: Site,
}

impl Lineup {
    /// Starts redirector and every peer, for at most so many routes, on the last core, and begins a
    /// report. The server has so many threads.
    pub(crate) fn with_report(
        options: &Options,
        routes: u32,
        threads: usize,
    ) -> Result<(Self, Report)> {
        let binary = options.measurable()?;
        let report = Report::begin(last_core()?, options.quick);
        eprintln!("starting redirector and its peers");
        Ok((Self::new(&binary, routes, (report.core, threads))?, report))
    }

    /// Starts redirector and every peer, for at most so many routes, all on one core. The server
    /// has so many threads.
    pub(crate) fn new(binary: &Path, routes: u32, on: (usize, usize)) -> Result<Self> {
        Self::start(binary, routes, on).context("failed to set the benchmark up")
    }

    fn start(binary: &Path, routes: u32, (core, threads): (usize, usize)) -> Result<Self> {
        // Other work interrupts the peers and their commands less. Optional.
        let _ = rustix::process::setpriority_process(None, PRIORITY);
        let site = Site::new(core, threads)?;
        let mut peers: Vec<Box<dyn Peer>> = vec![
            Box::new(Redirector::new(&site, binary, routes)?),
            Box::new(Direct::bare(&site)?),
            Box::new(Direct::empty(&site)?),
            Box::new(SocketLb::new(&site)?),
        ];
        for kind in Kind::ALL {
            let netfilter = Netfilter::new(&site, kind)?;
            if netfilter.is_supported()? {
                peers.push(Box::new(netfilter));
            } else {
                eprintln!("this kernel has no {}", netfilter.label());
            }
        }
        peers.push(Box::new(Haproxy::new(&site)?));
        peers.push(Box::new(Dnsmasq::new(&site, "dnsmasq")?));
        let clients =
            peers.iter().map(|peer| Worker::client(peer.sandbox(), core)).collect::<Result<_>>()?;
        Ok(Self { clients, peers, site })
    }

    /// Loads the same routes everywhere.
    pub(crate) fn load(&mut self, routes: Routes) -> Result<()> {
        self.peers.iter_mut().try_for_each(|peer| peer.load(routes))
    }

    /// The positions of some peers.
    pub(crate) fn select(&self, wanted: impl Fn(&dyn Peer) -> bool) -> Vec<usize> {
        (0..self.peers.len()).filter(|which| wanted(&*self.peers[*which])).collect()
    }

    /// The figures of batches of the chosen peers in turns.
    pub(crate) fn turns(
        &mut self,
        measures: &[Measure<'_>],
        (operation, count): (Operation, u32),
        chosen: &[usize],
        limit: (usize, Duration),
    ) -> Result<Vec<Figure>> {
        let batches = chosen
            .iter()
            .map(|which| batch(&*self.peers[*which], operation, count))
            .collect::<Result<Vec<_>>>()?;
        let turns = alternate(chosen.len(), limit, |which| {
            self.clients[chosen[which]].run(batches[which])
        })?;
        let labels: Vec<_> = chosen.iter().map(|which| self.peers[*which].label()).collect();
        let figures = |measure: &Measure<'_>| {
            let mut values = turns.clone().into_times();
            values.iter_mut().flatten().for_each(|value| *value = (measure.convert)(*value));
            let mut figures = compare(measure.name, measure.unit, &labels, &values);
            for figure in &mut figures {
                figure.more_is_better = measure.more_is_better;
            }
            figures
        };
        Ok(measures.iter().flat_map(figures).collect())
    }
}

/// A batch of a peer's client, spread over its routes.
pub(crate) fn batch(peer: &dyn Peer, operation: Operation, count: u32) -> Result<Batch> {
    let (target, spread) = match (operation, peer.resolver()) {
        (Operation::LookUp, Some(resolver)) => (resolver, peer.spread()),
        _ if peer.spread() == 1 => (peer.target(0)?, 1),
        _ => (peer.first_target(), peer.spread()),
    };
    Ok(Batch { operation, count, target, spread })
}
