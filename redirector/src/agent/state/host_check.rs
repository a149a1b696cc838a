//! Restores what another process has removed from this host's network: the guard and the shim's
//! addresses. Each check is a task of its own, as netlink replies are awaited.

use std::net::IpAddr;

use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::{
    config::Config,
    host::{self, AddedAddress, Guard, HostError},
    pool::Pool,
};

/// What was restored, or why it could not be.
type Checked = Result<Vec<String>, HostError>;

/// The check that runs, if one does.
#[derive(Debug, Default)]
pub(crate) struct HostCheck(Option<oneshot::Receiver<Checked>>);

impl HostCheck {
    /// Takes the result of the check that has ended, and begins the next one. Needs the runtime of
    /// tokio. Called every second.
    pub(crate) fn step(&mut self, config: &Config) -> Option<Checked> {
        let checked = match self.0.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Err(TryRecvError::Empty)) => return None,
            Some(Ok(checked)) => Some(checked),
            Some(Err(TryRecvError::Closed)) | None => None,
        };
        let (sender, receiver) = oneshot::channel();
        self.0 = Some(receiver);
        let guarded = config.pool.guard.then(|| config.pool.clone());
        let addresses: Vec<IpAddr> = config.dns.listen.iter().map(|listen| listen.ip()).collect();
        tokio::spawn(async move {
            let _ = sender.send(check(guarded, addresses).await);
        });
        checked
    }
}

async fn check(guarded: Option<Pool>, addresses: Vec<IpAddr>) -> Checked {
    let mut restored = Vec::new();
    for address in addresses {
        if host::ensure_address(address).await? == AddedAddress::Added {
            restored.push(format!("the address {address} was removed"));
        }
    }
    if let Some(pool) = guarded
        && host::restore_guard(&pool).await? == Guard::Added
    {
        restored.push("the guard of the pool was removed".to_owned());
    }
    Ok(restored)
}
