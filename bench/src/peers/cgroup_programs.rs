//! Programs on the hooks of a cgroup, of a few instructions.
//!
//! Every object is gone with its descriptor.

use std::{
    fs::File,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use testbed::Sandbox;

use crate::bpf::{self, Attributes, EXIT, Instruction, MOV_IMMEDIATE};

/// `BPF_LINK_CREATE`.
const LINK_CREATE: i64 = 28;

const SOCK: u32 = 9;
const SOCK_OPS: u32 = 13;
const SOCK_ADDR: u32 = 18;

/// A hook: its name, the type of its programs, and its number (`enum bpf_attach_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hook {
    pub(crate) name: &'static str,
    program_type: u32,
    pub(crate) number: u32,
}

pub(crate) const CONNECT4: Hook = Hook { name: "connect4", program_type: SOCK_ADDR, number: 10 };
pub(crate) const GETPEERNAME4: Hook =
    Hook { name: "getpeername4", program_type: SOCK_ADDR, number: 29 };

pub(crate) const SOCK_RELEASE: Hook = Hook { name: "sock_release", program_type: SOCK, number: 34 };

/// The hooks that a TCP connect or a UDP one passes where the redirector is attached.
pub(crate) const HOOKS: [Hook; 6] = [
    CONNECT4,
    Hook { name: "connect6", program_type: SOCK_ADDR, number: 11 },
    GETPEERNAME4,
    Hook { name: "getpeername6", program_type: SOCK_ADDR, number: 30 },
    Hook { name: "sock_ops", program_type: SOCK_OPS, number: 3 },
    SOCK_RELEASE,
];

/// `r0 = 1; exit`: allow, and nothing else.
pub(crate) const EMPTY: &[Instruction] = &[(MOV_IMMEDIATE, 0, 0, 0, 1), (EXIT, 0, 0, 0, 0)];

/// Programs on a cgroup. Detached when dropped.
#[derive(Debug)]
pub(crate) struct Attached(
    #[expect(dead_code, reason = "held: closing the links detaches the programs")] Vec<OwnedFd>,
);

/// Attaches a program to each of some hooks of `cgroup`.
pub(crate) fn attach<'a>(
    cgroup: &File,
    programs: impl IntoIterator<Item = (Hook, &'a [Instruction])>,
) -> Result<Attached> {
    let links = programs.into_iter().map(|(hook, program)| link(cgroup, hook, program));
    Ok(Attached(links.collect::<Result<_>>()?))
}

/// Attaches a program that does nothing to every hook of `cgroup`.
pub(crate) fn attach_empty(cgroup: &File) -> Result<Attached> {
    attach(cgroup, HOOKS.map(|hook| (hook, EMPTY)))
}

/// The cgroup of a sandbox.
pub(crate) fn cgroup(sandbox: &Sandbox) -> Result<File> {
    File::open(sandbox.cgroup())
        .with_context(|| format!("failed to open {}", sandbox.cgroup().display()))
}

fn link(cgroup: &File, hook: Hook, program: &[Instruction]) -> Result<OwnedFd> {
    let program = bpf::load(hook.program_type, hook.number, program)
        .with_context(|| format!("failed to load a program for {}", hook.name))?;
    let mut attributes = Attributes::default();
    attributes
        .word(0, program.as_raw_fd() as u32)
        .word(4, cgroup.as_raw_fd() as u32)
        .word(8, hook.number);
    attributes
        .descriptor(LINK_CREATE)
        .with_context(|| format!("failed to attach a program to {}", hook.name))
}
