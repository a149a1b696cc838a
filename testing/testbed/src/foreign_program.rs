//! A foreign program on one of the redirector's hooks, loaded and attached without a link, as other
//! products do it.

use std::{
    fs::File,
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

pub use aya_obj::generated::bpf_attach_type;
use aya_obj::generated::{bpf_cmd, bpf_prog_type};

/// The name that the kernel shows for it.
pub const NAME: &str = "foreign_program";

/// How a foreign program attaches: `BPF_PROG_ATTACH` with these flags.
#[derive(Clone, Copy, Debug)]
pub enum AttachMode {
    /// The only program; none may attach below.
    Exclusive = 0,
    /// A program further down replaces it (`BPF_F_ALLOW_OVERRIDE`).
    Override = 1,
    /// Beside others (`BPF_F_ALLOW_MULTI`).
    Multi = 2,
}

/// The attributes of `BPF_PROG_LOAD`, as far as they are needed.
#[repr(C)]
pub(crate) struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    unused: [u64; 3],
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

impl Load {
    /// For a program of this kind; `code` must outlive the call.
    pub(crate) fn new(kind: bpf_prog_type, label: &str, code: &[u64]) -> Self {
        let mut name = [0; 16];
        name[..label.len()].copy_from_slice(label.as_bytes());
        Self {
            kind: kind as u32,
            instructions: code.len() as u32,
            code: code.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            unused: [0; 3],
            name,
            interface: 0,
            attach_type: 0,
        }
    }

    /// Loads it, and returns the descriptor.
    pub(crate) fn call(mut self) -> io::Result<i32> {
        bpf(bpf_cmd::BPF_PROG_LOAD, &mut self)
    }
}

/// The attributes of `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
struct Attach {
    cgroup: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

/// Calls bpf(2).
pub(crate) fn bpf<T>(command: bpf_cmd, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the attributes are live, and the kernel gets their size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_int,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// A program for a hook of a cgroup.
#[derive(Debug)]
pub struct ForeignProgram {
    program: OwnedFd,
    cgroup: File,
    attach_type: bpf_attach_type,
}

/// One instruction, as the kernel has it in memory.
pub(crate) fn instruction(code: u8, registers: u8, offset: i16, value: u32) -> u64 {
    u64::from(code)
        | u64::from(registers) << 8
        | u64::from(offset as u16) << 16
        | u64::from(value) << 32
}

impl ForeignProgram {
    /// A connect4 program that forbids connects to `address`. Not attached yet.
    pub fn denying(cgroup: &str, address: Ipv4Addr) -> Self {
        let address = u32::from_ne_bytes(address.octets());
        let code = [
            instruction(0x61, 0x12, 4, 0), // r2 = ctx->user_ip4, network byte order
            instruction(0xb7, 0x00, 0, 1), // r0 = 1: allow
            instruction(0x56, 0x02, 1, address), // if w2 != address, skip one
            instruction(0xb7, 0x00, 0, 0), // r0 = 0: deny
            instruction(0x95, 0x00, 0, 0), // exit
        ];
        Self::load(cgroup, bpf_attach_type::BPF_CGROUP_INET4_CONNECT, &code)
    }

    /// A program that changes nothing, on a hook of socket addresses. Not attached yet.
    pub fn allowing(cgroup: &str, attach_type: bpf_attach_type) -> Self {
        let code = [
            instruction(0xb7, 0x00, 0, 1), // r0 = 1: allow
            instruction(0x95, 0x00, 0, 0), // exit
        ];
        Self::load(cgroup, attach_type, &code)
    }

    fn load(cgroup: &str, attach_type: bpf_attach_type, code: &[u64]) -> Self {
        let mut load = Load::new(bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, NAME, code);
        load.attach_type = attach_type as u32;
        let program = load.call().unwrap();
        // SAFETY: the kernel has just made this descriptor for us.
        let program = unsafe { OwnedFd::from_raw_fd(program) };
        Self { program, cgroup: File::open(cgroup).unwrap(), attach_type }
    }

    fn attributes(&self, flags: u32) -> Attach {
        let (cgroup, program) = (self.cgroup.as_raw_fd() as u32, self.program.as_raw_fd() as u32);
        Attach { cgroup, program, attach_type: self.attach_type as u32, flags }
    }

    /// Attaches it.
    pub fn attach(&self, mode: AttachMode) {
        bpf(bpf_cmd::BPF_PROG_ATTACH, &mut self.attributes(mode as u32)).unwrap();
    }

    /// Detaches it.
    pub fn detach(&self) {
        bpf(bpf_cmd::BPF_PROG_DETACH, &mut self.attributes(0)).unwrap();
    }
}
