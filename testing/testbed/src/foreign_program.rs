//! A foreign program on one of the redirector's hooks, loaded and attached without a link, as other
//! products do it.

use std::{
    fs::File,
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

// Commands and numbers of bpf(2), uapi/linux/bpf.h.
const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_ATTACH: i32 = 8;
const BPF_PROG_DETACH: i32 = 9;
const CGROUP_SOCK_ADDR: u32 = 18;
const INET4_CONNECT: u32 = 10;

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
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    unused: [u64; 3],
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// The attributes of `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
struct Attach {
    cgroup: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

fn bpf<T>(command: i32, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the attributes are live, and their size is told.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// A connect4 program at a cgroup.
#[derive(Debug)]
pub struct ForeignProgram {
    program: OwnedFd,
    cgroup: File,
}

impl ForeignProgram {
    /// A program for this cgroup, which forbids connects to `address`. Not attached yet.
    pub fn at(cgroup: &str, address: Ipv4Addr) -> Self {
        let instruction = |code: u8, registers: u8, offset: i16, value: u32| {
            u64::from(code)
                | u64::from(registers) << 8
                | u64::from(offset as u16) << 16
                | u64::from(value) << 32
        };
        let code = [
            instruction(0x61, 0x12, 4, 0), // r2 = ctx->user_ip4, network byte order
            instruction(0xb7, 0x00, 0, 1), // r0 = 1: allow
            instruction(0x56, 0x02, 1, u32::from_ne_bytes(address.octets())), // if w2 != address, skip one
            instruction(0xb7, 0x00, 0, 0),                                    // r0 = 0: deny
            instruction(0x95, 0x00, 0, 0),                                    // exit
        ];
        let mut load = Load {
            kind: CGROUP_SOCK_ADDR,
            instructions: code.len() as u32,
            code: code.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            unused: [0; 3],
            name: *b"neighbour\0\0\0\0\0\0\0",
            interface: 0,
            attach_type: INET4_CONNECT,
        };
        let program = bpf(BPF_PROG_LOAD, &mut load).unwrap();
        // SAFETY: the kernel has just made this descriptor for us.
        Self {
            program: unsafe { OwnedFd::from_raw_fd(program) },
            cgroup: File::open(cgroup).unwrap(),
        }
    }

    fn attributes(&self, flags: u32) -> Attach {
        let (cgroup, program) = (self.cgroup.as_raw_fd() as u32, self.program.as_raw_fd() as u32);
        Attach { cgroup, program, attach_type: INET4_CONNECT, flags }
    }

    /// Attaches it.
    pub fn attach(&self, mode: AttachMode) {
        bpf(BPF_PROG_ATTACH, &mut self.attributes(mode as u32)).unwrap();
    }

    /// Detaches it.
    pub fn detach(&self) {
        bpf(BPF_PROG_DETACH, &mut self.attributes(0)).unwrap();
    }
}
