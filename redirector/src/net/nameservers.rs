//! The nameservers that the configuration names. `system` stands for the host's resolv.conf, which
//! is read again when it changes; our own addresses are left out.
//!
//! Where resolv.conf names only the stub of systemd-resolved, `system` is the servers behind it:
//! the stub would forward our queries back to us on a host whose own names we answer.
//!
//! The shim forwards to them, and the names of backends are resolved through them.
//!
//! resolv.conf is parsed here, since the `resolv-conf` crate rejects a whole file for one unknown
//! word, where every libc skips the line.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::config::Upstream;

/// The file that `system` stands for.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The servers behind the stub of systemd-resolved.
const RESOLVED_CONF: &str = "/run/systemd/resolve/resolv.conf";

/// Where the stubs of systemd-resolved listen.
const RESOLVED_STUBS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];

/// Shortest time between two checks of resolv.conf.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The port of a nameserver in resolv.conf.
const DNS_PORT: u16 = 53;

/// The nameservers that a list of [`Upstream`]s stands for.
#[derive(Debug)]
pub struct Nameservers {
    upstreams: Vec<Upstream>,
    /// Our own addresses, which are never queried.
    own: Vec<SocketAddr>,
    resolv_conf: PathBuf,
    /// Read instead where `resolv_conf` names only a stub; none to keep the stub.
    resolved_conf: Option<PathBuf>,
    cache: Mutex<Cache>,
}

/// The result of the last check.
#[derive(Debug, Default)]
struct Cache {
    checked_at: Option<Instant>,
    stamp: Option<(FileStamp, Option<FileStamp>)>,
    servers: Arc<[SocketAddr]>,
    problem: Option<String>,
}

/// Changes whenever the file does: a rename changes the inode, a rewrite the time or the size.
#[derive(Debug, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Nameservers {
    /// The servers that `upstreams` name, without those in `own`. `system` is read from
    /// /etc/resolv.conf.
    pub fn new(upstreams: Vec<Upstream>, own: Vec<SocketAddr>) -> Self {
        Self::with_resolv_conf(upstreams, own, Path::new(RESOLV_CONF))
    }

    /// As [`Nameservers::new`], with `system` read from another file.
    pub fn with_resolv_conf(
        upstreams: Vec<Upstream>,
        own: Vec<SocketAddr>,
        resolv_conf: &Path,
    ) -> Self {
        let resolved_conf = Some(RESOLVED_CONF.into());
        let cache = Mutex::default();
        Self { upstreams, own, resolv_conf: resolv_conf.into(), resolved_conf, cache }
    }

    /// Leaves the stub of systemd-resolved in place: it is what clients of this host query.
    pub fn as_clients_see(self) -> Self {
        Self { resolved_conf: None, ..self }
    }

    /// The servers in the order of the configuration. Cheap: resolv.conf is checked once a second
    /// at most, and read when it changed. While it cannot be read, the last servers stay.
    pub fn current(&self) -> Arc<[SocketAddr]> {
        let mut cache = self.cache.lock();
        if cache.checked_at.is_none()
            || (self.follows_system()
                && cache.checked_at.is_some_and(|at| at.elapsed() >= CHECK_INTERVAL))
        {
            self.check(&mut cache);
        }
        Arc::clone(&cache.servers)
    }

    /// Why [`Nameservers::current`] is empty or may be out of date, as a message.
    pub fn problem(&self) -> Option<String> {
        let servers = self.current();
        let cache = self.cache.lock();
        if let Some(problem) = &cache.problem {
            return Some(problem.clone());
        }
        let path = self.resolv_conf.display();
        match (servers.is_empty(), self.follows_system()) {
            (false, _) => None,
            (true, true) => Some(format!(
                "{path} names no nameserver except ourselves: name one in `dns.upstreams`"
            )),
            (true, false) => Some("`dns.upstreams` names no server: add one, or \"system\"".into()),
        }
    }

    fn follows_system(&self) -> bool {
        self.upstreams.contains(&Upstream::System)
    }

    fn check(&self, cache: &mut Cache) {
        cache.checked_at = Some(Instant::now());
        if !self.follows_system() {
            cache.servers = self.expand(&[]);
            return;
        }
        match self.stamp() {
            Ok(stamp) if cache.stamp.as_ref() == Some(&stamp) && cache.problem.is_none() => return,
            Ok(stamp) => cache.stamp = Some(stamp),
            Err(_) => cache.stamp = None,
        }
        match self.read_system() {
            Ok(system) => {
                cache.servers = self.expand(&system);
                cache.problem = None;
            }
            Err(error) => {
                cache.problem =
                    Some(format!("failed to read {}: {error}", self.resolv_conf.display()));
                if cache.servers.is_empty() {
                    cache.servers = self.expand(&[]);
                }
            }
        }
    }

    fn stamp(&self) -> io::Result<(FileStamp, Option<FileStamp>)> {
        let resolved = self.resolved_conf.as_ref().and_then(|path| FileStamp::read(path).ok());
        Ok((FileStamp::read(&self.resolv_conf)?, resolved))
    }

    fn read_system(&self) -> io::Result<Vec<SocketAddr>> {
        let read = |path| fs::read(path).map(|text| parse(&String::from_utf8_lossy(&text)));
        let named = read(&self.resolv_conf)?;
        let is_stub = !named.is_empty() && named.iter().all(|at| RESOLVED_STUBS.contains(&at.ip()));
        let behind = self.resolved_conf.as_ref().filter(|_| is_stub);
        let behind = behind.and_then(|path| read(path).ok()).filter(|found| !found.is_empty());
        Ok(behind.unwrap_or(named))
    }

    /// The upstreams with `system` replaced, each server once, without our own.
    fn expand(&self, system: &[SocketAddr]) -> Arc<[SocketAddr]> {
        let mut servers = Vec::new();
        for upstream in &self.upstreams {
            let named = match upstream {
                Upstream::System => system,
                Upstream::Server(server) => std::slice::from_ref(server),
            };
            for server in named {
                if !servers.contains(server) && !self.is_ours(server) {
                    servers.push(*server);
                }
            }
        }
        servers.into()
    }

    fn is_ours(&self, server: &SocketAddr) -> bool {
        self.own
            .iter()
            .any(|own| own.port() == server.port() && own.ip() == server.ip().to_canonical())
    }
}

impl FileStamp {
    fn read(path: &Path) -> io::Result<Self> {
        let file = fs::metadata(path)?;
        Ok(Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
        })
    }
}

/// The servers in the `nameserver` lines of a resolv.conf(5). Skips other lines and invalid
/// addresses, as every libc does.
pub fn parse(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next()? == "nameserver").then(|| words.next().and_then(server))?
        })
        .collect()
}

/// One address, which may have a scope: `fe80::1%eth0`.
fn server(text: &str) -> Option<SocketAddr> {
    let Some((address, scope)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, DNS_PORT));
    };
    let address: Ipv6Addr = address.parse().ok()?;
    let index = scope.parse().ok().or_else(|| interface_index(scope))?;
    Some(SocketAddrV6::new(address, DNS_PORT, 0, index).into())
}

fn interface_index(name: &str) -> Option<u32> {
    let plain = !name.is_empty() && !name.contains('/') && name != ".." && name != ".";
    plain.then(|| {
        fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok()
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| text.parse().expect("an address")).collect()
    }

    #[test]
    fn resolv_conf_is_parsed_as_every_libc_does() {
        let text = "# comment\n; other\nsearch a.b c.d\nnameserver 10.0.0.2\n  \
                    nameserver\t10.0.0.3 # why\nnameserver fe80::1%1\n\
                    nameserver nonsense\nnameservers 10.0.0.9\noptions ndots:5\nnameserver ::1\n";
        // glibc accepts `nameserver` only if white space follows.
        let expected = addresses(&["10.0.0.2:53", "10.0.0.3:53", "[fe80::1%1]:53", "[::1]:53"]);
        assert_eq!(parse(text), expected);
    }

    #[test]
    fn our_own_addresses_and_duplicates_are_left_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("resolv.conf");
        fs::write(&file, "nameserver 169.254.20.53\nnameserver 10.0.0.2\n").expect("written");
        let upstreams = vec![Upstream::System, Upstream::Server(addresses(&["10.0.0.2:53"])[0])];
        let servers =
            Nameservers::with_resolv_conf(upstreams, addresses(&["169.254.20.53:53"]), &file);
        assert_eq!(*servers.current(), addresses(&["10.0.0.2:53"]));
        assert_eq!(servers.problem(), None);
    }

    #[test]
    fn a_changed_file_is_read_and_a_missing_one_changes_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("resolv.conf");
        fs::write(&file, "nameserver 10.0.0.2\n").expect("written");
        let servers = Nameservers::with_resolv_conf(vec![Upstream::System], vec![], &file);
        assert_eq!(*servers.current(), addresses(&["10.0.0.2:53"]));

        fs::write(&file, "nameserver 10.0.0.33\n").expect("written");
        std::thread::sleep(CHECK_INTERVAL);
        assert_eq!(*servers.current(), addresses(&["10.0.0.33:53"]));

        fs::remove_file(&file).expect("removed");
        std::thread::sleep(CHECK_INTERVAL);
        assert_eq!(*servers.current(), addresses(&["10.0.0.33:53"]));
        assert!(
            servers.problem().expect("a problem").contains("failed to read"),
            "{:?}",
            servers.problem()
        );
    }

    #[test]
    fn servers_behind_the_stub_of_systemd_resolved_are_used() {
        let dir = tempfile::tempdir().expect("a directory");
        let [file, behind] = ["resolv.conf", "resolved.conf"].map(|name| dir.path().join(name));
        let servers = |stub: &str, keep: bool| {
            fs::write(&file, stub).expect("written");
            let made = Nameservers::with_resolv_conf(vec![Upstream::System], vec![], &file);
            let made = Nameservers { resolved_conf: Some(behind.clone()), ..made };
            if keep { made.as_clients_see() } else { made }
        };
        let stub = "nameserver 127.0.0.53\noptions edns0 trust-ad\n";
        assert_eq!(*servers(stub, false).current(), addresses(&["127.0.0.53:53"]), "no file");
        fs::write(&behind, "nameserver 10.0.0.2\n").expect("written");
        let followed = servers(stub, false);
        assert_eq!(*followed.current(), addresses(&["10.0.0.2:53"]));
        assert_eq!(*servers(stub, true).current(), addresses(&["127.0.0.53:53"]));
        let other = "nameserver 127.0.0.1\n";
        assert_eq!(*servers(other, false).current(), addresses(&["127.0.0.1:53"]));
        servers(stub, false);

        fs::write(&behind, "nameserver 10.0.0.33\n").expect("written");
        std::thread::sleep(CHECK_INTERVAL);
        assert_eq!(*followed.current(), addresses(&["10.0.0.33:53"]), "only the second changed");
    }

    #[test]
    fn a_list_without_servers_names_the_remedy() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("resolv.conf");
        fs::write(&file, "nameserver 169.254.20.53\n").expect("written");
        let servers = Nameservers::with_resolv_conf(
            vec![Upstream::System],
            addresses(&["169.254.20.53:53"]),
            &file,
        );
        assert!(servers.current().is_empty());
        assert!(servers.problem().expect("a problem").contains("`dns.upstreams`"));
    }
}
