//! Round trips of single queries.

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::{
    report::Latency,
    servers::{Server, ZONE, client},
};
use crate::{lookup::query, statistics::Spread};

/// Measures single queries to the upstream and through each server, in turns.
pub(super) fn measure(
    rounds: usize,
    upstream: &Server,
    servers: &[&Server],
) -> Result<Vec<Latency>> {
    const QUERIES: u16 = 300;
    let all: Vec<&Server> = std::iter::once(upstream).chain(servers.iter().copied()).collect();
    let mut medians: Vec<Vec<f64>> = vec![Vec::new(); all.len()];
    for round in 0..rounds {
        let mut times: Vec<Vec<f64>> = vec![Vec::new(); all.len()];
        for n in 0..QUERIES {
            for (server, times) in all.iter().zip(&mut times) {
                let socket = client(server.address)?;
                let query = query(n, &format!("l{round}-{n}.{ZONE}"));
                let start = Instant::now();
                socket.send(&query).context("failed to send")?;
                // A lost query has no round trip.
                if socket.recv(&mut [0; 512]).is_ok() {
                    times.push(start.elapsed().as_secs_f64() * 1e6);
                }
            }
        }
        medians
            .iter_mut()
            .zip(times)
            .for_each(|(medians, times)| medians.push(Spread::of(times).median));
    }
    let latency = |(server, medians_of): (&&Server, &Vec<f64>)| Latency {
        server: server.name.into(),
        median: Spread::of(medians_of.clone()),
        added: Spread::of(
            medians_of.iter().zip(&medians[0]).map(|(through, direct)| through - direct).collect(),
        ),
    };
    Ok(all.iter().zip(&medians).map(latency).collect())
}
