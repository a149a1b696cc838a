//! A user of the node without privileges, who may have containers.

use std::ffi::OsStr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::executor::{Executor, ExecutorOptions, Network};
use crate::isolation::mounts::ResolvConf;
use crate::isolation::sandbox::Sandbox;
use crate::packages;
use crate::process;
use crate::rig::Rig;
use crate::workspace;

/// Longest time of the preparation.
const LIMIT: Duration = Duration::from_secs(60);
/// The cgroup of the user's own systemd.
const SYSTEMD: &str = "user.slice/user-70000.slice/user@70000.service";
/// What `XDG_RUNTIME_DIR` is.
pub(super) const RUNTIME: &str = "/run/user/70000";

/// Makes the account with its subordinate IDs, and what udev and systemd would give it. Runs as
/// root, in a mount namespace of its own. A folder above the tests' programs may be root's alone.
const PREPARE: &str = r#"
set -e
home=$1 programs=$2 runtime=$3
echo "job:x:70000:70000::$home:/bin/sh" >>/etc/passwd
echo "job:x:70000:" >>/etc/group
echo "job:200000:65536" | tee /etc/subuid >/etc/subgid
mkdir -p "${runtime%/*}"
install -d -m 700 -o job -g job "$runtime"
chown job:job "$home"
mknod -m 666 /run/tun c 10 200
mount --bind /run/tun /dev/net/tun
folder=$programs closed=
while [ "$folder" != / ]; do
    setpriv --reuid=job --clear-groups test -x "$folder" || closed="$folder $closed"
    folder=$(dirname "$folder")
done
for folder in $closed; do
    private=/run/opened$folder
    mkdir -p "$private/upper" "$private/work"
    mount -t overlay overlay "$folder" \
        -o "lowerdir=$folder,upperdir=$private/upper,workdir=$private/work"
    chmod o+x "$folder"
done
"#;

/// The user `job`, and the place of the processes that connect for its containers.
#[derive(Debug)]
pub struct RootlessUser {
    host: Executor,
}

impl RootlessUser {
    /// Makes the user. `cgroup` is that of the processes which connect for containers, below the
    /// one of the user's own systemd.
    pub fn new(rig: &Rig, cgroup: &str, resolv: ResolvConf) -> Result<Self> {
        let host = rig.executor(ExecutorOptions {
            name: "rootless".to_owned(),
            resolv,
            network: Network::Host,
            cgroup: Some(format!("{SYSTEMD}/{cgroup}")),
        })?;
        let mut prepare = host.command("/bin/sh");
        prepare.args(["-c", PREPARE, "sh"]).arg(host.sandbox().home());
        prepare.arg(workspace::target_dir()).arg(RUNTIME);
        process::finish(prepare, LIMIT)?.success().context("failed to make a user")?;
        Ok(Self { host })
    }

    /// The node's network as the user's processes see it; its commands are root's.
    pub fn host(&self) -> &Executor {
        &self.host
    }

    /// The cgroup `cgroup` of the user's own systemd, with the same namespaces.
    pub fn beside(&self, cgroup: &str) -> Result<Sandbox> {
        self.host.beside(&format!("{SYSTEMD}/{cgroup}"))
    }

    /// A program of the user's, in `sandbox`.
    pub(super) fn command(&self, sandbox: &Sandbox, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = sandbox.command(packages::path_of("setpriv")?);
        command.args(["--reuid=job", "--regid=job", "--init-groups", "--pdeathsig=keep"]);
        command.arg(program);
        command.env("HOME", self.host.sandbox().home()).env("XDG_RUNTIME_DIR", RUNTIME);
        Ok(command)
    }
}
