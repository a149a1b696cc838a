//! Containers that look the name up and connect all the time, while something happens to the agent.

use std::time::Duration;

use anyhow::{Result, ensure};
use executor_vm::Vm;
use testbed::process;

/// Longest time until each client has connected some times.
const LIMIT: Duration = Duration::from_secs(180);
/// A client on each kind of Docker's networks: the second one asks dockerd.
const NETWORKS: [&str; 2] = ["bridge", "user"];
/// Connects before an event, and after it.
const ENOUGH: usize = 10;

/// The clients, which run until [`Load::stop`]. Each writes a line for each time into a file of its
/// own on the machine.
pub(crate) struct Load<'a>(&'a Vm);

impl<'a> Load<'a> {
    pub(crate) fn start(vm: &'a Vm) -> Result<Self> {
        vm.ok("mkdir /root/clients")?;
        for network in NETWORKS {
            vm.ok(&format!(
                "docker run --detach --name {network} --network {network} \
                    --volume /root/clients:/clients job bash -c 'bash /load >/clients/{network}'"
            ))?;
        }
        Ok(Self(vm))
    }

    /// Lets `event` happen while the clients connect; no look-up or connect may fail. Returns how
    /// many there were.
    pub(crate) fn survives(&self, event: impl FnOnce() -> Result<()>) -> Result<String> {
        // Not at the clients' start: a new interface has the programs some milliseconds later.
        self.connect_more()?;
        let begin = NETWORKS.map(|network| self.lines(network).map(|lines| lines.len()));
        event()?;
        self.connect_more()?;
        let mut total = 0;
        for (network, begin) in NETWORKS.iter().zip(begin) {
            let lines = self.lines(network)?.split_off(begin?);
            let failures: Vec<_> = lines.iter().filter(|line| *line != "ok").collect();
            ensure!(failures.is_empty(), "on the network {network}: {failures:?}");
            total += lines.len();
        }
        Ok(format!("{total} look-ups and connects, none failed"))
    }

    /// Removes the clients.
    pub(crate) fn stop(self) -> Result<()> {
        self.0.ok(&format!("docker rm --force {}", NETWORKS.join(" "))).map(drop)
    }

    fn lines(&self, network: &str) -> Result<Vec<String>> {
        let text = self.0.ok(&format!("cat /root/clients/{network}"))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Waits until each client has connected some times more.
    fn connect_more(&self) -> Result<()> {
        for network in NETWORKS {
            let count = || -> Result<usize> {
                let line = format!("sleep 0.2; grep -c '^ok' /root/clients/{network}; true");
                Ok(self.0.ok(&line)?.trim().parse().unwrap_or(0))
            };
            let before = count()?;
            process::until("a client's connects", LIMIT, || Ok(count()? >= before + ENOUGH))?;
        }
        Ok(())
    }
}
