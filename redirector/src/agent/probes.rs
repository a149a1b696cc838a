//! Knocking at backends that have failed, so that they come back as soon as they work.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::task::JoinSet;

use crate::{backend, datapath::Suspect};

/// Probes under way at one time; the others come with the next tick.
const MOST: usize = 64;

/// The probes under way, at most one for each backend of a route.
#[derive(Debug, Default)]
pub(super) struct Probes {
    tasks: JoinSet<Probed>,
    under_way: HashSet<(u32, IpAddr)>,
}

/// A probe's end.
#[derive(Debug)]
pub(super) struct Probed {
    /// The route's VIP.
    pub(super) index: u32,
    /// The backend.
    pub(super) address: IpAddr,
    /// How long the connect took, or why it failed.
    pub(super) outcome: Result<Duration, io::Error>,
}

impl Probes {
    /// Knocks at each of `suspects` that is not being knocked at.
    pub(super) fn send(&mut self, suspects: Vec<Suspect>, timeout: Duration) {
        for Suspect { index, address, port, .. } in suspects {
            if self.under_way.len() >= MOST {
                return;
            }
            if self.under_way.insert((index, address)) {
                self.tasks.spawn(async move {
                    let outcome = backend::probe(SocketAddr::new(address, port), timeout).await;
                    Probed { index, address, outcome }
                });
            }
        }
    }

    /// The next probe that ends; none at once when there is none under way.
    pub(super) async fn next(&mut self) -> Option<Probed> {
        let probed = self.tasks.join_next().await?;
        match probed {
            Ok(probed) => {
                self.under_way.remove(&(probed.index, probed.address));
                Some(probed)
            }
            Err(error) => {
                tracing::error!(%error, "a probe panicked");
                self.under_way.clear();
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suspect(port: u16) -> Suspect {
        Suspect { index: 1, address: IpAddr::from([127, 0, 0, 1]), port, failures: 1 }
    }

    #[tokio::test]
    async fn a_backend_is_knocked_at_once_at_a_time_and_its_answer_comes_back() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let mut probes = Probes::default();
        probes.send(vec![suspect(port), suspect(port)], Duration::from_secs(2));
        let probed = probes.next().await.expect("one ends");
        probed.outcome.expect("it listens");
        assert!(probes.next().await.is_none(), "one was sent");
        drop(listener);
        probes.send(vec![suspect(port)], Duration::from_secs(2));
        assert_eq!(probes.next().await.expect("it ends").outcome.expect_err("nobody listens").kind(), io::ErrorKind::ConnectionRefused);
    }
}
