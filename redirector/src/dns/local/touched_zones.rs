//! The zones that sources are in.

use std::collections::BTreeSet;

use super::zone::{WireName, Zone, above};

impl Zone {
    /// The zones that sources are in: that of each name and of each wildcard, and those above with
    /// two labels or more. Zones with fewer labels come first.
    pub(crate) fn touched(&self) -> Vec<WireName> {
        let mut found = BTreeSet::new();
        for mut zone in self.zones() {
            let mut labels = count(zone);
            while labels > 0 && found.insert((labels, zone)) && labels > 2 {
                zone = above(zone);
                labels -= 1;
            }
        }
        found.into_iter().map(|(_, zone)| zone.into()).collect()
    }
}

fn count(mut name: &[u8]) -> usize {
    let mut labels = 0;
    while name.len() > 1 {
        name = above(name);
        labels += 1;
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::local::Answer;

    #[test]
    fn touched_zones_are_above_names_and_those_of_wildcards() {
        let sources =
            ["a.b.company.net", "c.b.company.net", "**.d.example", "host.corp", "*.corp", "host"];
        let zone = Zone::new(sources.map(|source| (source.parse().unwrap(), Answer::Pending)));
        let expected: [&[u8]; 4] = [
            b"\x04corp\0",
            b"\x01d\x07example\0",
            b"\x07company\x03net\0",
            b"\x01b\x07company\x03net\0",
        ];
        assert_eq!(zone.touched(), expected.map(WireName::from));
        assert!(Zone::default().touched().is_empty());
    }
}
