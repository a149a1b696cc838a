//! Where programs run: namespaces, a cgroup, an environment.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::chdir;

use super::cgroup;
use super::namespaces::Namespaces;
use super::scope::RigScope;
use crate::process::{self, Finished};

/// Where Debian keeps programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A place where processes can be started. A clone is the same sandbox.
#[derive(Clone, Debug)]
pub struct Sandbox {
    namespaces: Arc<Namespaces>,
    /// Opened beforehand: a process that writes "0" to it enters the cgroup.
    cgroup_procs: Arc<File>,
    cgroup: PathBuf,
    home: PathBuf,
    environment: Vec<(String, String)>,
    /// Keeps the rig's cgroup and files until the last sandbox is gone.
    scope: Arc<RigScope>,
}

impl Sandbox {
    pub(crate) fn new(
        scope: &Arc<RigScope>,
        namespaces: Arc<Namespaces>,
        cgroup: &Path,
        name: &str,
    ) -> Result<Self> {
        let cgroup = scope.cgroup().join(cgroup);
        let cgroup_procs = Arc::new(cgroup::open_procs(&cgroup)?);
        let home = scope.folder(&format!("home-{name}"))?;
        let mut sandbox = Self {
            namespaces,
            cgroup_procs,
            cgroup,
            home,
            environment: Vec::new(),
            scope: Arc::clone(scope),
        };
        sandbox.set_environment("PATH", PATH);
        sandbox.set_environment("LANG", "C.UTF-8");
        Ok(sandbox)
    }

    /// The same namespaces seen from another cgroup of the rig, given relative to the rig's
    /// directory.
    pub(crate) fn in_cgroup(&self, cgroup: &Path, name: &str) -> Result<Self> {
        let mut sandbox = Self::new(&self.scope, Arc::clone(&self.namespaces), cgroup, name)?;
        sandbox.environment.clone_from(&self.environment);
        Ok(sandbox)
    }

    /// Sets a variable for programs started from now on. They inherit nothing of this process's
    /// own environment.
    pub fn set_environment(&mut self, key: &str, value: &str) {
        self.environment.retain(|(known, _)| known != key);
        self.environment.push((key.to_owned(), value.to_owned()));
    }

    /// The variables of its programs, without HOME.
    pub(crate) fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        self.environment.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Puts `folder` first in PATH.
    pub fn add_to_path(&mut self, folder: &Path) {
        let path =
            self.environment.iter().find(|(key, _)| key == "PATH").map_or(PATH, |(_, path)| path);
        let path = format!("{}:{path}", folder.display());
        self.set_environment("PATH", &path);
    }

    /// A command that runs `program` in this sandbox, in its home directory. It gets SIGKILL
    /// when the thread that spawned it ends; [`process::spawn_lasting`] spawns from a thread that
    /// lasts.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("HOME", &self.home)
            .envs(self.environment.iter().map(|(key, value)| (key, value)));
        process::die_with_parent(&mut command);
        let (namespaces, cgroup_procs) =
            (Arc::clone(&self.namespaces), Arc::clone(&self.cgroup_procs));
        let home =
            std::ffi::CString::new(self.home.as_os_str().as_encoded_bytes()).unwrap_or_default();
        // SAFETY: between fork and exec the closure only makes system calls on what was opened and
        // allocated before.
        unsafe {
            command.pre_exec(move || {
                rustix::io::write(cgroup_procs.as_fd(), b"0")?;
                namespaces.enter()?;
                Ok(chdir(home.as_c_str())?)
            });
        }
        command
    }

    /// A command that runs a line of shell.
    pub fn shell(&self, line: &str) -> Command {
        let mut command = self.command("/bin/sh");
        command.args(["-c", line]);
        command
    }

    /// Runs a line of shell to its end. An error only when it could not be started, or took longer
    /// than `limit`.
    pub fn run(&self, line: &str, limit: Duration) -> Result<Finished> {
        process::finish(self.shell(line), limit).with_context(|| format!("failed to run `{line}`"))
    }

    /// Its namespaces.
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// The path of its cgroup directory on the host.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Its home and working directory: a folder of the rig, at the same path on the host and in
    /// every sandbox.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// A folder of this name in its home, made when it is not there.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.home.join(name);
        fs::create_dir_all(&path).with_context(|| format!("failed to make {}", path.display()))?;
        Ok(path)
    }

    /// Writes a file, by its path in the sandbox.
    pub fn write(&self, path: impl AsRef<Path>, text: &str) -> Result<()> {
        let path = path.as_ref();
        self.namespaces
            .run(|| fs::write(path, text))?
            .with_context(|| format!("failed to write {} in a sandbox", path.display()))
    }

    /// Reads a file, by its path in the sandbox.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<String> {
        let path = path.as_ref();
        self.namespaces
            .run(|| fs::read_to_string(path))?
            .with_context(|| format!("failed to read {} in a sandbox", path.display()))
    }

    /// Whether something accepts connections at `address` in this sandbox.
    pub(crate) fn accepts_connections(&self, address: SocketAddr) -> Result<bool> {
        self.namespaces
            .run(|| TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok())
    }

    /// The rig's scope, for services that keep logs there.
    pub(crate) fn scope(&self) -> &Arc<RigScope> {
        &self.scope
    }

    /// Writes a script into the rig's folder that runs its arguments here, or a shell; returns its
    /// path. The script works while this process lives.
    pub fn shell_script(&self, name: &str) -> Result<PathBuf> {
        let environment: Vec<String> =
            self.environment.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let script = format!(
            "#!/bin/sh\n[ $# -gt 0 ] || set -- bash --norc\necho $$ >{}/cgroup.procs\n\
             exec nsenter --net={} --mount={} --wd={home} \
             env -i HOME={home} TERM=\"$TERM\" {} \"$@\"\n",
            self.cgroup.display(),
            self.namespaces.net_path(),
            self.namespaces.mount_path(),
            environment.join(" "),
            home = self.home.display(),
        );
        let path = self.scope.files().join(format!("enter-{name}"));
        fs::write(&path, script).with_context(|| format!("failed to write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("failed to make {} executable", path.display()))?;
        Ok(path)
    }
}
