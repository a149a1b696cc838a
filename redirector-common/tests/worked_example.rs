//! The byte listing at the start of `docs/ARCHITECTURE.md` equals what this crate computes.

use core::mem::{offset_of, size_of};

use redirector_common::{
    addr::{Ip4Be, Ip6Be, PortBe},
    backend::{BackendId, Caller, Health, Witness},
    decide::{
        self, Candidates, Client, ClientKey, Draw, DrawInput, Families, Pool4, PortLookup,
        PortPairs, Selection, Tables, Verdict,
    },
    origin::Origin,
    route::{RouteEntry, Slot},
};

const PAGE: &str = include_str!("../../docs/ARCHITECTURE.md");
const AF_INET: u16 = 2;
const GENERATION: u8 = 5;

/// The bytes that the page lists under `label`.
#[track_caller]
fn listed(label: &str) -> Vec<u8> {
    let line = PAGE
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(label)?.strip_prefix(' '))
        .unwrap_or_else(|| panic!("the page does not list `{label}`"));
    let digits = |word: &&str| word.len() == 2 && u8::from_str_radix(word, 16).is_ok();
    let words = line.split_whitespace().take_while(digits);
    let bytes: Vec<u8> = words.map(|word| u8::from_str_radix(word, 16).unwrap()).collect();
    assert!(!bytes.is_empty(), "no bytes after `{label}`");
    bytes
}

/// The eight bytes under `label` as a word.
fn word(label: &str) -> u64 {
    u64::from_ne_bytes(listed(label).try_into().unwrap())
}

/// The first eight bytes of a `sockaddr_in`; the others are zero.
fn sockaddr(address: Ip4Be, port: PortBe) -> Vec<u8> {
    [&AF_INET.to_ne_bytes()[..], &port.0.to_ne_bytes(), &address.octets()].concat()
}

#[test]
fn the_destination_is_a_pool_index() {
    let vip = Ip4Be::from_octets([198, 18, 70, 153]);
    let pool = Pool4::new(Ip4Be::from_octets([198, 18, 0, 0]), 16);
    assert_eq!(listed("sockaddr of connect()"), sockaddr(vip, PortBe::new(443)));
    assert_eq!(listed("pool mask"), pool.mask.to_ne_bytes());
    assert_eq!(listed("pool base"), pool.base.octets());
    assert_eq!(listed("address & mask"), (vip.0 & pool.mask).to_ne_bytes());
    assert_eq!(listed("address & !mask"), (vip.0 & !pool.mask).to_ne_bytes());
    assert_eq!(pool.index(vip), Some(18073));
    assert!(PAGE.contains("VIP index 0x4699 = 18073"));
}

#[test]
fn the_entry_and_its_slots_have_these_bytes() {
    let entry = RouteEntry::from_bits(word("route entry"));
    assert_eq!((entry.first(), entry.backends6()), (40, 0));
    assert_eq!((entry.ports, entry.backends4, entry.generation), (1, 2, GENERATION));
    assert_eq!(entry.policy, RouteEntry::PRESENT);
    let parts =
        ["first slot", "IPv6 backends", "port pairs", "IPv4 backends", "generation", "policy"];
    assert_eq!(parts.map(listed).concat(), listed("route entry"));

    let https = PortBe::new(443);
    let backend = |number, last| {
        Slot::v4(GENERATION, BackendId(number), Ip4Be::from_octets([203, 0, 113, last]))
    };
    for (label, slot) in [
        ("slot 40, port pair", Slot::port(GENERATION, https, https)),
        ("slot 41, backend 1", backend(1, 7)),
        ("slot 42, backend 2", backend(2, 8)),
    ] {
        assert_eq!(listed(label), slot.to_bits().to_ne_bytes(), "{label}");
    }
    assert_eq!((entry.first(), entry.first_backend(), entry.options_slot()), (40, 41, 43));
}

/// The maps as the page lists them; the draw is the highest number.
struct ListedTables;

impl Tables for ListedTables {
    fn route(&self, index: u32) -> RouteEntry {
        assert_eq!(index, 18073);
        RouteEntry::from_bits(word("route entry"))
    }
    fn slot(&self, index: u32) -> Slot {
        let labels = ["slot 40, port pair", "slot 41, backend 1", "slot 42, backend 2"];
        Slot::from_bits(word(labels[index as usize - 40]))
    }
    fn address6(&self, _: BackendId) -> Ip6Be {
        unreachable!("no backend has an IPv6 address")
    }
    fn connects(&self, _: u32) -> u32 {
        unreachable!("the route has no source addresses")
    }
    fn health(&self, _: BackendId, _: PortBe) -> Health {
        Health::HEALTHY
    }
    fn succeeded_ns(&self, _: BackendId) -> Option<u64> {
        unreachable!("no backend has failed")
    }
    fn latest_success(&self, _: Candidates, _: DrawInput) -> u32 {
        unreachable!("no backend has failed")
    }
    fn now_ns(&self) -> u64 {
        unreachable!("no backend has failed")
    }
    fn random(&self) -> u32 {
        u32::MAX
    }
    fn find_port(&self, pairs: PortPairs, client: PortBe) -> PortLookup {
        decide::find_port(self, pairs, client)
    }
    fn scan_eligible(&self, _: Candidates, _: DrawInput) -> Draw {
        unreachable!("no backend has failed")
    }
    fn select(&self, index: u32, key: ClientKey) -> Selection {
        decide::select(self, index, key)
    }
    fn reload(&self, word: u64) -> u64 {
        word
    }
}

/// A new `AF_INET` socket that connects to port 443.
struct NewSocket;

impl Client for NewSocket {
    fn port(&self) -> PortBe {
        PortBe::new(443)
    }
    fn families(&self) -> Families {
        Families::V4_ONLY
    }
    fn last(&self) -> BackendId {
        BackendId::NONE
    }
    fn witness(&self) -> Witness {
        Witness::cgroup(1)
    }
}

#[test]
fn the_decision_over_the_listed_maps_selects_slot_42() {
    let mut backend = decide::Backend::default();
    let verdict = decide::connect(&ListedTables, 18073, &NewSocket, &mut backend);
    assert_eq!((verdict, backend.id()), (Verdict::Redirect, BackendId(2)));
    let address = backend.address(&ListedTables, Families::V4_ONLY).as_mapped().unwrap();
    assert_eq!(listed("sockaddr after the hook"), sockaddr(address, backend.port()));
}

#[test]
fn the_origin_records_the_connect() {
    let port = PortBe::new(443);
    let backend = Ip4Be::from_octets([203, 0, 113, 8]);
    let origin = Origin {
        route: 18073,
        backend: Ip6Be::mapped(backend),
        backend_id: BackendId(2),
        vip_port: port,
        backend_port: port,
        phase: Origin::PHASE_CHOSEN,
        ..Origin::default()
    };
    // SAFETY: `Origin` is plain data without implicit padding: its padding is a field.
    let bytes: [u8; size_of::<Origin>()] = unsafe { core::mem::transmute(origin) };
    for (label, offset) in [
        ("origin, route", offset_of!(Origin, route)),
        ("origin, backend", offset_of!(Origin, backend)),
        ("origin, backend ID", offset_of!(Origin, backend_id)),
        ("origin, VIP port", offset_of!(Origin, vip_port)),
        ("origin, backend port", offset_of!(Origin, backend_port)),
        ("origin, phase", offset_of!(Origin, phase)),
    ] {
        let listed = listed(label);
        assert_eq!(listed, bytes[offset..offset + listed.len()], "{label}");
    }
    assert!(PAGE.contains(&format!("`RD_ORIGINS`, {} bytes", size_of::<Origin>())));
    assert_eq!(listed("sockaddr after the hook"), sockaddr(backend, port));
}

#[test]
fn a_refusal_ejects_the_backend_for_a_second() {
    let outcome = decide::connect_outcome(Origin::PHASE_CONNECTING, 0, Origin::EVIDENCE_ANSWERED);
    assert_eq!(outcome, decide::ConnectOutcome::Refused);
    assert!(outcome.is_backend_failure());
    let now_ns = 1 << 40;
    let caller = Caller::new(PortBe::new(443), Witness::cgroup(1));
    let health = Health::HEALTHY.after_failure(caller, now_ns);
    assert_eq!((health.failures(), health.witness()), (1, Some(Witness::cgroup(1))));
    assert_eq!(health.left_ns(now_ns).div_ceil(Health::UNIT_NS), 120);
}
