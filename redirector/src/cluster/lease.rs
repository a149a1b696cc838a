//! Which of the controllers works: the one that holds the Lease. A holder that cannot renew it
//! stops before another one may take it. The Lease itself is the chart's: it is removed with
//! everything else, and no right to create any is needed.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::PostParams,
    core::{ApiResource, Object},
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{info, warn};

use crate::{
    error::error_chain,
    kubernetes::{ApiError, answer},
};

/// After how long without a renewal another controller takes the Lease.
const DURATION: Duration = Duration::from_secs(10);
/// After how long without a renewal its holder stops.
const DEADLINE: Duration = Duration::from_secs(7);
/// How often it is renewed, or looked at.
const PERIOD: Duration = Duration::from_secs(2);

type Held = Object<LeaseSpec, ()>;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LeaseSpec {
    holder_identity: Option<String>,
    lease_duration_seconds: Option<u64>,
    acquire_time: Option<String>,
    renew_time: Option<String>,
    lease_transitions: Option<u64>,
}

/// A controller's claim to the Lease.
pub(super) struct Claim {
    api: Api<Held>,
    name: &'static str,
    identity: String,
    /// The renewal of another holder that was seen last, and since when: clocks of nodes differ.
    seen: Option<(LeaseSpec, Instant)>,
    /// When it was renewed here; none while another controller may hold it.
    renewed: Option<Instant>,
}

impl Claim {
    pub(super) fn new(client: Client, namespace: &str, identity: String) -> Self {
        let resource = ApiResource::erase::<Lease>(&());
        let api = Api::namespaced_with(client, namespace, &resource);
        let name = "redirector-controller";
        Self { api, name, identity, seen: None, renewed: None }
    }

    /// Claims the Lease for as long as anybody wants to know.
    pub(super) async fn run(mut self, held: watch::Sender<bool>) {
        while !held.is_closed() {
            // Its time counts from the request, since the server may have taken it at once.
            let began = Instant::now();
            match timeout_at(self.deadline(began), self.step()).await {
                Ok(Ok(true)) => self.renewed = Some(began),
                Ok(Ok(false)) => self.renewed = None,
                Ok(Err(error)) => warn!("failed to renew the Lease: {}", error_chain(&error)),
                Err(_) => warn!("failed to renew the Lease: no answer in time"),
            }
            let now = Instant::now();
            if self.renewed.is_some_and(|at| at + DEADLINE <= now) {
                warn!("this controller stops, since it cannot renew the Lease");
                self.renewed = None;
            }
            let holds = self.renewed.is_some();
            held.send_if_modified(|before| {
                let is_new = *before != holds;
                *before = holds;
                is_new
            });
            tokio::select! {
                () = sleep_until(self.deadline(now).min(now + PERIOD)) => {}
                () = held.closed() => {}
            }
        }
        if self.renewed.is_some()
            && let Err(error) = self.release().await
        {
            warn!("failed to release the Lease: {}", error_chain(&error));
        }
    }

    /// Until when a request for the Lease may last.
    fn deadline(&self, now: Instant) -> Instant {
        self.renewed.unwrap_or(now) + DEADLINE
    }

    /// Takes, renews or looks at the Lease. Returns whether it is held here.
    async fn step(&mut self) -> Result<bool, ApiError> {
        let Some(mut lease) = answer("to read the Lease", self.api.get_opt(self.name)).await?
        else {
            warn!("waiting for the Lease {}, which the chart makes", self.name);
            return Ok(false);
        };
        let is_ours = lease.spec.holder_identity.as_deref() == Some(&self.identity);
        if !is_ours && !self.has_expired(&lease.spec) {
            return Ok(false);
        }
        lease.spec = self.held(&lease.spec);
        self.write(lease).await
    }

    /// Whether another holder has not renewed the Lease for as long as it was watched here.
    fn has_expired(&mut self, spec: &LeaseSpec) -> bool {
        if spec.holder_identity.as_deref().is_none_or(str::is_empty) {
            return true;
        }
        match &self.seen {
            Some((seen, since)) if seen == spec => since.elapsed() > DURATION,
            _ => {
                self.seen = Some((spec.clone(), Instant::now()));
                false
            }
        }
    }

    /// The Lease as it is when it is held here.
    fn held(&self, before: &LeaseSpec) -> LeaseSpec {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let is_new = before.holder_identity.as_deref() != Some(&self.identity);
        if is_new {
            info!(identity = self.identity, "this controller takes the Lease");
        }
        let transitions = before.lease_transitions.unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(DURATION.as_secs()),
            acquire_time: if is_new { Some(now.clone()) } else { before.acquire_time.clone() },
            renew_time: Some(now),
            lease_transitions: Some(transitions + u64::from(is_new)),
        }
    }

    /// Writes the Lease, unless another controller was faster.
    async fn write(&self, lease: Held) -> Result<bool, ApiError> {
        let params = PostParams::default();
        let replaced = self.api.replace(self.name, &params, &lease);
        match answer("to write the Lease", replaced).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lets another controller take the Lease at once.
    async fn release(&self) -> Result<(), ApiError> {
        let mut lease = answer("to read the Lease", self.api.get(self.name)).await?;
        if lease.spec.holder_identity.as_deref() == Some(&self.identity) {
            lease.spec.holder_identity = Some(String::new());
            self.write(lease).await?;
            info!("the Lease is released");
        }
        Ok(())
    }
}
