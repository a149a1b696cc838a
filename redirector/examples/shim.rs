//! The DNS shim without the kernel part, on the same runtime as the agent. `cargo xtask bench dns`
//! measures it.
//!
//! Usage: `shim LISTEN UPSTREAM SOURCE...`. The sources get the virtual addresses from 198.18.0.1
//! on. It serves until SIGTERM or SIGINT.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use redirector::{
    config::{DnsClients, Upstream},
    dns::{ShimSettings, Vip, Zone, bind},
    route::SourceName,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> anyhow::Result<()> {
    // As in `redirector run`.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    runtime.block_on(run())
}

async fn run() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut address = |name: &str| -> anyhow::Result<SocketAddr> {
        let text = arguments
            .next()
            .with_context(|| format!("missing {name}; usage: shim LISTEN UPSTREAM SOURCE..."))?;
        text.parse().with_context(|| format!("{name} `{text}` is not ADDRESS:PORT"))
    };
    let (listen, upstream) = (address("LISTEN")?, address("UPSTREAM")?);
    let sources = arguments
        .map(|text| text.parse().with_context(|| format!("`{text}` is not a source")))
        .collect::<anyhow::Result<Vec<SourceName>>>()?;
    let settings = ShimSettings {
        listen: vec![listen],
        upstreams: vec![Upstream::Server(upstream)],
        clients: vec![DnsClients::Local],
        real_address_clients: vec![],
        ttl: 30,
    };
    let shim = bind(&settings).await?;
    let pool = u32::from(Ipv4Addr::new(198, 18, 0, 0));
    shim.publisher().publish(Zone::new(
        sources
            .into_iter()
            .zip(1..)
            .map(|(source, index)| (source, Vip { v4: (pool + index).into(), v6: None })),
    ));
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stopping.cancel();
    });
    shim.serve(stop).await
}
