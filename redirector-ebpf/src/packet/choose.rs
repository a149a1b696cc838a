//! Chooses the backend of a guest's flow, with the decision of the cgroup programs.

use redirector_common::{
    addr::PortBe,
    backend::{BackendId, Witness},
    decide::{self, Backend, Client, Families, Verdict},
};

use super::{
    scratch::work,
    work::{get, set, set_address},
};
use crate::tables::KernelTables;

/// The backend is in `work.choice`.
pub(crate) const REDIRECT: u32 = 0;
/// The connect is refused.
pub(crate) const REFUSE: u32 = 1;
/// The connect is left alone.
pub(crate) const PASS: u32 = 2;

/// A guest that connects. It has exactly the VIP's family: packets are not translated between
/// families.
struct Guest {
    port: PortBe,
    families: Families,
    last: BackendId,
    witness: Witness,
}

impl Client for Guest {
    #[inline(always)]
    fn port(&self) -> PortBe {
        self.port
    }

    #[inline(always)]
    fn families(&self) -> Families {
        self.families
    }

    #[inline(always)]
    fn last(&self) -> BackendId {
        self.last
    }

    #[inline(always)]
    fn witness(&self) -> Witness {
        self.witness
    }
}

/// Chooses a backend of route `index`; `client`: the port in network order, and 1 << 16 for an IPv6
/// VIP; `last`: the backend that this flow was sent to before.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn rd_choose(index: u32, client: u32, last: u32) -> u32 {
    let Some(work) = work() else { return REFUSE };
    let guest = Guest {
        port: PortBe(client as u16),
        families: Families { prefer_v6: client >> 16 != 0, dual_stack: false },
        last: BackendId(last),
        witness: Witness::interface(get!(work.key.interface)),
    };
    let mut backend = Backend::default();
    match decide::connect(&KernelTables, index, &guest, &mut backend) {
        Verdict::Redirect => {}
        Verdict::Refuse => return REFUSE,
        Verdict::Pass => return PASS,
    }
    set!(work.choice.id = backend.id());
    set!(work.choice.port = backend.port());
    set!(work.choice.is_trial = u8::from(backend.is_trial()));
    set!(work.choice.all_ejected = u8::from(backend.all_ejected()));
    let [a, b, c, d] = backend.address(&KernelTables, guest.families).0.map(u64::from);
    set_address!(work.choice.address = [a | b << 32, c | d << 32]);
    REDIRECT
}
