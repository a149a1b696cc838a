//! bpf(2) commands of the comparison: programs that keep something for each socket, and the
//! kernel's clock on programs.
//!
//! Every object is gone with its descriptor.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};

use crate::{
    bpf::{
        self, Attributes, CALL, Instruction, JUMP_EQUAL, MOV_IMMEDIATE, SOCKET_COOKIE,
        STORE_DOUBLE, load_address, load_map,
    },
    peers::cgroup_programs::{Attached, CONNECT4, EMPTY, HOOKS, Hook, SOCK_RELEASE, attach},
};

// Commands (`enum bpf_cmd`).
const OBJ_GET_INFO_BY_FD: i64 = 15;
const PROG_QUERY: i64 = 16;
const BTF_LOAD: i64 = 18;
const ENABLE_STATS: i64 = 32;

const MAP_TYPE_HASH: u32 = 1;
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

/// As [`attach_storage`], but with an entry of a hash table in place of the storage: the other way
/// to keep something for a socket. The program at sock_release deletes it.
pub(super) fn attach_hash_entry(cgroup: &File) -> Result<Attached> {
    let map = hash_map().context("failed to make a hash table")?;
    let (make, delete) = (make_entry(map.as_raw_fd()), delete_entry(map.as_raw_fd()));
    attach(
        cgroup,
        HOOKS.map(|hook| match hook {
            CONNECT4 => (hook, &make[..]),
            SOCK_RELEASE => (hook, &delete[..]),
            _ => (hook, EMPTY),
        }),
    )
}

const STORE_DOUBLE_IMMEDIATE: u8 = 0x7a;
/// Where the key is, from the frame pointer. The value is below it.
const KEY: i16 = -8;

/// `bpf_map_update_elem(map, &cookie, &zeros, 0); return 1`
fn make_entry(map: i32) -> Vec<Instruction> {
    const MAP_UPDATE: i32 = 2;
    let value = KEY - STORAGE_SIZE as i16;
    let mut program = socket_key(map);
    program
        .extend((value..KEY).step_by(8).map(|offset| (STORE_DOUBLE_IMMEDIATE, 10, 0, offset, 0)));
    program.extend(load_address(3, value));
    program.extend([(MOV_IMMEDIATE, 4, 0, 0, 0), (CALL, 0, 0, 0, MAP_UPDATE)]);
    program.extend_from_slice(EMPTY);
    program
}

/// `bpf_map_delete_elem(map, &cookie); return 1`
fn delete_entry(map: i32) -> Vec<Instruction> {
    const MAP_DELETE: i32 = 3;
    let mut program = socket_key(map);
    program.push((CALL, 0, 0, 0, MAP_DELETE));
    program.extend_from_slice(EMPTY);
    program
}

/// Stores the socket's cookie as the key; sets the first two arguments of a call.
fn socket_key(map: i32) -> Vec<Instruction> {
    let mut program = vec![(CALL, 0, 0, 0, SOCKET_COOKIE), (STORE_DOUBLE, 10, 0, KEY, 0)];
    program.extend(load_map(map));
    program.extend(load_address(2, KEY));
    program
}

/// Takes memory as it needs it, and has room for as many connections as a node may have.
fn hash_map() -> Result<OwnedFd> {
    const ENTRIES: u32 = 1 << 20;
    let mut attributes = Attributes::default();
    attributes.word(0, MAP_TYPE_HASH).word(4, 8).word(8, STORAGE_SIZE).word(12, ENTRIES);
    attributes.word(16, F_NO_PREALLOC);
    Ok(attributes.descriptor(bpf::MAP_CREATE)?)
}

/// `if (ctx->sk) bpf_sk_storage_get(map, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE); return 1`
fn make_storage(map: i32) -> Vec<Instruction> {
    const LOAD_DOUBLE: u8 = 0x79;
    const SK_OFFSET: i16 = 64;
    const SK_STORAGE_GET: i32 = 107;
    let mut program = vec![(LOAD_DOUBLE, 2, 1, SK_OFFSET, 0), (JUMP_EQUAL, 2, 0, 5, 0)];
    program.extend(load_map(map));
    program.extend([
        (MOV_IMMEDIATE, 3, 0, 0, 0),
        (MOV_IMMEDIATE, 4, 0, 0, 1),
        (CALL, 0, 0, 0, SK_STORAGE_GET),
    ]);
    program.extend_from_slice(EMPTY);
    program
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
