//! A machine that boots: a minimal Debian with systemd as its pid 1, on the network of the test
//! bed's node, with the node's cgroup root and bpffs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use testbed::{
    Executor, ExecutorOptions, Rig,
    clients::{LoadOptions, LoadProcess},
    customer::{DnsServer, LoadBalancer},
    process::{Finished, until},
    service::Service,
    workspace,
};

/// Longest time of a step: dpkg and systemd wait for a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
const BOOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/package/boot.sh");

/// The machine, an executor of its node, and the customer.
pub(crate) struct Machine {
    pub(crate) executor: Executor,
    init: Service,
    /// The pid of systemd, as this process sees it.
    pid: u32,
    _dns: DnsServer,
    _balancers: [LoadBalancer; 2],
    // Last, as the namespaces must outlive their users.
    pub(crate) rig: Rig,
}

impl Machine {
    pub(crate) fn boot() -> Self {
        let root = workspace::debian_root();
        assert!(root.is_dir(), "{} is missing: run `cargo xtask setup`", root.display());
        let rig = Rig::new().unwrap();
        let executor = rig.executor(ExecutorOptions::pod("job")).unwrap();
        let dns = rig.customer.dns_server().unwrap();
        let balancers = [1, 2].map(|number| rig.customer.load_balancer(number).unwrap());
        let work = rig.files().join("machine");
        fs::create_dir(&work).unwrap();
        let mut boot = rig.node.command("sh");
        boot.arg(BOOT).arg(&root).arg(&work);
        let init = Service::start("systemd", &rig.files().join("systemd.log"), boot).unwrap();
        let (_dns, _balancers) = (dns, balancers);
        let mut machine = Self { executor, init, pid: 0, _dns, _balancers, rig };
        machine.wait_until_booted();
        machine
    }

    fn wait_until_booted(&mut self) {
        let procs = "/sys/fs/cgroup/init.scope/cgroup.procs";
        let sandbox = self.rig.node.sandbox();
        let mut pid: Option<u32> = None;
        self.init
            .wait_ready(LIMIT, || {
                let text = sandbox.read(procs).unwrap_or_default();
                pid = text.lines().next().and_then(|line| line.parse().ok());
                Ok(pid.is_some())
            })
            .unwrap();
        self.pid = pid.unwrap();
        let is_up = || Ok(self.run("systemctl is-system-running").stdout.trim() == "running");
        until("systemd has started everything", LIMIT, is_up)
            .unwrap_or_else(|error| panic!("{error}\n{}", self.run("systemctl --failed").text()));
    }

    /// A line of shell on the machine.
    pub(crate) fn run(&self, line: &str) -> Finished {
        let mut command = Command::new("nsenter");
        command
            .args(["--all", "--root", "--wd", "--target", &self.pid.to_string()])
            .args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"])
            .args(["DEBIAN_FRONTEND=noninteractive", "sh", "-c", line]);
        testbed::process::finish(command, LIMIT).unwrap()
    }

    /// A line of shell on its network, with the programs of this machine.
    pub(crate) fn on_its_network(&self, line: &str) -> Finished {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.pid.to_string(), "sh", "-c", line]);
        testbed::process::finish(command, LIMIT).unwrap()
    }

    /// As [`Machine::run`]; the command must succeed. Returns its standard output.
    pub(crate) fn ok(&self, line: &str) -> String {
        let done = self.run(line);
        assert!(done.status.success(), "{line}\n{}\n{}", done.text(), self.journal());
        done.stdout.trim_end().to_owned()
    }

    pub(crate) fn assert_active(&self) {
        assert_eq!(self.unit("ActiveState"), "active", "{}", self.journal());
    }

    fn journal(&self) -> String {
        self.run("journalctl --unit redirector --no-pager --lines 30").text()
    }

    /// A property of the unit.
    pub(crate) fn unit(&self, property: &str) -> String {
        self.ok(&format!("systemctl show --value --property {property} redirector"))
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).unwrap();
    }

    /// A path of the machine, as this process sees it.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid))
    }

    /// Installs a package, and keeps changed configuration files.
    pub(crate) fn install(&self, package: &Path) -> Finished {
        fs::copy(package, self.path("/root/redirector.deb")).unwrap();
        self.run("dpkg --install --force-confold /root/redirector.deb")
    }

    /// The internal name's address, as the executor sees it.
    pub(crate) fn vip(&self, name: &str) -> String {
        let line = format!("getent ahostsv4 {name} | head -n 1 | cut -d' ' -f1");
        self.executor.run(&line, LIMIT).unwrap().stdout.trim().to_owned()
    }

    /// Connects to the virtual address, a thousand times a second.
    pub(crate) fn load(&self, vip: &str, seconds: f64) -> LoadProcess {
        let target = format!("{vip}:8080").parse().unwrap();
        let options = LoadOptions::greeted_by(&["lb1", "lb2"], target, 1000, seconds);
        LoadProcess::start(self.executor.sandbox(), &options).unwrap()
    }
}
