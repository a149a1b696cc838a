//! Forwards the log of the programs to the log of the agent.

use std::io;

use tokio::io::{Interest, unix::AsyncFd};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{datapath::DecisionLog, error::error_chain};

/// Forwards each record until `shutdown`.
pub(crate) async fn forward(log: DecisionLog, shutdown: CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        ended = forward_all(log) => if let Err(error) = ended {
            warn!("the log of the programs is no longer forwarded: {}", error_chain(&error));
        }
    }
}

async fn forward_all(log: DecisionLog) -> io::Result<()> {
    // SAFETY: the log owns the descriptor of its ring buffer, hands out no other, and keeps it open
    // as long as it lives.
    let mut log = unsafe { AsyncFd::register_with_interest(log, Interest::READABLE) }?;
    loop {
        let mut ready = log.readable_mut().await?;
        ready.get_inner_mut().forward();
        ready.clear_ready();
    }
}
