//! The variants of the benchmark, and which are compared.

use crate::options::FULL_POOL;

/// Which client of the fixture connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientKind {
    /// Its cgroup has no program.
    Bare,
    /// Programs that return at once.
    Empty,
    /// Programs that return at once, and socket storage made at each connect.
    Storage,
    /// The same with an entry of a hash table in place of the storage.
    HashEntry,
    /// The redirector.
    Redirector,
    /// The redirector, and a route of two backends.
    TwoBackends,
    /// nftables.
    Dnat,
    /// HAProxy.
    Proxy,
    /// Another build of the redirector.
    Baseline,
}

/// One side of a comparison.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variant {
    pub(super) name: &'static str,
    pub(super) client: ClientKind,
    /// To the VIP, the translated address or the proxy; otherwise to the server itself.
    pub(super) indirect: bool,
    /// How many addresses the connects are spread over at random.
    pub(super) spread: u32,
}

impl Variant {
    /// Whether `other` is compared with this one.
    pub(super) fn is_base_of(&self, other: &Self) -> bool {
        match self.client {
            ClientKind::Bare | ClientKind::Empty => true,
            ClientKind::Baseline => {
                other.client == ClientKind::Redirector
                    && (other.indirect, other.spread) == (self.indirect, self.spread)
            }
            _ => false,
        }
    }
}

const fn direct(name: &'static str, client: ClientKind) -> Variant {
    Variant { name, client, indirect: false, spread: 1 }
}

const fn indirect(name: &'static str, client: ClientKind) -> Variant {
    Variant { name, client, indirect: true, spread: 1 }
}

pub(super) const BARE: Variant = direct("bare", ClientKind::Bare);
pub(super) const EMPTY: Variant = direct("empty programs", ClientKind::Empty);
pub(super) const STORAGE: Variant = direct("empty + socket storage", ClientKind::Storage);
pub(super) const HASH_ENTRY: Variant = direct("empty + hash entry", ClientKind::HashEntry);
pub(super) const MISS: Variant = direct("redirector, miss", ClientKind::Redirector);
pub(super) const HIT: Variant = indirect("redirector, hit", ClientKind::Redirector);
pub(super) const HIT_TWO: Variant =
    indirect("redirector, hit, one of two backends", ClientKind::TwoBackends);
pub(super) const HIT_ANY: Variant = Variant {
    name: "redirector, hit, any of 65,534 VIPs",
    client: ClientKind::Redirector,
    indirect: true,
    spread: FULL_POOL,
};
pub(super) const BASELINE_MISS: Variant = direct("baseline, miss", ClientKind::Baseline);
pub(super) const BASELINE_HIT: Variant = indirect("baseline, hit", ClientKind::Baseline);
pub(super) const DNAT: Variant = indirect("nftables DNAT", ClientKind::Dnat);
pub(super) const PROXY: Variant = indirect("HAProxy", ClientKind::Proxy);

/// The scenarios' names, by which the targets find them.
pub(super) const UDP: &str = "UDP connect()";
pub(super) const UDP_LIFE: &str = "UDP socket(), connect(), close()";
pub(super) const UDP_SEND: &str = "UDP sendto(), one byte, not DNS";
pub(super) const TCP: &str = "TCP connect, one byte each way, close";
pub(super) const UDP_FULL: &str = "UDP connect(), 65,534 routes";
pub(super) const TCP_FULL: &str = "TCP connect, one byte each way, close, 65,534 routes";

/// The hooks of successive hits that send no packet: programs and tables are in the caches. Other
/// connects keep the agent sampling its events meanwhile.
pub(super) const HOT: &str = "hit, nothing sent";
/// The same without that load: each event also records the calling process.
pub(super) const HOT_UNSAMPLED: &str = "hit, nothing sent, caller recorded";
/// The same as [`HOT`] with a full pool, and beside it a route of two backends.
pub(super) const HOT_FULL: &str = "hit, nothing sent, 65,534 routes";
