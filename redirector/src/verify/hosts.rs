//! A hosts file, as a libc reads it.

use std::net::IpAddr;

/// The addresses of an /etc/hosts, each with its names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(Vec<(IpAddr, Vec<String>)>);

impl Hosts {
    /// Reads the lines that begin with an address.
    pub fn parse(text: &str) -> Self {
        let entry = |line: &str| {
            let mut words = line.split('#').next()?.split_ascii_whitespace();
            Some((words.next()?.parse().ok()?, words.map(str::to_owned).collect()))
        };
        Self(text.lines().filter_map(entry).collect())
    }

    /// The address that the first line with `name` gives to it.
    pub fn address(&self, name: &str) -> Option<IpAddr> {
        self.0
            .iter()
            .find(|(_, names)| names.iter().any(|known| known.eq_ignore_ascii_case(name)))
            .map(|(address, _)| *address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_a_libc_reads_them() {
        let text = "127.0.0.1 localhost\n10.0.0.9\tgit.internal GIT # why\n# 10.0.0.8 no\n";
        let hosts = Hosts::parse(text);
        assert_eq!(hosts.0.len(), 2);
        assert_eq!(hosts.0[1].1, ["git.internal", "GIT"]);
        assert_eq!(hosts.address("Git"), Some([10, 0, 0, 9].into()));
        assert_eq!(hosts.address("no"), None);
    }
}
