//! Scenarios of attaching, of a missing agent, and of unloading.

use anyhow::{Context as _, Result, ensure};
use redirector::datapath::{self, TcHook};

use super::{
    fixture::PacketFixture,
    names::{expect_untouched, expect_vip, published},
};
use crate::{
    fixture::settings,
    network::{
        customer::RESOLVER,
        netlink::Netlink,
        places::{GUEST, TAGGED},
    },
};

/// Names are answered without an agent; the next one takes them over.
pub(super) fn no_agent(fixture: &mut PacketFixture) -> Result<()> {
    fixture.end_agent();
    let works = || -> Result<()> {
        expect_vip(TAGGED, RESOLVER.into(), published())?;
        expect_vip(GUEST, RESOLVER.into(), published())?;
        expect_untouched(GUEST, RESOLVER.into(), "elsewhere.test")
    };
    works().context("without an agent")?;
    fixture.start_agent(false)?;
    works().context("with the next agent")
}

/// Filters of clsact do the same on every kernel; the agent swaps them in place.
pub(super) fn clsact(fixture: &mut PacketFixture) -> Result<()> {
    let datapath = fixture.datapath()?;
    let indices: Vec<u32> =
        datapath.interface_attachments().iter().map(|attachment| attachment.index).collect();
    datapath.detach_interfaces(&indices)?;
    let pinned = datapath.pinned_interfaces()?;
    ensure!(pinned.is_empty(), "{pinned:?}");
    expect_untouched(GUEST, RESOLVER.into(), published().0)?;
    datapath.force_clsact();
    fixture.attach_interfaces()?;
    let works = |fixture: &mut PacketFixture| -> Result<()> {
        let hooks = fixture.datapath()?.interface_attachments();
        ensure!(hooks.iter().all(|at| at.hook == TcHook::Clsact), "{hooks:?}");
        let mut actors = [GUEST, TAGGED].into_iter();
        actors.try_for_each(|actor| expect_vip(actor, RESOLVER.into(), published()))
    };
    works(fixture)?;
    fixture.end_agent();
    fixture.start_agent(true)?;
    works(fixture).context("with the next agent")
}

/// Pins, filters and qdiscs are gone, and packets pass as they did before.
pub(super) fn unload(mut fixture: PacketFixture) -> Result<()> {
    fixture.end_agent();
    datapath::unload(&settings()?.bpffs)?;
    expect_untouched(GUEST, RESOLVER.into(), published().0)?;
    let left = Netlink::open()?.clsact_qdiscs()?;
    ensure!(left.is_empty(), "interfaces that still have a clsact qdisc: {left:?}");
    Ok(())
}
