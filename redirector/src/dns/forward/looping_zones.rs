//! Zones that an upstream forwards back to us, while it resolves other names: a dnsmasq of this
//! host with a line `server=/ZONE/SHIM` for a zone that a route touches.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;

use crate::dns::local::WireName;

/// The zones that were probed at one upstream.
#[derive(Debug, Default)]
pub(super) struct LoopingZones {
    /// Whether a zone's probe came back. The names are in lower case.
    probed: Mutex<BTreeMap<WireName, bool>>,
    /// Whether any did: saves the look-up for each query.
    any: AtomicBool,
}

impl LoopingZones {
    /// Whether a name, in wire form and any case, is in a zone that loops.
    pub(super) fn contain(&self, name: &[u8]) -> bool {
        if !self.any.load(Relaxed) {
            return false;
        }
        let name = name.to_ascii_lowercase();
        let probed = self.probed.lock();
        suffixes(&name).any(|zone| probed.get(zone) == Some(&true))
    }

    /// Whether a zone's probe is due: for the first time, or since it came back the last time.
    /// Below a zone that loops none is.
    pub(super) fn is_due(&self, zone: &WireName) -> bool {
        let probed = self.probed.lock();
        let is_below = suffixes(zone).skip(1).any(|above| probed.get(above) == Some(&true));
        !is_below && probed.get(zone) != Some(&false)
    }

    /// Whether a zone was never probed, and none above it loops.
    pub(super) fn is_unknown(&self, zone: &WireName) -> bool {
        self.is_due(zone) && !self.probed.lock().contains_key(zone)
    }

    /// Records that a zone's probe came back. Returns whether that is new.
    pub(super) fn add(&self, zone: &WireName) -> bool {
        self.any.store(true, Relaxed);
        self.probed.lock().insert(Arc::clone(zone), true) != Some(true)
    }

    /// Records that a zone's probe did not come back. Returns whether it did before.
    pub(super) fn clear(&self, zone: &WireName) -> bool {
        let mut probed = self.probed.lock();
        let looped = probed.insert(Arc::clone(zone), false) == Some(true);
        self.any.store(probed.values().any(|loops| *loops), Relaxed);
        looped
    }

    /// Forgets zones that are not among `zones`.
    pub(super) fn retain(&self, zones: &HashSet<WireName>) {
        let mut probed = self.probed.lock();
        probed.retain(|zone, _| zones.contains(zone));
        self.any.store(probed.values().any(|loops| *loops), Relaxed);
    }

    /// The zones that loop, as text, without those below others.
    pub(super) fn names(&self) -> Vec<String> {
        let probed = self.probed.lock();
        let loops = |zone: &[u8]| probed.get(zone) == Some(&true);
        let widest = |zone: &&WireName| loops(zone) && !suffixes(zone).skip(1).any(loops);
        probed.keys().filter(widest).map(|zone| text(zone)).collect()
    }
}

/// A name and the names above it, without the root.
pub(super) fn suffixes(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(name), |&rest| rest.get(1 + usize::from(*rest.first()?)..))
        .take_while(|rest| rest.len() > 1)
}

/// A name of ours in wire form as text.
pub(super) fn text(name: &[u8]) -> String {
    let labels = suffixes(name).filter_map(|rest| rest.get(1..1 + usize::from(*rest.first()?)));
    labels.map(String::from_utf8_lossy).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZONE: &[u8] = b"\x08internal\x07company\x03net\0";

    #[test]
    fn a_zone_that_loops_contains_its_names_only() {
        let zones = LoopingZones::default();
        let zone: WireName = ZONE.into();
        assert!(zones.is_due(&zone) && !zones.contain(ZONE));
        assert!(zones.add(&zone) && !zones.add(&zone), "new once");
        for (name, expected) in [
            (&b"\x08INTERNAL\x07company\x03net\0"[..], true),
            (b"\x01a\x01b\x08internal\x07Company\x03net\0", true),
            (b"\x07company\x03net\0", false),
            (b"\x09xinternal\x07company\x03net\0", false),
            (b"\0", false),
            (b"", false),
        ] {
            assert_eq!(zones.contain(name), expected, "{name:?}");
        }
        zones.add(&b"\x01a\x08internal\x07company\x03net\0"[..].into());
        assert_eq!(zones.names(), ["internal.company.net"], "which includes the other");
        assert!(zones.is_due(&zone), "until it stops");
        assert!(!zones.is_due(&b"\x01a\x08internal\x07company\x03net\0"[..].into()));
        assert!(zones.clear(&zone) && !zones.clear(&zone) && !zones.contain(ZONE));
        assert!(!zones.is_due(&zone), "known");
    }

    #[test]
    fn a_zone_without_a_route_is_forgotten() {
        let zones = LoopingZones::default();
        zones.add(&ZONE.into());
        let only = |zone: &[u8]| HashSet::from([zone.into()]);
        zones.retain(&only(ZONE));
        assert!(zones.contain(ZONE));
        zones.retain(&only(b"\x03net\0"));
        assert!(!zones.contain(ZONE) && zones.names().is_empty() && zones.is_due(&ZONE.into()));
    }
}
