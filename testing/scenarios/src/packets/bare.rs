//! Scenarios without the datapath: they show that the places work.

use anyhow::{Result, ensure};

use crate::{
    fixture::PORT,
    network::{
        customer::{ANSWERED, CLOSED, ONE, RESOLVER, RESOLVER_B, RESOLVER6, SIX},
        places::{GUEST, IPVLAN, MACVLAN, NETKIT, OUTSIDE, PATH_MTU, STUB, TAGGED, has_netkit},
        requests::{Reply, Request},
    },
};

type Scenario = fn() -> Result<()>;

pub(super) const ALL: [(&str, Scenario); 2] =
    [("bare: resolvers", resolvers), ("bare: connections", connections)];

fn resolvers() -> Result<()> {
    let mut places = vec![
        (GUEST, RESOLVER.into()),
        (GUEST, RESOLVER6.into()),
        (TAGGED, RESOLVER.into()),
        (MACVLAN, RESOLVER.into()),
        (IPVLAN, RESOLVER_B.into()),
        (OUTSIDE, RESOLVER.into()),
        (OUTSIDE, STUB.into()),
    ];
    places.extend(has_netkit().then_some((NETKIT, RESOLVER.into())));
    for (actor, resolver) in places {
        let answer = actor.query(resolver, "elsewhere.test", "A")?;
        ensure!(
            answer.from == resolver && answer.records == [ANSWERED.to_string()],
            "{actor:?}: {answer:?}"
        );
    }
    Ok(())
}

fn connections() -> Result<()> {
    for actor in [GUEST, TAGGED].into_iter().chain(has_netkit().then_some(NETKIT)) {
        ensure!(actor.banner((ONE, PORT).into())? == "one", "{actor:?}");
    }
    ensure!(GUEST.banner((SIX, PORT).into())? == "six", "not the IPv6 server");
    let (errno, _) = GUEST.refusal((CLOSED, PORT).into())?;
    ensure!(errno == libc::ECONNREFUSED, "errno {errno}");
    for target in [(ONE, PORT).into(), (SIX, PORT).into()] {
        let moved = GUEST.expect(&Request::Transfer { target, octets: 1 << 20 })?;
        ensure!(moved == Reply::Transferred { mtu: PATH_MTU }, "{target}: {moved:?}");
    }
    Ok(())
}
