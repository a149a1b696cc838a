//! Which nameservers the configuration means: `system` is the host's resolv.conf, followed as it
//! changes, and never ourselves.
//!
//! The shim forwards to them and the backends' names are resolved through them. Neither knows the
//! other, so this stands below both.

use std::{
    fs, io,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::config::Upstream;

/// The file that `system` means.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// How often resolv.conf is looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The port of a nameserver in resolv.conf.
const DNS_PORT: u16 = 53;

/// The nameservers that a list of [`Upstream`]s stands for right now.
#[derive(Debug)]
pub struct Nameservers {
    upstreams: Vec<Upstream>,
    /// Addresses of our own, which are never asked.
    own: Vec<SocketAddr>,
    resolv_conf: PathBuf,
    seen: Mutex<Seen>,
}

/// What the last look found.
#[derive(Debug, Default)]
struct Seen {
    looked: Option<Instant>,
    stamp: Option<Stamp>,
    servers: Arc<[SocketAddr]>,
    problem: Option<String>,
}

/// What changes whenever the file does: a rename gives another inode, a rewrite another time or
/// size.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Nameservers {
    /// The servers that `upstreams` name, with `system` read from /etc/resolv.conf, without those
    /// in `own`.
    pub fn new(upstreams: Vec<Upstream>, own: Vec<SocketAddr>) -> Self {
        Self::with_resolv_conf(upstreams, own, Path::new(RESOLV_CONF))
    }

    /// As [`Nameservers::new`], with `system` read from another file.
    pub fn with_resolv_conf(
        upstreams: Vec<Upstream>,
        own: Vec<SocketAddr>,
        resolv_conf: &Path,
    ) -> Self {
        Self { upstreams, own, resolv_conf: resolv_conf.into(), seen: Mutex::default() }
    }

    /// The servers in the order in which they are to be asked. Cheap: resolv.conf is looked at once
    /// a second at most, and read when it changed. While it can't be read, the servers known before
    /// stay.
    pub fn current(&self) -> Arc<[SocketAddr]> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.looked.is_none()
            || (self.follows_system() && seen.looked.is_some_and(|at| at.elapsed() >= LOOK_EVERY))
        {
            self.look(&mut seen);
        }
        Arc::clone(&seen.servers)
    }

    /// Why [`Nameservers::current`] is empty or may be out of date, in words for a person.
    pub fn problem(&self) -> Option<String> {
        let servers = self.current();
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(problem) = &seen.problem {
            return Some(problem.clone());
        }
        let path = self.resolv_conf.display();
        match (servers.is_empty(), self.follows_system()) {
            (false, _) => None,
            (true, true) => Some(format!(
                "{path} names no nameserver but ourselves: name one in `dns.upstreams`"
            )),
            (true, false) => Some("`dns.upstreams` names no server: add one, or \"system\"".into()),
        }
    }

    fn follows_system(&self) -> bool {
        self.upstreams.contains(&Upstream::System)
    }

    fn look(&self, seen: &mut Seen) {
        seen.looked = Some(Instant::now());
        if !self.follows_system() {
            seen.servers = self.expand(&[]);
            return;
        }
        match Stamp::of(&self.resolv_conf) {
            Ok(stamp) if seen.stamp.as_ref() == Some(&stamp) && seen.problem.is_none() => return,
            Ok(stamp) => seen.stamp = Some(stamp),
            Err(_) => seen.stamp = None,
        }
        match fs::read(&self.resolv_conf) {
            Ok(text) => {
                seen.servers = self.expand(&parse(&String::from_utf8_lossy(&text)));
                seen.problem = None;
            }
            Err(error) => {
                seen.problem =
                    Some(format!("failed to read {}: {error}", self.resolv_conf.display()));
                if seen.servers.is_empty() {
                    seen.servers = self.expand(&[]);
                }
            }
        }
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

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let file = fs::metadata(path)?;
        Ok(Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
        })
    }
}

/// The `nameserver` lines of a resolv.conf, as resolv.conf(5) has them. Other lines and addresses
/// that can't be read are skipped, as every libc does.
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
    fn resolv_conf_is_read_as_every_libc_reads_it() {
        let text = "# comment\n; other\nsearch a.b c.d\nnameserver 10.0.0.2\n  nameserver\t10.0.0.3 # why\nnameserver fe80::1%1\n\
                    nameserver nonsense\nnameservers 10.0.0.9\noptions ndots:5\nnameserver ::1\n";
        // glibc takes `nameserver` only when white space follows.
        let expected = addresses(&["10.0.0.2:53", "10.0.0.3:53", "[fe80::1%1]:53", "[::1]:53"]);
        assert_eq!(parse(text), expected);
    }

    #[test]
    fn we_never_ask_ourselves_and_nobody_twice() {
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
    fn a_changed_resolv_conf_is_followed_and_a_vanished_one_keeps_the_last_servers() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("resolv.conf");
        fs::write(&file, "nameserver 10.0.0.2\n").expect("written");
        let servers = Nameservers::with_resolv_conf(vec![Upstream::System], vec![], &file);
        assert_eq!(*servers.current(), addresses(&["10.0.0.2:53"]));

        fs::write(&file, "nameserver 10.0.0.33\n").expect("written");
        std::thread::sleep(LOOK_EVERY);
        assert_eq!(*servers.current(), addresses(&["10.0.0.33:53"]));

        fs::remove_file(&file).expect("removed");
        std::thread::sleep(LOOK_EVERY);
        assert_eq!(*servers.current(), addresses(&["10.0.0.33:53"]));
        assert!(
            servers.problem().expect("a problem").contains("failed to read"),
            "{:?}",
            servers.problem()
        );
    }

    #[test]
    fn no_server_left_is_a_problem_that_names_the_remedy() {
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
