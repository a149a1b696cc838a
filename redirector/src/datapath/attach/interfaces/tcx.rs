//! Links to the TCX hook of an interface (6.6), by bpf(2): aya attaches by name, and lists the
//! programs of a hook with a command that takes CAP_SYS_ADMIN.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use aya_obj::generated::bpf_cmd;
use redirector_common::names::Direction;

use crate::datapath::{
    attach::interfaces::target::direction_name,
    sys::{self, ProgQuery, bpf},
};

/// `BPF_F_BEFORE`: without another program's ID, in front of all that are there.
const BEFORE: u32 = 1 << 3;

/// More than a hook can have (`BPF_MPROG_MAX`).
const MAX_PROGRAMS: usize = 64;

/// The index of `lo` in every network namespace.
const LO: u32 = 1;

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
    sys::create_link(program, interface, direction.attach_type(), BEFORE)
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
