//! Sockets of the host's own network: names are answered for those of attached cgroups.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_ancestor_cgroup_id};
use redirector_common::packet::search::is_attached;

use crate::packet::maps::RD_CGROUPS;

/// Whether the packet's socket, if it has one here, is in an attached cgroup. Forwarded packets
/// have none.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn rd_attached(skb: *mut __sk_buff, levels: u32) -> u32 {
    // SAFETY: the context; the helper returns 0 if there is no socket or no such level.
    let ancestor = |level: u32| unsafe { bpf_skb_ancestor_cgroup_id(skb, level as i32) };
    is_attached(levels, ancestor, |id| RD_CGROUPS.get_ptr(id).is_some()).into()
}
