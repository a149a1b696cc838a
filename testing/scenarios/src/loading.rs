//! The scenario of loading the packet programs, without which the cgroup datapath still works.

use anyhow::{Result, ensure};
use redirector_common::names;

use crate::{fixture::Fixture, log_tail};

/// This kernel accepts every program of the packet datapath under these capabilities.
pub(crate) fn packet_programs(fixture: &Fixture) -> Result<()> {
    let loaded = fixture.datapath.status().programs;
    let missing: Vec<_> = names::PACKET_PROGRAMS
        .iter()
        .map(|program| program.name)
        .filter(|name| !loaded.iter().any(|program| program.name == *name))
        .collect();
    if !missing.is_empty() {
        println!("{}", log_tail::text());
    }
    ensure!(missing.is_empty(), "refused: {missing:?}; the verifier's log is above");
    Ok(())
}
