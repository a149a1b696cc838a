//! bpf(2) commands of the comparison: a program that makes socket storage, and the kernel's clock
//! on programs.
//!
//! Every object is gone with its descriptor.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};

use crate::{
    bpf::{self, Attributes, EXIT, Instruction, MOV_IMMEDIATE},
    peers::cgroup_programs::{Attached, CONNECT4, EMPTY, HOOKS, Hook, attach},
};

// Commands (`enum bpf_cmd`).
const OBJ_GET_INFO_BY_FD: i64 = 15;
const PROG_QUERY: i64 = 16;
const BTF_LOAD: i64 = 18;
const ENABLE_STATS: i64 = 32;

const MAP_TYPE_SK_STORAGE: u32 = 24;
const F_NO_PREALLOC: u32 = 1;
/// Bytes of the redirector's socket storage.
const STORAGE_SIZE: u32 = size_of::<redirector_common::origin::Origin>() as u32;

/// As [`attach_empty`](crate::peers::cgroup_programs::attach_empty), but the program at connect4
/// creates socket storage that it does not use.
pub(super) fn attach_storage(cgroup: &File) -> Result<Attached> {
    let map = storage_map().context("failed to make a map of socket storage")?;
    let program = make_storage(map.as_raw_fd());
    attach(cgroup, HOOKS.map(|hook| (hook, if hook == CONNECT4 { &program[..] } else { EMPTY })))
}

/// `if (ctx->sk) bpf_sk_storage_get(map, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE); return 1`
fn make_storage(map: i32) -> Vec<Instruction> {
    const LOAD_DOUBLE: u8 = 0x79;
    const LOAD_MAP: u8 = 0x18;
    const JUMP_EQUAL: u8 = 0x15;
    const CALL: u8 = 0x85;
    const SK_OFFSET: i16 = 64;
    const SK_STORAGE_GET: i32 = 107;
    vec![
        (LOAD_DOUBLE, 2, 1, SK_OFFSET, 0),
        (JUMP_EQUAL, 2, 0, 5, 0),
        (LOAD_MAP, 1, 1, 0, map),
        (0, 0, 0, 0, 0),
        (MOV_IMMEDIATE, 3, 0, 0, 0),
        (MOV_IMMEDIATE, 4, 0, 0, 1),
        (CALL, 0, 0, 0, SK_STORAGE_GET),
        (MOV_IMMEDIATE, 0, 0, 0, 1),
        (EXIT, 0, 0, 0, 0),
    ]
}

/// Socket storage needs BTF: a 4-byte integer as key, and a structure as value.
fn storage_map() -> Result<OwnedFd> {
    const INT: u32 = 1 << 24;
    const STRUCT: u32 = 4 << 24;
    const STRINGS: &[u8] = b"\0int\0";
    let types = [1, INT, 4, 1 << 24 | 32, 0, STRUCT, STORAGE_SIZE];
    let types: Vec<u8> = types.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
    let mut btf: Vec<u8> = [&0xeb9f_u16.to_ne_bytes()[..], &[1, 0]].concat();
    let header = [24, 0, types.len() as u32, types.len() as u32, STRINGS.len() as u32];
    btf.extend(header.iter().flat_map(|word| word.to_ne_bytes()));
    btf.extend_from_slice(&types);
    btf.extend_from_slice(STRINGS);

    let mut attributes = Attributes::default();
    attributes.pointer(0, btf.as_ptr()).word(16, btf.len() as u32);
    let btf = attributes.descriptor(BTF_LOAD).context("failed to load type information")?;
    let mut attributes = Attributes::default();
    attributes
        .word(0, MAP_TYPE_SK_STORAGE)
        .word(4, 4)
        .word(8, STORAGE_SIZE)
        .word(16, F_NO_PREALLOC);
    attributes.word(48, btf.as_raw_fd() as u32).word(52, 1).word(56, 2);
    Ok(attributes.descriptor(bpf::MAP_CREATE)?)
}

/// Makes the kernel clock every run of every program while the result lives.
pub(super) fn enable_stats() -> Result<OwnedFd> {
    Attributes::default()
        .descriptor(ENABLE_STATS)
        .context("failed to enable program statistics (BPF_ENABLE_STATS)")
}

/// The runs of a program and their time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    pub(super) nanoseconds: u64,
    pub(super) count: u64,
}

/// The runs so far of the program that is attached to `hook` of `cgroup` itself; `None` without a
/// program.
pub(super) fn runs(cgroup: &File, hook: Hook) -> Result<Option<Runs>> {
    let Some(program) = attached(cgroup, hook)? else { return Ok(None) };
    let mut info = [0_u8; 232];
    let mut attributes = Attributes::default();
    attributes
        .word(0, program.as_raw_fd() as u32)
        .word(4, info.len() as u32)
        .pointer(8, info.as_mut_ptr());
    attributes.call(OBJ_GET_INFO_BY_FD).context("failed to read a program's statistics")?;
    let number = |offset: usize| {
        info[offset..offset + 8].try_into().map(u64::from_ne_bytes).unwrap_or_default()
    };
    Ok(Some(Runs { nanoseconds: number(192), count: number(200) }))
}

fn attached(cgroup: &File, hook: Hook) -> Result<Option<OwnedFd>> {
    let mut ids = [0_u32; 8];
    let mut attributes = Attributes::default();
    attributes
        .word(0, cgroup.as_raw_fd() as u32)
        .word(4, hook.number)
        .pointer(16, ids.as_mut_ptr().cast())
        .word(24, ids.len() as u32);
    attributes
        .call(PROG_QUERY)
        .with_context(|| format!("failed to query the programs at {}", hook.name))?;
    if ids[0] == 0 {
        return Ok(None);
    }
    bpf::program(ids[0]).map(Some)
}
