//! The tables of the packet datapath. Their sizes here are placeholders where they depend on the
//! pool: the loader computes them.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, ProgramArray},
    macros::btf_map,
};
use redirector_common::packet::{
    flow::{BRIEF_FLOW_ENTRIES, BriefFlow, FILTER_WORDS, FLOW_ENTRIES, Flow, FlowKey},
    interface::{Interface, InterfaceFlows},
    name::{NAME_OCTETS, NameEntry, NameSettings, ReverseEntry, ShortEntry, WildcardEntry},
    stats::PacketStats,
};

/// Memory of these tables is allocated as they fill.
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// See [`redirector_common::names::NAMES`].
#[btf_map]
pub(crate) static RD_NAMES: HashMap<u64, ShortEntry, 1, NO_PREALLOC> = HashMap::new();

/// See [`redirector_common::names::LONG_NAMES`].
#[btf_map]
pub(crate) static RD_LONG_NAMES: HashMap<u64, NameEntry, 1, NO_PREALLOC> = HashMap::new();

/// See [`redirector_common::names::NAME_FILTER`].
#[btf_map]
pub(crate) static RD_NAME_FILTER: Array<u64, 1> = Array::new();

/// See [`redirector_common::names::WILDCARDS`].
#[btf_map]
pub(crate) static RD_WILDCARDS: LpmTrie<[u8; NAME_OCTETS], WildcardEntry, 1> = LpmTrie::new();

/// See [`redirector_common::names::REVERSE_NAMES`].
#[btf_map]
pub(crate) static RD_REVERSE: HashMap<u32, ReverseEntry, 1, NO_PREALLOC> = HashMap::new();

/// See [`redirector_common::names::NAME_SETTINGS`].
#[btf_map]
pub(crate) static RD_NAME_CONF: Array<NameSettings, 1> = Array::new();

/// See [`redirector_common::names::ANSWERS`].
#[btf_map]
pub(crate) static RD_ANSWERS: Array<u64, 1> = Array::new();

/// See [`redirector_common::names::CGROUPS`].
#[btf_map]
pub(crate) static RD_CGROUPS: HashMap<u64, u32, 65536, NO_PREALLOC> = HashMap::new();

/// See [`redirector_common::names::INTERFACES`].
#[btf_map]
pub(crate) static RD_INTERFACES: HashMap<u32, Interface, 16384, NO_PREALLOC> = HashMap::new();

/// See [`redirector_common::names::INTERFACE_FLOWS`].
#[btf_map]
pub(crate) static RD_IF_FLOWS: HashMap<u32, InterfaceFlows, 16384, NO_PREALLOC> = HashMap::new();

/// See [`redirector_common::names::EXPIRED_FLOWS`].
#[btf_map]
pub(crate) static RD_EXPIRED: Array<u64, 1> = Array::new();

/// See [`redirector_common::names::FLOWS`].
#[btf_map]
pub(crate) static RD_FLOWS: HashMap<FlowKey, Flow, { FLOW_ENTRIES as usize }, NO_PREALLOC> =
    HashMap::new();

/// See [`redirector_common::names::BRIEF_FLOWS`].
#[btf_map]
pub(crate) static RD_BRIEF_FLOWS: LruHashMap<FlowKey, BriefFlow, { BRIEF_FLOW_ENTRIES as usize }> =
    LruHashMap::new();

/// See [`redirector_common::names::BACKEND_FILTER`].
#[btf_map]
pub(crate) static RD_BKND_FILTER: Array<u64, { FILTER_WORDS as usize }> = Array::new();

/// See [`redirector_common::names::TAIL_CALLS`].
#[btf_map]
pub(crate) static RD_TAIL_CALLS: ProgramArray<1> = ProgramArray::new();

/// See [`redirector_common::names::PACKET_STATS`].
#[btf_map]
pub(crate) static RD_PACKET_STATS: Array<PacketStats, 1> = Array::new();
