//! Copies of the queries that wait for an upstream, outside of this process: in a memory file that
//! the next agent gets together with the sockets. If this one is killed, the next one answers them.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::Arc,
};

use parking_lot::Mutex;
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, ftruncate, memfd_create},
    io::pread,
    time::{ClockId, clock_gettime},
};

/// The first octets of the file. The number changes with the format.
const MAGIC: [u8; 8] = *b"RDQUERY1";
/// Where the owner notes that it answers its queries itself, since it ends in good order.
const CLOSED_AT: u64 = 12;
/// The space of a query. None crosses a page, so each is written whole or not at all.
const SLOT: usize = 1024;
/// The longest query that is kept: clients send a hundred octets or two.
const LONGEST: usize = 512;
/// Queries that are kept at most: as many as may wait for upstreams.
const SLOTS: u16 = 4096;
/// Clients have given up after this time.
const MAX_AGE_MS: u64 = 5000;
/// Slots that are read in one call.
const READ_AT_ONCE: usize = 16;
/// Octets of a slot before the query.
const HEAD: usize = 64;
const _: () = assert!(HEAD + LONGEST <= SLOT && 4096 % SLOT == 0);
const _: () = assert!((SLOTS as usize).is_multiple_of(READ_AT_ONCE));

/// The journal of this process.
#[derive(Debug)]
pub(crate) struct QueryJournal {
    file: File,
    free: Mutex<Vec<u16>>,
}

/// A query in the journal, until this is dropped.
#[derive(Debug)]
pub(crate) struct Noted {
    journal: Arc<QueryJournal>,
    slot: u16,
}

/// A query that another agent has received and not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unanswered {
    pub(crate) query: Vec<u8>,
    pub(crate) client: SocketAddr,
    /// The address of ours at which it arrived.
    pub(crate) own: SocketAddr,
}

impl QueryJournal {
    /// An empty one. The file can't change its size, and takes memory as it is used.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("redirector-queries", flags)?;
        ftruncate(&file, offset(SLOTS))?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let file = File::from(file);
        file.write_all_at(&MAGIC, 0)?;
        file.write_all_at(&std::process::id().to_ne_bytes(), MAGIC.len() as u64)?;
        // The lowest slot is taken first, as the last of this list.
        Ok(Self { file, free: Mutex::new((0..SLOTS).rev().collect()) })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Notes a query that waits from now on; none if it is long, or there is no room.
    pub(crate) fn note(
        self: &Arc<Self>,
        query: &[u8],
        client: SocketAddr,
        own: SocketAddr,
    ) -> Option<Noted> {
        if query.len() > LONGEST {
            return None;
        }
        let slot = self.free.lock().pop()?;
        let noted = Noted { journal: Arc::clone(self), slot };
        let mut entry = [0; HEAD + LONGEST];
        entry[..2].copy_from_slice(&(query.len() as u16).to_ne_bytes());
        entry[2..10].copy_from_slice(&now_ms().to_ne_bytes());
        entry[10..36].copy_from_slice(&encoded(client));
        entry[36..62].copy_from_slice(&encoded(own));
        entry[HEAD..HEAD + query.len()].copy_from_slice(query);
        self.file.write_all_at(&entry[..HEAD + query.len()], offset(slot)).ok()?;
        Some(noted)
    }

    /// This process answers what it has received, or says that it can't.
    pub(crate) fn close(&self) {
        let _ = self.file.write_all_at(&[1], CLOSED_AT);
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        // An unanswered query would be answered twice at worst.
        let _ = self.journal.file.write_all_at(&[0, 0], offset(self.slot));
        self.journal.free.lock().push(self.slot);
    }
}

/// The name of a journal for the service manager, if the descriptor is one.
pub(crate) fn journal_name(descriptor: impl AsFd) -> Option<String> {
    let is_sealed =
        fcntl_get_seals(&descriptor).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
    let mut head = [0; MAGIC.len() + 4];
    if !is_sealed || pread(&descriptor, &mut head, 0) != Ok(head.len()) {
        return None;
    }
    if head[..MAGIC.len()] != MAGIC {
        return None;
    }
    let pid = u32::from_ne_bytes(head[MAGIC.len()..].try_into().ok()?);
    Some(format!("queries-{pid}"))
}

/// The queries that the owner of a journal has left, unless it ended in good order.
pub(crate) fn unanswered(file: &File) -> Vec<Unanswered> {
    let mut closed = [0];
    if file.read_exact_at(&mut closed, CLOSED_AT).is_err() || closed != [0] {
        return Vec::new();
    }
    let now = now_ms();
    let mut left = Vec::new();
    let mut slots = [0; READ_AT_ONCE * SLOT];
    for first in (0..SLOTS).step_by(READ_AT_ONCE) {
        if file.read_exact_at(&mut slots, offset(first)).is_err() {
            break;
        }
        left.extend(slots.chunks_exact(SLOT).filter_map(|slot| decoded(slot, now)));
    }
    left
}

/// None of a slot that is free, or was taken and not written yet when its owner was killed.
fn decoded(entry: &[u8], now: u64) -> Option<Unanswered> {
    let length = usize::from(u16::from_ne_bytes(entry[..2].try_into().ok()?));
    let noted = u64::from_ne_bytes(entry[2..10].try_into().ok()?);
    if length == 0 || now.saturating_sub(noted) > MAX_AGE_MS {
        return None;
    }
    Some(Unanswered {
        query: entry.get(HEAD..HEAD + length)?.to_vec(),
        client: address(entry[10..36].try_into().ok()?),
        own: address(entry[36..62].try_into().ok()?),
    })
}

/// A file begins with a page of its own.
fn offset(slot: u16) -> u64 {
    4096 + u64::from(slot) * SLOT as u64
}

fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// Whether it is IPv4, the port, the address, and the scope.
fn encoded(address: SocketAddr) -> [u8; 26] {
    let mut bytes = [0; 26];
    bytes[0] = u8::from(address.is_ipv4());
    bytes[2..4].copy_from_slice(&address.port().to_ne_bytes());
    let (ip, scope) = match address {
        SocketAddr::V4(address) => (address.ip().to_ipv6_mapped(), 0),
        SocketAddr::V6(address) => (*address.ip(), address.scope_id()),
    };
    bytes[4..20].copy_from_slice(&ip.octets());
    bytes[20..24].copy_from_slice(&scope.to_ne_bytes());
    bytes
}

fn address(bytes: [u8; 26]) -> SocketAddr {
    let octets: [u8; 16] = std::array::from_fn(|at| bytes[4 + at]);
    let port = u16::from_ne_bytes([bytes[2], bytes[3]]);
    let scope = u32::from_ne_bytes(std::array::from_fn(|at| bytes[20 + at]));
    match Ipv6Addr::from(octets) {
        ip if bytes[0] == 1 => SocketAddr::new(IpAddr::V6(ip).to_canonical(), port),
        ip => SocketAddrV6::new(ip, port, 0, scope).into(),
    }
}

/// A journal of another agent, if the descriptor is one.
pub(crate) fn journal_file(descriptor: OwnedFd) -> Result<File, OwnedFd> {
    if journal_name(&descriptor).is_some() { Ok(descriptor.into()) } else { Err(descriptor) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_answered_is_found_and_nothing_else() {
        let journal = Arc::new(QueryJournal::new().expect("a journal"));
        let own = "169.254.20.53:53".parse().expect("an address");
        let clients = ["10.0.0.1:40000", "[fe80::1%3]:40001", "[2001:db8::7]:53"]
            .map(|text| text.parse::<SocketAddr>().expect("an address"));
        let noted = clients.map(|client| journal.note(client.to_string().as_bytes(), client, own));
        drop(journal.note(b"answered", clients[0], own));
        assert!(journal.note(&[0; LONGEST + 1], clients[0], own).is_none());
        let next = journal.file().try_clone().expect("a descriptor");
        let next = journal_file(next.into()).expect("a journal");
        let left = unanswered(&next);
        let expected = clients.map(|client| Unanswered {
            query: client.to_string().into_bytes(),
            client,
            own,
        });
        assert_eq!(left, expected);
        drop(noted);
        assert_eq!(unanswered(&next), []);
        let _noted = journal.note(b"a query", clients[0], own);
        journal.close();
        assert_eq!(unanswered(&next), [], "it ends in good order");
    }

    /// A thread is killed between taking a slot and writing it, after another has written the next.
    #[test]
    fn a_query_behind_an_unwritten_slot_is_found() {
        let journal = Arc::new(QueryJournal::new().expect("a journal"));
        let at = "10.0.0.1:1".parse().expect("an address");
        assert_eq!(journal.free.lock().pop(), Some(0));
        let _noted = journal.note(b"x", at, at);
        assert_eq!(unanswered(journal.file()).len(), 1);
    }

    #[test]
    fn another_file_is_no_journal() {
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(&MAGIC, 0).expect("written");
        assert!(journal_file(file.into()).is_err());
    }

    #[test]
    fn there_is_room_for_so_many_queries() {
        let journal = Arc::new(QueryJournal::new().expect("a journal"));
        let at = "10.0.0.1:1".parse().expect("an address");
        let all: Vec<_> = (0..SLOTS).map(|_| journal.note(b"x", at, at)).collect();
        assert!(all.iter().all(Option::is_some) && journal.note(b"x", at, at).is_none());
        assert_eq!(unanswered(journal.file()).len(), usize::from(SLOTS));
    }
}
