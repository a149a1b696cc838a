//! The bpf(2) commands that aya 0.14 does not have, or not with descriptors that we can hold:
//! creating links, swapping the program under a link, pinning a descriptor, listing the programs on
//! a hook, reading an element of unknown size, reading and writing many elements at once.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use aya::maps::{Array, HashMap, IterableMap, MapData};
use aya_obj::generated::bpf_cmd;
use redirector_common::names::Hook;

/// The attributes of `BPF_OBJ_GET`.
#[repr(C, align(8))]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The attributes of `BPF_LINK_UPDATE` (5.7).
#[repr(C, align(8))]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// The attributes of `BPF_LINK_CREATE` (5.7), with those of the TCX hook.
#[repr(C, align(8))]
struct LinkCreate {
    prog_fd: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    relative_fd: u32,
    pad: u32,
    expected_revision: u64,
}

/// Attaches a program to `target`: the descriptor of a cgroup, or the index of an interface.
pub(crate) fn create_link(
    program: BorrowedFd<'_>,
    target: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attributes = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        target,
        attach_type,
        flags,
        relative_fd: 0,
        pad: 0,
        expected_revision: 0,
    };
    let fd = bpf(bpf_cmd::BPF_LINK_CREATE, &mut attributes)?;
    // SAFETY: the kernel has just created this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The attributes of `BPF_OBJ_PIN`; the same as those of `BPF_OBJ_GET`.
type ObjPin = ObjGet;

/// Pins a link or a map.
pub(crate) fn pin(link: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes =
        ObjPin { pathname: path.as_ptr() as u64, bpf_fd: link.as_raw_fd() as u32, file_flags: 0 };
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attributes).map(drop)
}

/// Opens a pin.
pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = ObjGet { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    let fd = bpf(bpf_cmd::BPF_OBJ_GET, &mut attributes)?;
    // SAFETY: the kernel has just created this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The attributes of `BPF_MAP_LOOKUP_ELEM`.
#[repr(C, align(8))]
struct Lookup {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Reads an element of `size` bytes. aya only reads elements as large as the type that it is given.
pub(crate) fn element(map: &OwnedFd, index: u32, size: usize) -> io::Result<Vec<u8>> {
    // The kernel writes whole words.
    let mut value = vec![0; size.next_multiple_of(8)];
    let mut attributes = Lookup {
        map_fd: map.as_raw_fd() as u32,
        pad: 0,
        key: std::ptr::from_ref(&index) as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attributes)?;
    Ok(value)
}

/// The attributes of `BPF_MAP_LOOKUP_BATCH` and `BPF_MAP_UPDATE_BATCH` (5.6).
#[repr(C, align(8))]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

impl Batch {
    /// For `count` elements of `map`, with buffers for their keys and values.
    fn new<K: aya::Pod, V: aya::Pod>(
        map: &MapData,
        keys: *const K,
        values: *const V,
        count: usize,
    ) -> Self {
        Self {
            in_batch: 0,
            out_batch: 0,
            keys: keys as u64,
            values: values as u64,
            count: count as u32,
            map_fd: map.fd().as_fd().as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        }
    }

    /// Returns how many elements the kernel processed. If it refuses the whole call, it does not
    /// write `count`.
    fn call(&mut self, command: bpf_cmd) -> usize {
        let all = self.count;
        match bpf(command, self) {
            Ok(_) => all as usize,
            Err(_) if self.count < all => self.count as usize,
            Err(_) => 0,
        }
    }
}

/// Writes each of `values` at its key, in order, with one call. Returns how many are written: all,
/// those before the first that the kernel refuses, or 0 if it lacks the command.
pub(crate) fn update_batch<K: aya::Pod, V: aya::Pod, M: IterableMap<K, V>>(
    map: &M,
    at: &[K],
    values: &[V],
) -> usize {
    assert_eq!(at.len(), values.len(), "a key for each value");
    Batch::new(map.map(), at.as_ptr(), values.as_ptr(), at.len())
        .call(bpf_cmd::BPF_MAP_UPDATE_BATCH)
}

/// Reads the elements from `first` on into `values`, with one call. Returns how many are read: all,
/// as many as the map has, or 0 if the kernel lacks the command.
pub(crate) fn lookup_batch<V: aya::Pod>(
    map: &Array<MapData, V>,
    first: u32,
    values: &mut [V],
) -> usize {
    let mut at = vec![0_u32; values.len()];
    // The kernel begins after this key.
    let (before, mut last) = (first.wrapping_sub(1), 0_u32);
    let mut batch = Batch {
        in_batch: if first == 0 { 0 } else { std::ptr::from_ref(&before) as u64 },
        out_batch: std::ptr::from_mut(&mut last) as u64,
        ..Batch::new(IterableMap::map(map), at.as_mut_ptr(), values.as_mut_ptr(), at.len())
    };
    let read = batch.call(bpf_cmd::BPF_MAP_LOOKUP_BATCH);
    let expected = at[..read].iter().zip(first..).take_while(|(key, expected)| *key == expected);
    expected.count()
}

/// Reads the next elements of a hash map into `keys` and `values`, from `position` on; none: from
/// its start. Returns how many are read, and the next position; none at the end of the map.
///
/// # Errors
///
/// If the kernel lacks the command for hash maps, or refuses it.
pub(crate) fn lookup_hash_batch<K: aya::Pod, V: aya::Pod>(
    map: &HashMap<MapData, K, V>,
    position: Option<u32>,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<(usize, Option<u32>)> {
    assert_eq!(keys.len(), values.len(), "a key for each value");
    let (before, mut next) = (position.unwrap_or_default(), 0_u32);
    let mut batch = Batch {
        in_batch: position.map_or(0, |_| std::ptr::from_ref(&before) as u64),
        out_batch: std::ptr::from_mut(&mut next) as u64,
        ..Batch::new(map.map(), keys.as_ptr(), values.as_ptr(), keys.len())
    };
    match bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut batch) {
        Ok(_) => Ok((batch.count as usize, Some(next))),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            Ok((batch.count as usize, None))
        }
        Err(error) => Err(error),
    }
}

/// Replaces the program under `link` atomically: every connect runs exactly one of them (3.8 to 5
/// µs, measured).
pub(crate) fn update_link(link: &OwnedFd, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = LinkUpdate {
        link_fd: link.as_raw_fd() as u32,
        new_prog_fd: program.as_raw_fd() as u32,
        flags: 0,
        old_prog_fd: 0,
    };
    bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attributes).map(drop)
}

/// The attributes of `BPF_LINK_DETACH` (5.9).
#[repr(C, align(8))]
struct LinkDetach {
    link_fd: u32,
    pad: u32,
}

/// Detaches the program under `link` at once. Removing the pin would do so too, but 5.10 takes some
/// time.
pub(crate) fn detach_link(link: &OwnedFd) -> io::Result<()> {
    bpf(bpf_cmd::BPF_LINK_DETACH, &mut LinkDetach { link_fd: link.as_raw_fd() as u32, pad: 0 })
        .map(drop)
}

/// The attributes of `BPF_PROG_QUERY` (4.15), with those added until 6.6: the kernel (6.18) writes
/// the last one even if the call passes a shorter length.
#[repr(C, align(8))]
#[derive(Default)]
pub(crate) struct ProgQuery {
    /// The cgroup's descriptor, or the interface's index.
    pub(crate) target_fd: u32,
    pub(crate) attach_type: u32,
    pub(crate) query_flags: u32,
    pub(crate) attach_flags: u32,
    pub(crate) prog_ids: u64,
    pub(crate) prog_cnt: u32,
    pub(crate) pad: u32,
    pub(crate) prog_attach_flags: u64,
    pub(crate) link_ids: u64,
    pub(crate) link_attach_flags: u64,
    pub(crate) revision: u64,
}

/// `BPF_F_QUERY_EFFECTIVE`: lists the programs that run in the cgroup, including those attached to
/// the cgroups above.
const QUERY_EFFECTIVE: u32 = 1;
/// More than enough: the kernel limits one hook of one cgroup to 64 (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGRAMS: usize = 512;

/// The IDs of the programs that run on a hook of a cgroup, in the order in which they run.
pub(crate) fn effective_programs(cgroup: i32, hook: Hook) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; MAX_PROGRAMS];
    let mut attributes = ProgQuery {
        target_fd: cgroup as u32,
        attach_type: hook.attach_type(),
        query_flags: QUERY_EFFECTIVE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ids.len() as u32,
        ..ProgQuery::default()
    };
    bpf(bpf_cmd::BPF_PROG_QUERY, &mut attributes)?;
    ids.truncate(attributes.prog_cnt as usize);
    Ok(ids)
}

/// Whether a program is attached to this hook of this cgroup itself without `BPF_F_ALLOW_OVERRIDE`
/// and `BPF_F_ALLOW_MULTI`, so that no other may be attached below it.
pub(crate) fn has_exclusive_program(cgroup: i32, hook: Hook) -> io::Result<bool> {
    let mut attributes = ProgQuery {
        target_fd: cgroup as u32,
        attach_type: hook.attach_type(),
        ..ProgQuery::default()
    };
    bpf(bpf_cmd::BPF_PROG_QUERY, &mut attributes)?;
    Ok(attributes.prog_cnt > 0 && attributes.attach_flags == 0)
}

/// The attributes of `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C, align(8))]
struct InfoByFd {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info`; the kernel writes no more than the size passed.
#[repr(C, align(8))]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    pad: u32,
    /// For a link to a cgroup: its ID. For one to an interface: its index and the attach type.
    target: u64,
}

/// The ID of the program under a link.
pub(crate) fn linked_program_id(link: &OwnedFd) -> io::Result<u32> {
    link_info(link).map(|info| info.prog_id)
}

/// The ID of the cgroup that a link is attached to; 0 after the cgroup is removed and its last
/// socket is closed (`bpf_cgroup_link_auto_detach`).
pub(crate) fn linked_cgroup_id(link: &OwnedFd) -> io::Result<u64> {
    link_info(link).map(|info| info.target)
}

/// The ID of a link to an interface, and the interface's index; 0 once that is gone.
pub(crate) fn link_id_and_interface(link: &OwnedFd) -> io::Result<(u32, u32)> {
    let info = link_info(link)?;
    let [a, b, c, d, ..] = info.target.to_ne_bytes();
    Ok((info.id, u32::from_ne_bytes([a, b, c, d])))
}

fn link_info(link: &OwnedFd) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    let mut attributes = InfoByFd {
        bpf_fd: link.as_raw_fd() as u32,
        info_len: size_of::<LinkInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(info)
}

/// Calls bpf(2).
pub(crate) fn bpf<T>(command: bpf_cmd, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: `attributes` is the command's structure, live and writable for its whole size.
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

/// Jiffies in a second, `CONFIG_HZ`: the resolution of the coarse clocks is one jiffy
/// (kernel/time/posix-timers.c).
pub(crate) fn hz() -> u32 {
    let mut resolution = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes the value.
    let failed =
        unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut resolution) } != 0;
    match u32::try_from(resolution.tv_nsec) {
        Ok(nanoseconds @ 1..) if !failed => (1_000_000_000 + nanoseconds / 2) / nanoseconds,
        _ => 250,
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds: the clock of `bpf_ktime_get_ns`.
pub(crate) fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
