//! Scenarios of names: each place asks a resolver that would answer with another address.

use std::net::IpAddr;

use anyhow::{Result, bail, ensure};
use redirector::datapath::PublishedName;

use super::fixture::{PacketFixture, route};
use crate::{
    fixture::{vip, vip6},
    network::{
        actor::Actor,
        customer::{ANSWERED, ONE, RESOLVER, RESOLVER_B, RESOLVER6},
        places::{GUEST, IPVLAN, MACVLAN, NETKIT, OUTSIDE, STUB, TAGGED, has_netkit},
        query,
        requests::Answer,
    },
};

/// The name that the scenarios of places ask for, and its VIP.
const NAME: (&str, u32) = ("registry.internal.test", 100);

/// A, AAAA, and what has no record, from the resolver that was asked, in the question's case.
pub(super) fn answers(fixture: &mut PacketFixture) -> Result<()> {
    let (name, index) = NAME;
    fixture.put(index, route(&[ONE.into()]))?;
    fixture.publish(name, PublishedName::live(index))?;
    for resolver in [RESOLVER.into(), RESOLVER6.into()] {
        let asked = "ReGiStRy.internal.test";
        for (kind, expected) in
            [("A", vec![vip(index).to_string()]), ("AAAA", vec![vip6(index).to_string()])]
        {
            let answer = GUEST.query(resolver, asked, kind)?;
            let expected = Answer {
                from: resolver,
                code: "NoError".to_owned(),
                records: expected,
                authorities: 0,
                name: asked.to_owned(),
            };
            ensure!(answer == expected, "{kind}: {answer:?}");
        }
        for kind in ["HTTPS", "TXT", "MX", "SOA"] {
            let answer = GUEST.query(resolver, name, kind)?;
            let is_nodata = answer.code == "NoError"
                && answer.records.is_empty()
                && answer.authorities == 1
                && answer.from == resolver;
            ensure!(is_nodata, "{kind}: {answer:?}");
        }
    }
    Ok(())
}

/// The deepest wildcard, but an exact name before it.
pub(super) fn wildcards(fixture: &mut PacketFixture) -> Result<()> {
    let sources = [
        ("**.wild.test", 101),
        ("**.deep.wild.test", 102),
        ("a.wild.test", 103),
        ("*.one.wild.test", 104),
    ];
    for (source, index) in sources {
        fixture.put(index, route(&[ONE.into()]))?;
        fixture.publish(source, PublishedName::live(index))?;
    }
    for (name, index) in [
        ("b.wild.test", 101),
        ("c.b.wild.test", 101),
        ("deep.wild.test", 101),
        ("x.y.deep.wild.test", 102),
        ("a.wild.test", 103),
        ("x.one.wild.test", 104),
        ("y.x.one.wild.test", 101),
    ] {
        expect_vip(GUEST, RESOLVER.into(), (name, index))?;
    }
    for name in ["wild.test", "bwild.test"] {
        expect_untouched(GUEST, RESOLVER.into(), name)?;
    }
    Ok(())
}

/// The question for a VIP's reverse name gets the source.
pub(super) fn reverse(_: &mut PacketFixture) -> Result<()> {
    let [a, b, c, d] = vip(NAME.1).octets();
    let answer = GUEST.query(RESOLVER.into(), &format!("{d}.{c}.{b}.{a}.in-addr.arpa"), "PTR")?;
    ensure!(answer.records == [format!("{}.", NAME.0)], "{answer:?}");
    Ok(())
}

/// A route whose backends are not known yet.
pub(super) fn pending(fixture: &mut PacketFixture) -> Result<()> {
    fixture.publish("pending.test", PublishedName::pending(104))?;
    let answer = GUEST.query(RESOLVER.into(), "pending.test", "A")?;
    ensure!(answer.code == "ServFail" && answer.records.is_empty(), "{answer:?}");
    Ok(())
}

pub(super) fn others_untouched(_: &mut PacketFixture) -> Result<()> {
    for name in ["elsewhere.test", "internal.test", "xregistry.internal.test", "a.b.c.d.e.test"] {
        for resolver in [RESOLVER.into(), RESOLVER6.into()] {
            expect_untouched(GUEST, resolver, name)?;
        }
    }
    Ok(())
}

/// This process is in an attached cgroup: over an uplink, over IPv6, and from a stub on `lo`.
pub(super) fn attached_host_sockets(_: &mut PacketFixture) -> Result<()> {
    for resolver in [RESOLVER.into(), RESOLVER6.into(), STUB.into()] {
        let answer = query::ask(resolver, NAME.0, "A")?;
        ensure!(
            answer.records == [vip(NAME.1).to_string()] && answer.from == resolver,
            "{resolver}: {answer:?}"
        );
        let answer = query::ask(resolver, "elsewhere.test", "A")?;
        ensure!(answer.records == [ANSWERED.to_string()], "{resolver}: {answer:?}");
    }
    Ok(())
}

/// Sockets of the host outside the attached cgroups get what the resolver says.
pub(super) fn other_host_sockets(_: &mut PacketFixture) -> Result<()> {
    for resolver in [RESOLVER.into(), RESOLVER6.into(), STUB.into()] {
        expect_untouched(OUTSIDE, resolver, NAME.0)?;
    }
    Ok(())
}

pub(super) fn tagged(_: &mut PacketFixture) -> Result<()> {
    answered_at(TAGGED, RESOLVER.into())
}

pub(super) fn netkit(_: &mut PacketFixture) -> Result<()> {
    if has_netkit() { answered_at(NETKIT, RESOLVER.into()) } else { Ok(()) }
}

pub(super) fn macvlan(_: &mut PacketFixture) -> Result<()> {
    answered_at(MACVLAN, RESOLVER.into())
}

pub(super) fn ipvlan(_: &mut PacketFixture) -> Result<()> {
    answered_at(IPVLAN, RESOLVER_B.into())
}

/// The name is answered at this place, and another name is not.
fn answered_at(actor: Actor, resolver: IpAddr) -> Result<()> {
    expect_vip(actor, resolver, NAME)?;
    expect_untouched(actor, resolver, "elsewhere.test")
}

/// The name is answered with the VIP, by the resolver.
pub(super) fn expect_vip(actor: Actor, resolver: IpAddr, (name, index): (&str, u32)) -> Result<()> {
    let answer = actor.query(resolver, name, "A")?;
    if answer.records != [vip(index).to_string()] || answer.from != resolver {
        bail!("{actor:?}: {name}: {answer:?}");
    }
    Ok(())
}

/// The name gets the resolver's own answer.
pub(super) fn expect_untouched(actor: Actor, resolver: IpAddr, name: &str) -> Result<()> {
    let answer = actor.query(resolver, name, "A")?;
    if answer.records != [ANSWERED.to_string()] || answer.from != resolver {
        bail!("{actor:?}: {name}: {answer:?}");
    }
    Ok(())
}

/// The name that is published for every later scenario, with its VIP's index.
pub(super) const fn published() -> (&'static str, u32) {
    NAME
}

pub(super) fn counters(fixture: &mut PacketFixture) -> Result<()> {
    let answers = fixture.datapath()?.name_answers(NAME.1)?;
    let stats = fixture.datapath()?.packet_stats()?;
    let counted = answers > 0
        && answers < stats.names_answered + stats.names_nodata
        && stats.names_reverse == 1
        && stats.names_servfail == 1;
    ensure!(counted && stats.names_failed == 0, "{answers} answers, {stats:?}");
    Ok(())
}
