//! A micro-VM: qemu without KVM, its network card a tap device that a bridge joins to a veth pair,
//! in a sandbox of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::guest::Guest;
use super::initramfs;
use super::micro_vm_host::MicroVmHost;
use super::serial_shell::SerialShell;
use crate::isolation::mounts::{ResolvConf, View};
use crate::isolation::namespaces::Namespaces;
use crate::isolation::network;
use crate::isolation::sandbox::Sandbox;
use crate::packages;
use crate::process::Finished;
use crate::service::Service;

/// Longest time to boot, all of it emulated on a busy machine.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// Longest time until qemu listens for the other end of the serial line.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How a micro-VM's tap device is joined to the veth pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wiring {
    /// By a bridge, as ignite does.
    #[default]
    Bridge,
    /// By filters that redirect every frame, as Kata does (`internetworking_model="tcfilter"`).
    Mirror,
}

/// How a micro-VM is made.
#[derive(Clone, Debug)]
pub struct MicroVmOptions {
    /// Its number on this host, from 2 to 254: its address is 10.61.0.NUMBER.
    pub number: u8,
    /// Its /etc/resolv.conf.
    pub resolv: ResolvConf,
    /// A certificate authority that it trusts, PEM.
    pub ca_pem: String,
    /// Further files, each with its path and its path on this machine; they must be executable.
    pub programs: Vec<(String, PathBuf)>,
    /// How its tap device is joined to the host.
    pub wiring: Wiring,
}

/// A micro-VM that runs. It is killed when dropped.
#[derive(Debug)]
pub struct MicroVm {
    service: Service,
    shell: SerialShell,
    _sandbox: Sandbox,
}

impl MicroVm {
    /// Boots one; returns when it takes commands.
    pub fn start(host: &MicroVmHost, options: &MicroVmOptions) -> Result<Self> {
        let number = options.number;
        let scope = host.node.scope();
        let stage = scope.folder(&format!("stage-vm{number}"))?;
        let namespaces = Namespaces::create(|| View::new(&stage, &options.resolv).map(drop))?;
        plug_in(host, &namespaces, options)?;
        // Where the platform's container of a micro-VM would be; no cgroup program sees the guest.
        let cgroup = Path::new(crate::node::ROOT).join(format!("docker/vm{number}"));
        let sandbox = Sandbox::new(scope, Arc::new(namespaces), &cgroup, &format!("vm{number}"))?;
        let folder = sandbox.folder("vm")?;
        write_initramfs(&folder, options)?;
        let line = folder.join("serial");
        let mut service = Service::start(
            &format!("micro-VM {number}"),
            &folder.join("qemu.log"),
            emulator(&sandbox, &folder, number)?,
        )?;
        let mut shell = None;
        service.wait_ready(START_LIMIT, || {
            shell = SerialShell::connect(&line).ok();
            Ok(shell.is_some())
        })?;
        let shell = shell.context("qemu has no serial line")?;
        shell.wait_ready(BOOT_LIMIT).with_context(|| {
            let console = fs::read_to_string(folder.join("console.log")).unwrap_or_default();
            format!("the micro-VM did not boot; its console: {console}")
        })?;
        Ok(Self { service, shell, _sandbox: sandbox })
    }

    /// The emulator's pid.
    pub fn pid(&self) -> u32 {
        self.service.pid()
    }
}

impl Guest for MicroVm {
    fn run(&self, line: &str, limit: Duration) -> Result<Finished> {
        self.shell.run(line, limit).with_context(|| format!("failed to run `{line}` in a micro-VM"))
    }
}

/// The way of a guest's frames: tap0 and eth0 in the sandbox, `vmN` and ignite0 on the host.
fn plug_in(host: &MicroVmHost, namespaces: &Namespaces, options: &MicroVmOptions) -> Result<()> {
    let number = options.number;
    let path = namespaces.net_path();
    host.node.namespaces().run(|| {
        network::ip(&format!(
            "link add vm{number} type veth peer name eth0 netns {path}\n\
             link set vm{number} master ignite0 up\n"
        ))
    })??;
    namespaces.run(|| {
        network::ip(
            "link set lo up\n\
             tuntap add dev tap0 mode tap vnet_hdr\n\
             link set tap0 up\n\
             link set eth0 up\n",
        )?;
        match options.wiring {
            Wiring::Bridge => network::ip(
                "link add br0 type bridge\n\
                 link set tap0 master br0\n\
                 link set eth0 master br0\n\
                 link set br0 up\n",
            ),
            Wiring::Mirror => {
                network::tc(&[mirror("eth0", "tap0"), mirror("tap0", "eth0")].concat())
            }
        }
    })?
}

/// Redirects every frame that `from` receives out of `to`.
fn mirror(from: &str, to: &str) -> String {
    format!(
        "qdisc add dev {from} ingress\n\
         filter add dev {from} parent ffff: protocol all u32 match u8 0 0 \
         action mirred egress redirect dev {to}\n"
    )
}

fn write_initramfs(folder: &Path, options: &MicroVmOptions) -> Result<()> {
    let network = format!("address=10.61.0.{}/16\ngateway=10.61.0.1\n", options.number);
    let resolv = options.resolv.text();
    let own = initramfs::own(
        &[
            ("etc/guest.conf", &network),
            ("etc/resolv.conf", &resolv),
            ("etc/ca.pem", &options.ca_pem),
            ("etc/nsswitch.conf", "hosts: files dns\n"),
            ("etc/hosts", "127.0.0.1 localhost\n"),
        ],
        &options.programs,
    )?;
    let path = folder.join("initramfs");
    fs::write(&path, [initramfs::base()?, &own].concat())
        .with_context(|| format!("failed to write {}", path.display()))
}

/// Always TCG: KVM may be present without being able to run this kernel.
fn emulator(sandbox: &Sandbox, folder: &Path, number: u8) -> Result<std::process::Command> {
    let mut command = sandbox.command(packages::path_of("qemu-system-x86_64")?);
    command.args("-accel tcg -cpu max -M q35 -m 384 -smp 1 -nodefaults".split(' '));
    command.args("-no-user-config -no-reboot -display none".split(' '));
    let at = |name: &str| folder.join(name).display().to_string();
    command.args(["-serial", &format!("file:{}", at("console.log"))]);
    command.args(["-serial", &format!("unix:{},server=on,wait=off", at("serial"))]);
    command.args(["-netdev", "tap,id=net,ifname=tap0,script=no,downscript=no"]);
    let card = format!("virtio-net-pci,netdev=net,romfile=,mac=52:54:00:61:00:{number:02x}");
    command.args(["-device", &card]);
    command.arg("-kernel").arg(initramfs::kernel()?).args(["-initrd", &at("initramfs")]);
    command.args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on"]);
    Ok(command)
}
