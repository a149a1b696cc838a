//! The memory of eBPF maps, as the kernel accounts for it in `fdinfo`.

use std::{
    collections::HashMap,
    fs,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use anyhow::{Context as _, Result};

/// The bytes of a map of this process.
pub(crate) fn bytes(map: BorrowedFd<'_>) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", map.as_raw_fd());
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    Ok(parse(&text).with_context(|| format!("{path} is not of a map:\n{text}"))?.1)
}

/// The bytes of all maps that a process has open, each counted once.
pub(crate) fn bytes_of_process(pid: u32) -> Result<u64> {
    let folder = format!("/proc/{pid}/fdinfo");
    let entries = fs::read_dir(&folder).with_context(|| format!("failed to list {folder}"))?;
    let maps: HashMap<u64, u64> = entries
        .flatten()
        // A descriptor may be closed meanwhile.
        .filter_map(|entry| parse(&fs::read_to_string(entry.path()).ok()?))
        .collect();
    Ok(maps.values().sum())
}

/// The ID of a map, and its bytes.
fn parse(text: &str) -> Option<(u64, u64)> {
    let number =
        |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
    Some((number("map_id:")?, number("memlock:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_map_has_bytes() {
        let map = "pos:\t0\nmap_type:\t1\nmemlock:\t4096\nmap_id:\t7\n";
        assert_eq!(parse(map), Some((7, 4096)));
        assert_eq!(parse("pos:\t0\nprog_id:\t3\nmemlock:\t4096\n"), None);
    }
}
