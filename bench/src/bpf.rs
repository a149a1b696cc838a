//! bpf(2), for programs of a few instructions and for timing programs.
//!
//! Raw system calls, since a library would add to the cost of what is measured.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};

// Commands (`enum bpf_cmd`).
pub(crate) const MAP_CREATE: i64 = 0;
const MAP_UPDATE_ELEM: i64 = 2;
const PROG_LOAD: i64 = 5;
const PROG_TEST_RUN: i64 = 10;
const PROG_GET_FD_BY_ID: i64 = 13;
const PROG_QUERY: i64 = 16;
const LINK_CREATE: i64 = 28;

/// `BPF_PROG_TYPE_SCHED_CLS`.
const SCHED_CLS: u32 = 3;

/// Directions of the TCX hook (`enum bpf_attach_type`).
pub(crate) const TCX_INGRESS: u32 = 46;
pub(crate) const TCX_EGRESS: u32 = 47;

/// One instruction: operation, destination register, source register, offset, immediate.
pub(crate) type Instruction = (u8, u8, u8, i16, i32);

pub(crate) const MOV_IMMEDIATE: u8 = 0xb7;
pub(crate) const MOV: u8 = 0xbf;
pub(crate) const ADD_IMMEDIATE: u8 = 0x07;
pub(crate) const STORE_DOUBLE: u8 = 0x7b;
pub(crate) const JUMP_EQUAL: u8 = 0x15;
pub(crate) const CALL: u8 = 0x85;
pub(crate) const EXIT: u8 = 0x95;

/// `bpf_get_socket_cookie`.
pub(crate) const SOCKET_COOKIE: i32 = 46;

/// Sets register 1 to a map.
pub(crate) const fn load_map(map: i32) -> [Instruction; 2] {
    /// A constant of 64 bits; with source 1 (`BPF_PSEUDO_MAP_FD`) it is a map's descriptor.
    const LOAD_CONSTANT: u8 = 0x18;
    [(LOAD_CONSTANT, 1, 1, 0, map), (0, 0, 0, 0, 0)]
}

/// Sets a register to an address on the stack, by its offset from the frame pointer.
pub(crate) fn load_address(register: u8, offset: i16) -> [Instruction; 2] {
    [(MOV, register, 10, 0, 0), (ADD_IMMEDIATE, register, 0, 0, i32::from(offset))]
}

/// Creates a map of this type (`enum bpf_map_type`).
pub(crate) fn create_map(
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
) -> io::Result<OwnedFd> {
    let mut attributes = Attributes::default();
    attributes.word(0, kind).word(4, key_size).word(8, value_size).word(12, entries);
    attributes.descriptor(MAP_CREATE)
}

/// Writes an entry, whose key and value have the sizes of the map.
pub(crate) fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut attributes = Attributes::default();
    attributes.word(0, map.as_raw_fd() as u32).pointer(8, key.as_ptr()).pointer(16, value.as_ptr());
    attributes.call(MAP_UPDATE_ELEM).map(drop)
}

/// Loads a program for a hook with this number (`enum bpf_attach_type`).
pub(crate) fn load(kind: u32, hook: u32, program: &[Instruction]) -> io::Result<OwnedFd> {
    let encode = |&(operation, destination, source, offset, immediate): &Instruction| {
        let mut bytes = [operation, source << 4 | destination, 0, 0, 0, 0, 0, 0];
        bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
        bytes[4..].copy_from_slice(&immediate.to_ne_bytes());
        bytes
    };
    let code: Vec<u8> = program.iter().flat_map(encode).collect();
    let license = c"Dual MIT/GPL";
    let mut attributes = Attributes::default();
    attributes
        .word(0, kind)
        .word(4, program.len() as u32)
        .pointer(8, code.as_ptr())
        .pointer(16, license.as_ptr().cast());
    attributes.word(68, hook);
    attributes.descriptor(PROG_LOAD)
}

/// A program of the traffic-control hook that leaves every packet to the next one.
pub(crate) fn empty_classifier() -> Result<OwnedFd> {
    const NEXT: i32 = -1;
    load(SCHED_CLS, 0, &[(MOV_IMMEDIATE, 0, 0, 0, NEXT), (EXIT, 0, 0, 0, 0)])
        .context("failed to load an empty program")
}

/// A loaded program, by its ID.
pub(crate) fn program(id: u32) -> Result<OwnedFd> {
    let mut attributes = Attributes::default();
    attributes.word(0, id);
    attributes
        .descriptor(PROG_GET_FD_BY_ID)
        .with_context(|| format!("failed to open the program with ID {id}"))
}

/// The first program at a TCX hook (`enum bpf_attach_type`) of an interface of this thread's
/// network namespace.
pub(crate) fn classifier_at(interface: u32, hook: u32) -> Result<OwnedFd> {
    let mut ids = [0_u32; 8];
    let mut attributes = Attributes::default();
    attributes
        .word(0, interface)
        .word(4, hook)
        .pointer(16, ids.as_mut_ptr().cast())
        .word(24, ids.len() as u32);
    attributes.call(PROG_QUERY).context("failed to query an interface's programs")?;
    program(ids[0])
}

/// Attaches a program to a TCX hook of an interface of this thread's network namespace, until the
/// result is dropped.
pub(crate) fn attach_classifier(
    program: BorrowedFd<'_>,
    interface: u32,
    hook: u32,
) -> Result<OwnedFd> {
    let mut attributes = Attributes::default();
    attributes.word(0, program.as_raw_fd() as u32).word(4, interface).word(8, hook);
    attributes.descriptor(LINK_CREATE).context("failed to attach to an interface")
}

/// A packet for [`run`].
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    /// Its octets, from the Ethernet header on.
    pub(crate) octets: Vec<u8>,
    /// The interface that it passes.
    pub(crate) interface: u32,
}

/// The verdict of a program, and the nanoseconds of one run in the mean of `repeat`. The program
/// gets the packet again as the last run left it.
pub(crate) fn run(program: BorrowedFd<'_>, packet: &Packet, repeat: u32) -> Result<(i32, u32)> {
    let attributes = test_run(program, packet, repeat, &mut [])?;
    Ok((attributes.get(4).cast_signed(), attributes.get(36)))
}

/// What a program makes of a packet, up to the packet's own length.
pub(crate) fn result(program: BorrowedFd<'_>, packet: &Packet) -> Result<Vec<u8>> {
    let mut octets = vec![0; packet.octets.len()];
    test_run(program, packet, 1, &mut octets)?;
    Ok(octets)
}

fn test_run(
    program: BorrowedFd<'_>,
    packet: &Packet,
    repeat: u32,
    result: &mut [u8],
) -> Result<Attributes> {
    /// Bytes of `struct __sk_buff`, and where it has the interface's index.
    const CONTEXT: usize = 192;
    const INTERFACE: usize = 40;
    let mut context = [0_u8; CONTEXT];
    context[INTERFACE..INTERFACE + 4].copy_from_slice(&packet.interface.to_ne_bytes());
    let mut attributes = Attributes::default();
    attributes
        .word(0, program.as_raw_fd() as u32)
        .word(8, packet.octets.len() as u32)
        .pointer(16, packet.octets.as_ptr())
        .word(32, repeat)
        .word(40, CONTEXT as u32)
        .pointer(48, context.as_ptr());
    // To the kernel a length of 0 is no limit.
    if !result.is_empty() {
        attributes.word(12, result.len() as u32).pointer(24, result.as_mut_ptr());
    }
    attributes.call(PROG_TEST_RUN).context("failed to run a program (BPF_PROG_TEST_RUN)")?;
    Ok(attributes)
}

/// `union bpf_attr`, by offset.
#[derive(Default)]
pub(crate) struct Attributes([u64; 18]);

impl Attributes {
    pub(crate) fn word(&mut self, offset: usize, value: u32) -> &mut Self {
        self.0[offset / 8] |= u64::from(value) << Self::shift(offset);
        self
    }

    /// What the kernel wrote.
    fn get(&self, offset: usize) -> u32 {
        (self.0[offset / 8] >> Self::shift(offset)) as u32
    }

    fn shift(offset: usize) -> u32 {
        let shift = if offset.is_multiple_of(8) { 0 } else { 32 };
        if cfg!(target_endian = "little") { shift } else { 32 - shift }
    }

    pub(crate) fn pointer(&mut self, offset: usize, target: *const u8) -> &mut Self {
        self.0[offset / 8] = target as u64;
        self
    }

    pub(crate) fn call(&mut self, command: i64) -> io::Result<i64> {
        // SAFETY: the attributes outlive the call; every pointer in them refers to a live buffer of
        // the length beside it.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), size_of_val(&self.0))
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
    }

    pub(crate) fn descriptor(&mut self, command: i64) -> io::Result<OwnedFd> {
        let number = i32::try_from(self.call(command)?).map_err(io::Error::other)?;
        // SAFETY: the command returned a new descriptor, which has no other owner.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }
}
