//! The search list of a resolv.conf: the names that a libc makes of the one that is asked for.

use std::fs;

use serde::{Deserialize, Serialize};

use super::nameservers::RESOLV_CONF;
use crate::route::SourceName;

/// The most dots that `ndots` can require, as in glibc and musl.
const MAX_NDOTS: usize = 15;

/// Suffixes, and the number of dots from which on a name is asked for as it is first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchList {
    /// The suffixes in their order, without a final dot.
    pub suffixes: Vec<String>,
    /// A name with fewer dots is asked for with the suffixes first.
    pub ndots: usize,
}

impl Default for SearchList {
    fn default() -> Self {
        Self { suffixes: Vec::new(), ndots: 1 }
    }
}

impl SearchList {
    /// Of the text of a resolv.conf. The last `search` or `domain` line counts.
    pub fn parse(text: &str) -> Self {
        let mut list = Self::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("search") => list.suffixes = words.filter_map(suffix).collect(),
                Some("domain") => list.suffixes = words.take(1).filter_map(suffix).collect(),
                Some("options") => list.set_options(words),
                _ => {}
            }
        }
        list
    }

    /// As the variables `LOCALDOMAIN` and `RES_OPTIONS` of a process change it, which glibc reads.
    pub fn with_environment(mut self, domain: Option<&str>, options: Option<&str>) -> Self {
        if let Some(domain) = domain {
            self.suffixes = domain.split_ascii_whitespace().filter_map(suffix).collect();
        }
        self.set_options(options.unwrap_or_default().split_ascii_whitespace());
        self
    }

    fn set_options<'w>(&mut self, words: impl Iterator<Item = &'w str>) {
        let given = words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok());
        self.ndots = given.last().map_or(self.ndots, |dots: usize| dots.min(MAX_NDOTS));
    }

    /// Of this host; empty if its resolv.conf cannot be read.
    pub fn of_host() -> Self {
        Self::parse(&String::from_utf8_lossy(&fs::read(RESOLV_CONF).unwrap_or_default()))
    }

    /// The first suffix that lies at or below the zone of a wildcard, which then also matches names
    /// that are meant to be outside of it.
    pub fn suffix_below(&self, wildcard: &SourceName) -> Option<&str> {
        let suffix = |suffix: &&String| wildcard.matches(&format!("name.{suffix}"));
        self.suffixes.iter().find(suffix).filter(|_| wildcard.is_wildcard()).map(String::as_str)
    }

    /// The names that a libc asks for, in this order, until one has an address. A name with a final
    /// dot is asked for as it is.
    pub fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let below = self.suffixes.iter().map(|suffix| format!("{name}.{suffix}"));
        let itself = std::iter::once(name.to_owned());
        if name.matches('.').count() >= self.ndots {
            itself.chain(below).collect()
        } else {
            below.chain(itself).collect()
        }
    }
}

/// A suffix in lower case; none for the root.
fn suffix(word: &str) -> Option<String> {
    let suffix = word.trim_end_matches('.').to_ascii_lowercase();
    (!suffix.is_empty()).then_some(suffix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_is_at_or_below_a_wildcards_zone() {
        let list = SearchList::parse("search svc.cluster.local eu.internal.net internal.net\n");
        let found = |source: &str| list.suffix_below(&source.parse().expect("a source"));
        assert_eq!(found("**.internal.net"), Some("eu.internal.net"));
        assert_eq!(found("*.internal.net"), Some("internal.net"));
        assert_eq!(found("*.net"), None);
        assert_eq!(found("**.us.internal.net"), None);
        assert_eq!(found("name.internal.net"), None, "no wildcard");
    }

    #[test]
    fn names_are_asked_for_as_a_libc_does() {
        let list = SearchList::parse(
            "search old.example\nnameserver 10.0.0.2\nsearch ns.svc.cluster.local Internal.Net.\n\
             options edns0 ndots:5 timeout:1\n",
        );
        let below = ["www.example.com.ns.svc.cluster.local", "www.example.com.internal.net"];
        let all = [&below[..], &["www.example.com"]].concat();
        assert_eq!(list.candidates("www.example.com"), all);
        assert_eq!(list.candidates("www.example.com."), ["www.example.com"]);
        assert_eq!(list.candidates("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
        let plain = SearchList::parse("domain corp.example ignored\n");
        assert_eq!(plain.candidates("host"), ["host.corp.example", "host"]);
        assert_eq!(plain.candidates("a.host"), ["a.host", "a.host.corp.example"]);
        assert_eq!(SearchList::parse("options ndots:99\n").ndots, 15);
        assert_eq!(SearchList::parse("search .\n").candidates("host"), ["host"]);
        assert_eq!(SearchList::parse("").candidates("host"), ["host"]);
    }

    #[test]
    fn variables_of_a_process_replace_the_list() {
        let list = || SearchList::parse("search corp.example\noptions ndots:5\n");
        let changed = list().with_environment(Some("a.example b.example"), Some("debug ndots:2"));
        assert_eq!(changed.candidates("x.y")[..2], ["x.y.a.example", "x.y.b.example"]);
        assert_eq!(changed.ndots, 2);
        assert_eq!(list().with_environment(None, Some("rotate")), list());
        assert_eq!(list().with_environment(Some(""), None).candidates("host"), ["host"]);
    }
}
