//! Links to the TCX hook of an interface (6.6), by bpf(2): aya attaches by name, and lists the
//! programs of a hook with a command that takes CAP_SYS_ADMIN.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use aya_obj::generated::bpf_cmd;
use redirector_common::names::Direction;

use crate::datapath::{
    attach::interfaces::target::direction_name,
    sys::{ProgQuery, bpf},
};

/// `BPF_F_BEFORE`: without another program's ID, in front of all that are there.
const BEFORE: u32 = 1 << 3;

/// More than a hook can have (`BPF_MPROG_MAX`).
const MAX_PROGRAMS: usize = 64;

/// The index of `lo` in every network namespace.
const LO: u32 = 1;

/// The attributes of `BPF_LINK_CREATE` for the TCX hook.
#[repr(C, align(8))]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative_fd: u32,
    pad: u32,
    expected_revision: u64,
}

/// A program on the hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    /// Its ID.
    pub(crate) program: u32,
    /// The ID of its link; 0 if it is attached without one.
    pub(crate) link: u32,
}

/// Whether this kernel has the hook.
pub(crate) fn is_supported() -> bool {
    list(LO, Direction::Egress).is_ok()
}

/// Attaches `program` in front of all others.
pub(crate) fn attach_first(
    program: BorrowedFd<'_>,
    interface: u32,
    direction: Direction,
) -> io::Result<OwnedFd> {
    let mut attributes = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        target_ifindex: interface,
        attach_type: direction.attach_type(),
        flags: BEFORE,
        relative_fd: 0,
        pad: 0,
        expected_revision: 0,
    };
    let fd = bpf(bpf_cmd::BPF_LINK_CREATE, &mut attributes)?;
    // SAFETY: the kernel has just created this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The programs on the hook, in the order in which they run.
pub(crate) fn list(interface: u32, direction: Direction) -> io::Result<Vec<Attached>> {
    let (mut programs, mut links) = ([0_u32; MAX_PROGRAMS], [0_u32; MAX_PROGRAMS]);
    let mut attributes = ProgQuery {
        target_fd: interface,
        attach_type: direction.attach_type(),
        prog_ids: programs.as_mut_ptr() as u64,
        prog_cnt: MAX_PROGRAMS as u32,
        link_ids: links.as_mut_ptr() as u64,
        ..ProgQuery::default()
    };
    bpf(bpf_cmd::BPF_PROG_QUERY, &mut attributes)?;
    let found = programs.into_iter().zip(links).take(attributes.prog_cnt as usize);
    Ok(found.map(|(program, link)| Attached { program, link }).collect())
}

/// A foreign program, for messages. Its name takes CAP_SYS_ADMIN.
pub(crate) fn label(direction: Direction, other: &Attached) -> String {
    format!("tcx {}: ID {}", direction_name(direction), other.program)
}
