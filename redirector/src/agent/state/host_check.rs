//! Restores what another process has removed from this host's network: the guard and the shim's
//! addresses. Each check is a task of its own, as netlink replies are awaited.

use std::net::IpAddr;

use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::{
    config::Config,
    host::{self, AddedAddress, HostError},
    pool::Pool,
};

/// What was restored, and why the guard has no resets; or why something could not be restored.
type Checked = Result<(Vec<String>, Option<String>), HostError>;

/// The periodic check.
#[derive(Debug, Default)]
pub(crate) struct HostCheck {
    /// The check that runs, if one does.
    running: Option<oneshot::Receiver<Checked>>,
    no_resets: Option<String>,
}

impl HostCheck {
    /// Takes the result of the check that has ended, and begins the next one. Needs the runtime of
    /// tokio. Called every second.
    pub(crate) fn step(&mut self, config: &Config) -> Option<Result<Vec<String>, HostError>> {
        let checked = match self.running.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Err(TryRecvError::Empty)) => return None,
            Some(Ok(checked)) => Some(checked),
            Some(Err(TryRecvError::Closed)) | None => None,
        };
        let checked = checked.map(|checked| {
            checked.map(|(restored, no_resets)| {
                self.no_resets = self.no_resets.take().or(no_resets);
                restored
            })
        });
        let (sender, receiver) = oneshot::channel();
        self.running = Some(receiver);
        let resets = self.no_resets.is_none();
        let guarded = config.pool.guard.then(|| (config.pool.clone(), resets));
        let addresses: Vec<IpAddr> = config.dns.listen.iter().map(|listen| listen.ip()).collect();
        tokio::spawn(async move {
            let _ = sender.send(check(guarded, addresses).await);
        });
        checked
    }

    /// Why connects from outside of the scope are not refused with resets.
    pub(crate) fn no_resets(&self) -> Option<&str> {
        self.no_resets.as_deref()
    }
}

async fn check(guarded: Option<(Pool, bool)>, addresses: Vec<IpAddr>) -> Checked {
    let mut restored = Vec::new();
    for address in addresses {
        if host::ensure_address(address).await? == AddedAddress::Added {
            restored.push(format!("the address {address} was removed"));
        }
    }
    let Some((pool, resets)) = guarded else { return Ok((restored, None)) };
    let guard = host::restore_guard(&pool, resets)?;
    if guard.added {
        restored.push("the guard of the pool was removed".to_owned());
    }
    Ok((restored, guard.no_resets))
}
