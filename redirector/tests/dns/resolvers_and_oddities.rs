//! Real resolvers behind the shim get what they get without it: from an upstream whose replies are
//! odd, and with a search list below a wildcard.

use std::net::Ipv4Addr;

use hickory_proto::{
    op::ResponseCode,
    rr::{RData, RecordType},
};
use redirector::dns::{ShimSettings, Vip, Zone};
use testbed::{
    ResolvConf,
    lookup_programs::{LookupPrograms, Resolver},
};

use crate::{
    message::{parsed, raw_opt, reply},
    resolver_stacks::{SHIM, UPSTREAM, VIP, in_a_netns, lookup_programs, port_53, run},
    running_shim::{RunningShim, settings},
    scripted_upstream::{Action, ReceivedQuery, ScriptedUpstream},
};

const EXTERNAL: &str = "www.example.org";
const ADDRESS: &str = "192.0.2.77";

/// What is odd about a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Oddity {
    Nothing,
    ArcountTooHigh,
    NoQuestion,
    /// For queries with EDNS only.
    FormerrWithOpt,
}

/// The reply to a query for [`EXTERNAL`]; other names do not exist.
fn odd_reply(oddity: Oddity, query: &[u8]) -> Vec<u8> {
    let asked = parsed(query);
    let (name, kind) = (asked.queries[0].name().to_string(), asked.queries[0].query_type());
    if !name.trim_end_matches('.').eq_ignore_ascii_case(EXTERNAL) {
        return reply(query, ResponseCode::NXDomain, &[]);
    }
    let address = RData::A(ADDRESS.parse().unwrap());
    let records = if kind == RecordType::A { &[address][..] } else { &[] };
    let mut octets = reply(query, ResponseCode::NoError, records);
    let name_end = 12 + EXTERNAL.len() + 2;
    match oddity {
        Oddity::FormerrWithOpt if asked.edns.is_some() => {
            let counts = [0, 1, 0, 0, 0, 0, 0, 1];
            let question = &query[12..name_end + 4];
            [&query[..2], &[0x81, 0x81], &counts, question, &raw_opt(1232, 0, false)].concat()
        }
        Oddity::Nothing | Oddity::FormerrWithOpt => octets,
        Oddity::ArcountTooHigh => {
            octets[11] = 3;
            octets
        }
        Oddity::NoQuestion => {
            octets[5] = 0;
            // The answer's owner points to the question's name.
            let owner = if records.is_empty() { &[] } else { &query[12..name_end] };
            let rest = octets.iter().skip(name_end + 4 + 2 * records.len());
            octets[..12].iter().chain(owner).chain(rest).copied().collect()
        }
    }
}

/// The shim in front of this upstream.
async fn start(oddity: Oddity) -> (ScriptedUpstream, RunningShim) {
    let replies =
        move |received: &ReceivedQuery| vec![Action::Send(odd_reply(oddity, &received.query))];
    let upstream = ScriptedUpstream::at(port_53(UPSTREAM), replies).await;
    let settings = ShimSettings { listen: vec![port_53(SHIM)], ..settings(&[upstream.address]) };
    let shim = RunningShim::start_with(settings).await;
    while shim.publisher.awaited_upstream().is_some() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    (upstream, shim)
}

/// The resolvers that get the address from this server. They ask once and at the same time: those
/// that reject a reply wait for another one.
fn accepting(programs: &LookupPrograms, server: Ipv4Addr) -> Vec<Resolver> {
    let resolv = format!("nameserver {server}\noptions timeout:5 attempts:1\n");
    std::fs::write("/etc/resolv.conf", resolv).expect("written");
    std::thread::scope(|scope| {
        let asking = Resolver::ALL.map(|resolver| {
            let line = programs.line(resolver, EXTERNAL);
            (resolver, scope.spawn(move || run(&line).contains(ADDRESS)))
        });
        asking
            .into_iter()
            .filter_map(|(resolver, asking)| asking.join().unwrap().then_some(resolver))
            .collect()
    })
}

#[test]
fn a_resolver_accepts_with_the_shim_what_it_accepts_without() {
    let (programs, _folder) = lookup_programs();
    for oddity in
        [Oddity::Nothing, Oddity::ArcountTooHigh, Oddity::NoQuestion, Oddity::FormerrWithOpt]
    {
        in_a_netns(&ResolvConf::of(&UPSTREAM.to_string()), async |_| {
            let (_upstream, shim) = start(oddity).await;
            let [without, with] = [UPSTREAM, SHIM].map(|server| accepting(&programs, server));
            println!("{oddity:?}: accepted by {without:?}");
            shim.stop().await;
            assert_eq!(with, without, "{oddity:?}");
            assert!(!without.is_empty(), "nobody accepts {oddity:?}");
        });
    }
}

/// The search list of a cluster of the customer's, with a wildcard of one label for its zone.
#[test]
fn a_wildcard_and_a_search_list_catch_no_external_name() {
    let resolv = ResolvConf {
        search: ["eu.internal.company.net", "internal.company.net"].map(str::to_owned).to_vec(),
        ndots: Some(5),
        ..ResolvConf::of(&SHIM.to_string())
    };
    in_a_netns(&resolv, async |_| {
        let (programs, _folder) = lookup_programs();
        let (upstream, shim) = start(Oddity::Nothing).await;
        let vip = Vip { v4: VIP.parse().unwrap(), v6: None };
        shim.publisher.publish(Zone::new([("*.internal.company.net".parse().unwrap(), vip)]));
        for resolver in Resolver::ALL {
            let output = run(&programs.line(resolver, EXTERNAL));
            assert!(output.contains(ADDRESS) && !output.contains(VIP), "{resolver:?}: {output}");
            // A full name of the zone has one label more than it.
            let output = run(&programs.line(resolver, "artifactory.internal.company.net"));
            assert!(output.contains(VIP), "{resolver:?}: {output}");
        }
        for resolver in [Resolver::Glibc, Resolver::Musl, Resolver::Node, Resolver::Jvm] {
            let output = run(&programs.line(resolver, "artifactory"));
            assert!(output.contains(VIP), "{resolver:?}: {output}");
        }
        assert!(!upstream.queries().is_empty());
        shim.stop().await;
    });
}
