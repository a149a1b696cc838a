//! A foreign program on the traffic-control hooks of an interface, as other products attach it.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_prog_type};

use crate::foreign_program::{Load, bpf, instruction};

/// The name that the kernel shows for it.
const NAME: &str = "foreign_filter";

/// `TC_ACT_OK`: the packet passes, and no later program sees it.
pub const ENDS_THE_CHAIN: i32 = 0;
/// `TCX_NEXT` and `TC_ACT_UNSPEC`: the next program decides.
pub const CONTINUES: i32 = -1;

/// Where a link is put on the hook.
#[derive(Clone, Copy, Debug)]
pub enum TcxOrder {
    /// In front of all others (`BPF_F_BEFORE`).
    First,
    /// Behind all others (`BPF_F_AFTER`).
    Last,
}

/// The attributes of `BPF_LINK_CREATE` for an interface.
#[repr(C)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    pad: u32,
    revision: u64,
}

/// The attributes of `BPF_OBJ_PIN`.
#[repr(C)]
struct Pin {
    path: u64,
    descriptor: u32,
    flags: u32,
}

/// The attributes of `BPF_PROG_QUERY`.
#[repr(C)]
#[derive(Default)]
struct Query {
    interface: u32,
    attach_type: u32,
    flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    pad: u32,
    unused: [u64; 4],
}

/// The IDs of the programs on an interface's TCX hook, in the order in which they run.
pub fn tcx_programs(interface: u32, ingress: bool) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; 64];
    let mut query = Query {
        interface,
        attach_type: attach_type(ingress) as u32,
        programs: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        ..Query::default()
    };
    bpf(bpf_cmd::BPF_PROG_QUERY, &mut query)?;
    ids.truncate(query.count as usize);
    Ok(ids)
}

fn attach_type(ingress: bool) -> bpf_attach_type {
    match ingress {
        true => bpf_attach_type::BPF_TCX_INGRESS,
        false => bpf_attach_type::BPF_TCX_EGRESS,
    }
}

/// A classifier that returns one verdict for every packet.
#[derive(Debug)]
pub struct ForeignFilter {
    program: OwnedFd,
}

impl ForeignFilter {
    /// Loads one that returns `verdict`.
    pub fn returning(verdict: i32) -> io::Result<Self> {
        let code = [
            instruction(0xb7, 0x00, 0, verdict as u32), // r0 = verdict
            instruction(0x95, 0x00, 0, 0),              // exit
        ];
        let load = Load::new(bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS, NAME, &code);
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(Self { program: unsafe { OwnedFd::from_raw_fd(load.call()?) } })
    }

    /// Attaches it by a TCX link, which lives as long as the result.
    pub fn attach_tcx(
        &self,
        interface: u32,
        ingress: bool,
        order: TcxOrder,
    ) -> io::Result<OwnedFd> {
        let flags = match order {
            TcxOrder::First => 1 << 3,
            TcxOrder::Last => 1 << 4,
        };
        let mut attributes = LinkCreate {
            program: self.program.as_raw_fd() as u32,
            interface,
            attach_type: attach_type(ingress) as u32,
            flags,
            relative: 0,
            pad: 0,
            revision: 0,
        };
        let link = bpf(bpf_cmd::BPF_LINK_CREATE, &mut attributes)?;
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(unsafe { OwnedFd::from_raw_fd(link) })
    }

    /// Pins it, for `tc filter add … bpf direct-action object-pinned PATH`.
    pub fn pin(&self, path: &Path) -> io::Result<()> {
        let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
        let mut attributes = Pin {
            path: path.as_ptr() as u64,
            descriptor: self.program.as_raw_fd() as u32,
            flags: 0,
        };
        bpf(bpf_cmd::BPF_OBJ_PIN, &mut attributes).map(drop)
    }
}
