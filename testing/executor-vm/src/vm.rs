//! The machine: qemu without KVM, on a bridge with the node's uplink.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use testbed::{
    Rig, capture,
    customer::{DnsServer, LoadBalancer, Registry},
    guests::SerialShell,
    packages,
    process::Finished,
    service::Service,
    workspace,
};

use crate::image::{self, Image};

/// Longest time to boot. All of it is emulated: a minute on an idle machine.
const BOOT_LIMIT: Duration = Duration::from_secs(600);
/// Longest time until qemu listens for the other end of the serial line.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Longest time of a command.
const LIMIT: Duration = Duration::from_secs(300);
/// Where the machine has its input.
const INPUT_DISK: &str = "/dev/vdb";

/// Gives the node's uplink to the machine, which has the node's addresses itself.
const WIRING: &str = "ip addr flush dev uplink && ip link add vms type bridge && \
    ip link set uplink master vms && ip tuntap add dev tap0 mode tap vnet_hdr && \
    ip link set tap0 master vms && ip link set tap0 up && ip link set vms up";

/// A file that is in the machine's /root from the first boot on.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its name.
    pub name: &'static str,
    /// Its content.
    pub content: Vec<u8>,
}

/// A machine that runs. It is killed when dropped, and its disk forgotten.
#[derive(Debug)]
pub struct Vm {
    shell: SerialShell,
    /// Every command with its output, for a person.
    transcript: File,
    _service: Service,
    _registry: Registry,
    _balancers: [LoadBalancer; 2],
    _dns: DnsServer,
    // Last, as the namespaces must outlive their users.
    rig: Rig,
}

impl Vm {
    /// Boots the image; returns when everything has started. Its /root has the input, and `ca.crt`,
    /// the certificate of the customer's authority.
    ///
    /// # Errors
    ///
    /// If the image is missing, or the machine does not boot; with the end of its console.
    pub fn boot(input: &[Input]) -> Result<Self> {
        let image = Image::in_folder(&image::home());
        ensure!(
            image.is_complete(),
            "{} has no image: `cargo xtask executor-vm` makes it",
            image::home().display()
        );
        let rig = Rig::new()?;
        let dns = rig.customer.dns_server()?;
        let balancers = [rig.customer.load_balancer(1)?, rig.customer.load_balancer(2)?];
        let registry = rig.customer.registry()?;
        rig.node.sandbox().run(WIRING, START_LIMIT)?.success().context("failed to add a tap")?;
        let authority = Input { name: "ca.crt", content: rig.customer.ca_pem().into() };
        let folder = rig.files().join("executor-vm");
        pack(&folder, input.iter().chain([&authority]))?;
        let transcript = transcript()?;
        let (service, shell) = start(&rig, &folder, &image)?;
        let vm = Self {
            shell,
            transcript,
            _service: service,
            _registry: registry,
            _balancers: balancers,
            _dns: dns,
            rig,
        };
        vm.wait_until_booted()?;
        vm.ok(&format!("tar --extract --file {INPUT_DISK} --directory /root"))?;
        Ok(vm)
    }

    fn wait_until_booted(&self) -> Result<()> {
        self.shell.wait_ready(BOOT_LIMIT).with_context(|| {
            format!("the machine did not boot; its console:\n{}", self.console())
        })?;
        let state = self.run_within("systemctl is-system-running --wait", BOOT_LIMIT)?;
        ensure!(
            state.stdout.trim() == "running",
            "systemd is {}:\n{}",
            state.stdout.trim(),
            self.run("systemctl --failed --no-legend --plain")?.stdout
        );
        Ok(())
    }

    /// What the machine wrote on its first serial line.
    fn console(&self) -> String {
        let path = logs().join("console.log");
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
    }

    /// Runs a line of shell as root, as a service of the machine.
    ///
    /// # Errors
    ///
    /// If the machine does not answer in time; a failing exit status is none.
    pub fn run(&self, line: &str) -> Result<Finished> {
        self.run_within(line, LIMIT)
    }

    fn run_within(&self, line: &str, limit: Duration) -> Result<Finished> {
        let finished =
            self.shell.run(line, limit).with_context(|| format!("failed to run `{line}`"))?;
        let text = format!("$ {line}\n{}\n{}\n", finished.stdout, finished.status);
        (&self.transcript).write_all(text.as_bytes()).context("failed to write the transcript")?;
        Ok(finished)
    }

    /// As [`Vm::run`]; the command must succeed. Returns its output.
    ///
    /// # Errors
    ///
    /// The command's output if it fails.
    pub fn ok(&self, line: &str) -> Result<String> {
        let done = self.run(line)?.success().with_context(|| format!("`{line}`"))?;
        Ok(done.stdout.trim_end().to_owned())
    }

    /// Boots it again, and waits as [`Vm::boot`] does. The disk stays.
    ///
    /// # Errors
    ///
    /// As [`Vm::boot`].
    pub fn reboot(&self) -> Result<()> {
        // The shell answers before systemd ends it.
        self.ok("systemd-run --quiet --on-active=1 systemctl reboot")?;
        self.wait_until_booted()
    }

    /// Packets for virtual addresses that have left the machine, which must be 0.
    ///
    /// # Errors
    ///
    /// If the counter cannot be read.
    pub fn leaked_packets(&self) -> Result<u64> {
        self.rig.customer.leaked_packets()
    }
}

/// What the last machine wrote.
fn logs() -> PathBuf {
    workspace::target_dir().join("executor-vm")
}

/// An empty file for the commands and their output.
fn transcript() -> Result<File> {
    fs::create_dir_all(logs()).context("failed to make a folder for logs")?;
    let path = logs().join("transcript");
    File::create(&path).with_context(|| format!("failed to make {}", path.display()))
}

/// Starts qemu, and connects to the end of its serial line.
fn start(rig: &Rig, folder: &Path, image: &Image) -> Result<(Service, SerialShell)> {
    let command = emulator(rig, folder, image)?;
    let mut service = Service::start("qemu", &folder.join("qemu.log"), command)?;
    let mut shell = None;
    service.wait_ready(START_LIMIT, || {
        shell = SerialShell::connect(&folder.join("serial")).ok();
        Ok(shell.is_some())
    })?;
    Ok((service, shell.context("qemu has no serial line")?))
}

/// Packs the input as an archive, which the machine reads from a disk of its own.
fn pack<'a>(folder: &Path, input: impl Iterator<Item = &'a Input>) -> Result<()> {
    let files = folder.join("input");
    fs::create_dir_all(&files).with_context(|| format!("failed to make {}", files.display()))?;
    for Input { name, content } in input {
        fs::write(files.join(name), content).with_context(|| format!("failed to write {name}"))?;
    }
    let mut tar = Command::new("tar");
    tar.args(["--create", "--directory"]).arg(&files).arg("--file").arg(folder.join("input.tar"));
    capture::run(tar.arg("."), |_| {}).map(drop)
}

/// Always TCG: KVM may be present without being able to run this kernel.
fn emulator(rig: &Rig, folder: &Path, image: &Image) -> Result<Command> {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get().min(4));
    let mut command = rig.node.sandbox().command(packages::path_of("qemu-system-x86_64")?);
    command.args(["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max", "-M", "q35"]);
    command.args(["-smp", &cores.to_string()]);
    command.args("-m 2048 -nodefaults -no-user-config -display none -monitor none".split(' '));
    let at = |name: &str| folder.join(name).display().to_string();
    command.args(["-serial", &format!("file:{}", logs().join("console.log").display())]);
    command.args(["-serial", &format!("unix:{},server=on,wait=off", at("serial"))]);
    command.arg("-kernel").arg(&image.kernel).arg("-initrd").arg(&image.initrd);
    command.args(["-append", "console=ttyS0 root=/dev/vda rw panic=5 quiet"]);
    // What the machine writes is forgotten with it.
    let disk =
        format!("file={},if=virtio,format=raw,snapshot=on,cache=unsafe", image.disk.display());
    command.args(["-drive", &disk]);
    let input = format!("file={},if=virtio,format=raw,read-only=on", at("input.tar"));
    command.args(["-drive", &input, "-device", "virtio-rng-pci"]);
    command.args(["-netdev", "tap,id=net,ifname=tap0,script=no,downscript=no"]);
    command.args(["-device", "virtio-net-pci,netdev=net,romfile=,mac=52:54:00:33:64:01"]);
    Ok(command)
}
