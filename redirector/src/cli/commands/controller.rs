//! `redirector controller`: compiles the routes of a cluster for its agents.

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    cli::{context::block_on, exit::Exit, io::Env, log_args::LogArgs},
    cluster, kubernetes,
};

/// `controller`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  redirector controller --namespace kube-system
  redirector controller --crds | kubectl apply -f -

Runs in a pod, as the Helm chart installs it with `controller.enabled`, or elsewhere with a \
kubeconfig. Of several controllers the one works that holds the Lease \
`redirector-controller`.")]
pub(crate) struct Controller {
    /// The namespace of the agents [default: that of this pod, or of the kubeconfig]
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    namespace: Option<String>,
    /// The name under which this controller holds the Lease [default: the host's name]
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    identity: Option<String>,
    /// Print the definitions of the custom resources, and end
    #[arg(long)]
    crds: bool,
    #[command(flatten)]
    log: LogArgs,
}

impl Controller {
    pub(crate) fn run(self, env: &mut Env<'_>) -> anyhow::Result<Exit> {
        if self.crds {
            write!(env.out, "{}", cluster::definitions())?;
            return Ok(Exit::Done);
        }
        self.log.start(env)?;
        block_on(self.serve())??;
        Ok(Exit::Done)
    }

    async fn serve(self) -> anyhow::Result<()> {
        let client = kubernetes::infer().await?;
        let namespace = self.namespace.unwrap_or_else(|| client.default_namespace().to_owned());
        let identity = self
            .identity
            .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
        info!(namespace, identity, "redirector {} is a controller", env!("CARGO_PKG_VERSION"));
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let mut terminate = signal(SignalKind::terminate()).context("failed to await signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("failed to await signals")?;
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            stop.cancel();
        });
        cluster::run_controller(client, (&namespace, identity), shutdown).await;
        Ok(())
    }
}
