//! The shim's decision about one query: reply, forward, or drop.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{DNSClass, RData, RecordType, rdata},
};
use proptest::prelude::*;
use redirector::dns::{
    Answer, AnswerPolicy, Decision, ForwardInfo, ReplyBuffer, ReplyKind, Vip, Zone, answer,
};

use crate::message::{bytes, name_of, parsed, query, raw_opt, raw_query, raw_question};

const TTL: u32 = 30;
const POLICY: AnswerPolicy = AnswerPolicy { ttl: TTL, real_addresses: false };
const RD: u16 = 0x0100;

fn v4(last: u8) -> Vip {
    Vip { v4: Ipv4Addr::new(198, 18, 0, last), v6: None }
}

fn zone() -> Zone {
    let v6 = Vip { v6: Some("fd00::7".parse().expect("an address")), ..v4(7) };
    let entries = [
        ("artifactory.internal.company.net", v4(1)),
        ("**.internal.company.net", v4(2)),
        ("**.b.internal.company.net", v4(3)),
        ("exact.b.internal.company.net", v4(4)),
        ("six.example", v6),
    ];
    Zone::new(entries.map(|(source, vip)| (source.parse().expect("a source"), vip)))
}

/// The reply to a query that is not forwarded.
fn local_reply(query: &[u8]) -> (ReplyKind, Message) {
    let mut reply = ReplyBuffer::new();
    match answer(query, &zone(), POLICY, &mut reply) {
        Decision::Reply(kind) => (kind, parsed(reply.as_bytes())),
        other => panic!("{other:?} instead of a reply"),
    }
}

fn is_forwarded(query: &[u8]) -> bool {
    matches!(answer(query, &zone(), POLICY, &mut ReplyBuffer::new()), Decision::Forward(_))
}

fn ask(name: &str, kind: RecordType) -> (ReplyKind, Message) {
    local_reply(&bytes(&query(name, kind)))
}

fn only_address(message: &Message) -> IpAddr {
    match &message.answers[..] {
        [record] => record.data.ip_addr().expect("an address record"),
        other => panic!("{} answers instead of one", other.len()),
    }
}

fn pending_and_real() -> Zone {
    let addresses =
        |list: &[&str]| list.iter().map(|text| text.parse().expect("an address")).collect();
    let many: Vec<IpAddr> = (1..=64).map(|n| IpAddr::from([203, 0, 113, n])).collect();
    let live = |real| Answer::Live { vip: v4(1), real };
    let entries = [
        ("coming.example", Answer::Pending),
        ("two.example", live(addresses(&["203.0.113.7", "203.0.113.8", "2001:db8::7"]))),
        ("many.example", live(many)),
        ("none.example", live(vec![])),
    ];
    Zone::new(entries.map(|(source, answer)| (source.parse().expect("a source"), answer)))
}

/// The reply from the zone of [`pending_and_real`], and its length.
fn reply_for(name: &str, kind: RecordType, id: u16, real: bool) -> (ReplyKind, Message, usize) {
    let mut message = query(name, kind);
    message.metadata.id = id;
    let mut reply = ReplyBuffer::new();
    match answer(
        &bytes(&message),
        &pending_and_real(),
        AnswerPolicy { ttl: TTL, real_addresses: real },
        &mut reply,
    ) {
        Decision::Reply(kind) => (kind, parsed(reply.as_bytes()), reply.as_bytes().len()),
        other => panic!("{other:?} instead of a reply"),
    }
}

#[test]
fn a_pending_source_is_servfail_never_a_negative_answer() {
    for (real, kind) in [
        (false, RecordType::A),
        (false, RecordType::AAAA),
        (false, RecordType::HTTPS),
        (true, RecordType::A),
    ] {
        let (outcome, reply, _) = reply_for("coming.example", kind, 1, real);
        assert_eq!(
            (outcome, reply.metadata.response_code),
            (ReplyKind::Pending, ResponseCode::ServFail)
        );
        assert!(reply.answers.is_empty() && reply.authorities.is_empty());
    }
}

#[test]
fn real_addresses_have_a_short_ttl() {
    let addresses = |name, kind, id| -> Vec<String> {
        let (_, reply, length) = reply_for(name, kind, id, true);
        assert!(length <= 512 && reply.answers.iter().all(|record| record.ttl == 5));
        reply
            .answers
            .iter()
            .filter_map(|record| record.data.ip_addr())
            .map(|address| address.to_string())
            .collect()
    };
    assert_eq!(addresses("two.example", RecordType::A, 0), ["203.0.113.7", "203.0.113.8"]);
    assert_eq!(
        addresses("two.example", RecordType::A, 1),
        ["203.0.113.8", "203.0.113.7"],
        "rotated by the ID"
    );
    assert_eq!(addresses("two.example", RecordType::AAAA, 0), ["2001:db8::7"]);
    assert_eq!(addresses("many.example", RecordType::A, 60).len(), 8, "the limit");
    assert_eq!(reply_for("many.example", RecordType::AAAA, 0, true).0, ReplyKind::NoData);
    assert_eq!(reply_for("two.example", RecordType::TXT, 0, true).0, ReplyKind::NoData);
    assert_eq!(
        reply_for("none.example", RecordType::A, 0, true).1.metadata.response_code,
        ResponseCode::ServFail
    );
    let (_, reply, _) = reply_for("none.example", RecordType::A, 0, false);
    assert_eq!(
        reply.answers[0].data.ip_addr(),
        Some(v4(1).v4.into()),
        "other clients are redirected in any case"
    );
}

#[test]
fn eight_real_addresses_of_the_longest_name_fit_512_bytes() {
    let long =
        format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
    let real = (1..=9).map(|n| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n])).collect();
    let answers = Zone::new([(long.parse().expect("a source"), Answer::Live { vip: v4(1), real })]);
    let rest = [raw_question(&long, 28, 1), raw_opt(512, 0, true)].concat();
    let mut reply = ReplyBuffer::new();
    let outcome = answer(
        &raw_query(7, RD, [1, 0, 0, 1], &rest),
        &answers,
        AnswerPolicy { ttl: TTL, real_addresses: true },
        &mut reply,
    );
    assert_eq!(outcome, Decision::Reply(ReplyKind::Answered));
    assert_eq!((parsed(reply.as_bytes()).answers.len(), reply.as_bytes().len()), (8, 506));
}

#[test]
fn an_a_query_for_a_source_is_answered_with_its_vip() {
    let (kind, reply) = ask("artifactory.internal.company.net", RecordType::A);
    assert_eq!(kind, ReplyKind::Answered);
    assert_eq!(only_address(&reply), Ipv4Addr::new(198, 18, 0, 1));
    assert_eq!(reply.answers[0].ttl, TTL);
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
    assert!(
        reply.metadata.authoritative
            && reply.metadata.recursion_available
            && reply.metadata.recursion_desired
    );
    assert!(!reply.metadata.authentic_data && !reply.metadata.truncation);
    assert!(reply.edns.is_none(), "no EDNS without an OPT record");
}

#[test]
fn the_case_of_the_question_is_preserved() {
    let query =
        raw_query(7, RD, [1, 0, 0, 0], &raw_question("aRTifactory.INTERNAL.company.Net", 1, 1));
    let mut reply = ReplyBuffer::new();
    assert_eq!(answer(&query, &zone(), POLICY, &mut reply), Decision::Reply(ReplyKind::Answered));
    assert_eq!(reply.as_bytes()[12..query.len()], query[12..]);
}

#[test]
fn every_other_type_of_a_source_is_nodata_with_an_soa() {
    for code in (2..=300).chain([32768, 65535]).filter(|code| *code != 255 && *code != 41) {
        let query = raw_query(
            7,
            RD,
            [1, 0, 0, 0],
            &raw_question("artifactory.internal.company.net", code, 1),
        );
        let (kind, reply) = local_reply(&query);
        assert_eq!(
            (kind, reply.metadata.response_code),
            (ReplyKind::NoData, ResponseCode::NoError),
            "type {code}"
        );
        assert!(reply.answers.is_empty() && reply.metadata.authoritative, "type {code}");
        let [soa] = &reply.authorities[..] else { panic!("no SOA for type {code}") };
        let RData::SOA(data) = &soa.data else { panic!("no SOA for type {code}") };
        assert_eq!((soa.ttl, data.minimum), (TTL, TTL));
        assert_eq!(soa.name, name_of("artifactory.internal.company.net"));
    }
}

#[test]
fn an_any_query_for_a_source_gets_its_one_address() {
    assert_eq!(
        only_address(&ask("artifactory.internal.company.net", RecordType::ANY).1),
        Ipv4Addr::new(198, 18, 0, 1)
    );
}

#[test]
fn aaaa_is_answered_only_with_an_ipv6_vip() {
    let (kind, reply) = ask("six.example", RecordType::AAAA);
    assert_eq!(kind, ReplyKind::Answered);
    assert_eq!(only_address(&reply), "fd00::7".parse::<Ipv6Addr>().expect("an address"));
    assert_eq!(ask("artifactory.internal.company.net", RecordType::AAAA).0, ReplyKind::NoData);
}

#[test]
fn exact_names_win_over_wildcards_and_longer_over_shorter() {
    let vip = |name: &str| only_address(&ask(name, RecordType::A).1);
    assert_eq!(vip("other.internal.company.net"), Ipv4Addr::new(198, 18, 0, 2));
    assert_eq!(vip("x.y.internal.company.net"), Ipv4Addr::new(198, 18, 0, 2));
    assert_eq!(vip("b.internal.company.net"), Ipv4Addr::new(198, 18, 0, 2));
    assert_eq!(vip("x.b.internal.company.net"), Ipv4Addr::new(198, 18, 0, 3));
    assert_eq!(vip("x.y.B.internal.company.net"), Ipv4Addr::new(198, 18, 0, 3));
    assert_eq!(vip("exact.b.internal.company.net"), Ipv4Addr::new(198, 18, 0, 4));
}

#[test]
fn other_names_are_forwarded() {
    for name in [
        "internal.company.net",
        "company.net",
        "example",
        ".",
        "artifactory.internal.company.net.svc.cluster.local",
        "xinternal.company.net",
    ] {
        assert!(is_forwarded(&bytes(&query(name, RecordType::A))), "{name}");
    }
    // A dot inside a label does not end the label.
    let mut question = b"\x14internal.company.net\x00".to_vec();
    question.splice(0..0, *b"\x01x");
    question.extend([0, 1, 0, 1]);
    assert!(is_forwarded(&raw_query(7, RD, [1, 0, 0, 0], &question)));
}

#[test]
fn a_ptr_of_a_vip_is_its_source_others_are_forwarded() {
    let (kind, reply) = ask("1.0.18.198.in-addr.arpa", RecordType::PTR);
    assert_eq!(kind, ReplyKind::Answered);
    assert_eq!(
        reply.answers[0].data,
        RData::PTR(rdata::PTR(name_of("artifactory.internal.company.net")))
    );
    let v6 = "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.D.F.ip6.arpa";
    assert_eq!(
        ask(v6, RecordType::PTR).1.answers[0].data,
        RData::PTR(rdata::PTR(name_of("six.example")))
    );
    assert_eq!(
        ask("2.0.18.198.in-addr.arpa", RecordType::PTR).1.answers[0].data.to_string(),
        "*\\*.internal.company.net."
    );
    assert_eq!(ask("1.0.18.198.in-addr.arpa", RecordType::A).0, ReplyKind::NoData);
    for name in [
        "9.0.18.198.in-addr.arpa",
        "18.198.in-addr.arpa",
        "01.0.18.198.in-addr.arpa",
        "1.0.18.300.in-addr.arpa",
        "1.0.0.18.198.in-addr.arpa",
    ] {
        assert!(is_forwarded(&bytes(&query(name, RecordType::PTR))), "{name}");
    }
}

#[test]
fn chaos_and_zone_transfers_are_refused() {
    let mut chaos = query("version.bind", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    let (kind, reply) = local_reply(&bytes(&chaos));
    assert_eq!((kind, reply.metadata.response_code), (ReplyKind::Refused, ResponseCode::Refused));
    assert_eq!(
        ask("example.com", RecordType::AXFR).1.metadata.response_code,
        ResponseCode::Refused
    );
    let mut hesiod = query("artifactory.internal.company.net", RecordType::A);
    hesiod.queries[0].set_query_class(DNSClass::HS);
    assert_eq!(local_reply(&bytes(&hesiod)).0, ReplyKind::Refused);
}

#[test]
fn other_than_one_question_is_formerr_other_opcodes_notimp() {
    let question = raw_question("artifactory.internal.company.net", 1, 1);
    for (counts, rest) in [
        ([0, 0, 0, 0], vec![]),
        ([2, 0, 0, 0], [&question[..], &question].concat()),
        ([1, 0, 0, 0], vec![]),
        ([1, 0, 0, 1], question.clone()),
    ] {
        let (kind, reply) = local_reply(&raw_query(7, RD, counts, &rest));
        assert_eq!(
            (kind, reply.metadata.response_code, reply.metadata.id),
            (ReplyKind::FormErr, ResponseCode::FormErr, 7),
            "{counts:?}"
        );
    }
    let pointer = [&[0xc0, 12][..], &[0, 1, 0, 1]].concat();
    assert_eq!(local_reply(&raw_query(7, RD, [1, 0, 0, 0], &pointer)).0, ReplyKind::FormErr);
    for opcode in 1..16 {
        let (kind, _) = local_reply(&raw_query(7, opcode << 11, [1, 0, 0, 0], &question));
        assert_eq!(kind, ReplyKind::NotImp, "opcode {opcode}");
    }
}

#[test]
fn replies_and_incomplete_headers_are_dropped() {
    let mut reply = ReplyBuffer::new();
    let question = raw_question("artifactory.internal.company.net", 1, 1);
    for query in [raw_query(7, 0x8180, [1, 0, 0, 0], &question), vec![], vec![0; 11]] {
        assert_eq!(answer(&query, &zone(), POLICY, &mut reply), Decision::Drop);
    }
}

#[test]
fn edns_is_echoed_with_our_payload_and_the_clients_do_bit() {
    for dnssec_ok in [false, true] {
        let rest =
            [raw_question("artifactory.internal.company.net", 1, 1), raw_opt(4096, 0, dnssec_ok)]
                .concat();
        let (_, reply) = local_reply(&raw_query(7, RD | 0x0010, [1, 0, 0, 1], &rest));
        let edns = reply.edns.expect("EDNS");
        assert_eq!(
            (edns.max_payload(), edns.version(), edns.flags().dnssec_ok),
            (1232, 0, dnssec_ok)
        );
        assert!(reply.metadata.checking_disabled && !reply.metadata.authentic_data);
        assert_eq!(reply.answers.len(), 1);
    }
}

#[test]
fn an_unknown_edns_version_is_badvers_only_for_a_source() {
    let (kind, reply) = local_reply(&raw_query(
        7,
        RD,
        [1, 0, 0, 1],
        &[raw_question("six.example", 1, 1), raw_opt(1232, 1, false)].concat(),
    ));
    // BADVERS, which has the same number as BADSIG.
    assert_eq!((kind, u16::from(reply.metadata.response_code)), (ReplyKind::FormErr, 16));
    assert!(reply.answers.is_empty());
    assert!(is_forwarded(&raw_query(
        7,
        RD,
        [1, 0, 0, 1],
        &[raw_question("example.com", 1, 1), raw_opt(1232, 1, false)].concat()
    )));
}

#[test]
fn two_opt_records_or_one_with_a_name_are_formerr() {
    let two = [raw_question("six.example", 1, 1), raw_opt(1232, 0, false), raw_opt(1232, 0, false)]
        .concat();
    assert_eq!(local_reply(&raw_query(7, RD, [1, 0, 0, 2], &two)).0, ReplyKind::FormErr);
    let mut named = raw_question("six.example", 1, 1);
    named.extend([1, b'x']);
    named.extend(raw_opt(1232, 0, false));
    assert_eq!(local_reply(&raw_query(7, RD, [1, 0, 0, 1], &named)).0, ReplyKind::FormErr);
}

#[test]
fn the_clients_udp_payload_reaches_the_forwarder() {
    let payload = |query: &[u8]| match answer(query, &zone(), POLICY, &mut ReplyBuffer::new()) {
        Decision::Forward(ForwardInfo { udp_payload, question_end }) => (udp_payload, question_end),
        other => panic!("{other:?}"),
    };
    let question = raw_question("example.com", 1, 1);
    let end = 12 + question.len();
    assert_eq!(payload(&raw_query(7, RD, [1, 0, 0, 0], &question)), (512, end));
    assert_eq!(
        payload(&raw_query(
            7,
            RD,
            [1, 0, 0, 1],
            &[question.clone(), raw_opt(4000, 0, false)].concat()
        )),
        (4000, end)
    );
    assert_eq!(
        payload(&raw_query(7, RD, [1, 0, 0, 1], &[question, raw_opt(100, 0, false)].concat())),
        (512, end)
    );
}

#[test]
fn the_longest_names_fit_into_a_reply() {
    // 253 characters, 255 bytes on the wire, as a source and as the question.
    let long = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
    let answers = Zone::new([(long.parse().expect("a source"), v4(9))]);
    let rest = [raw_question(&long, 28, 1), raw_opt(512, 0, true)].concat();
    let mut reply = ReplyBuffer::new();
    assert_eq!(
        answer(&raw_query(7, RD, [1, 0, 0, 1], &rest), &answers, POLICY, &mut reply),
        Decision::Reply(ReplyKind::NoData)
    );
    parsed(reply.as_bytes());
    let rest = [raw_question("9.0.18.198.in-addr.arpa", 12, 1), raw_opt(512, 0, true)].concat();
    assert_eq!(
        answer(&raw_query(7, RD, [1, 0, 0, 1], &rest), &answers, POLICY, &mut reply),
        Decision::Reply(ReplyKind::Answered)
    );
    assert_eq!(parsed(reply.as_bytes()).answers[0].data, RData::PTR(rdata::PTR(name_of(&long))));
}

/// Checks the properties that hold for any bytes: no panic; hickory-proto parses the reply, which
/// has the query's ID and, if any, its question.
fn check_reply(query: &[u8]) {
    let mut reply = ReplyBuffer::new();
    match answer(query, &zone(), POLICY, &mut reply) {
        Decision::Drop => assert!(query.len() < 12 || query[2] & 0x80 != 0),
        Decision::Forward(info) => {
            assert!(info.question_end <= query.len() && info.udp_payload >= 512)
        }
        Decision::Reply(_) => {
            let bytes = reply.as_bytes();
            let message = parsed(bytes);
            assert_eq!(bytes[..2], query[..2]);
            assert!(message.queries.len() <= 1 && bytes.len() <= 512);
            if message.queries.len() == 1 {
                let end = 12
                    + message.queries[0].name().iter().map(|label| label.len() + 1).sum::<usize>()
                    + 1
                    + 4;
                assert_eq!(bytes[12..end], query[12..end]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4096,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn arbitrary_bytes_never_panic(query in prop::collection::vec(any::<u8>(), 0..600)) {
        check_reply(&query);
    }

    #[test]
    fn mutated_queries_never_panic(
        name in concat!(
            "([a-zA-Z0-9_-]{1,20}\\.){0,4}",
            "(internal\\.company\\.net|six\\.example|0\\.18\\.198\\.in-addr\\.arpa|example)"
        ),
        kind in prop_oneof![Just(1u16), Just(28), Just(12), Just(255), Just(65), any::<u16>()],
        class in prop_oneof![9 => Just(1u16), 1 => any::<u16>()],
        opt in any::<Option<(u16, bool)>>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let mut rest = raw_question(&name, kind, class);
        rest.extend(opt.iter().flat_map(|(payload, dnssec_ok)| raw_opt(*payload, 0, *dnssec_ok)));
        let mut query = raw_query(4711, RD, [1, 0, 0, opt.is_some().into()], &rest);
        for (at, value) in changes {
            let at = at.index(query.len());
            query[at] = value;
        }
        query.truncate(cut.map_or(query.len(), |cut| cut.index(query.len() + 1)));
        check_reply(&query);
    }
}

/// The sources of [`a_zone_changed_in_steps_equals_one_built_at_once`].
const SOURCES: [&str; 8] = [
    "a.example",
    "*.example",
    "**.example",
    "b.a.example",
    "*.a.example",
    "**.a.example",
    "c.example",
    "**.c.example",
];

#[test]
fn one_star_matches_one_label_and_two_any_depth() {
    let sources =
        [("*.corp.example", 1), ("**.example", 2), ("*.a.example", 3), ("**.a.example", 4)];
    let zone =
        Zone::new(sources.map(|(source, last)| (source.parse().expect("a source"), v4(last))));
    let vip = |name: &str| {
        let mut reply = ReplyBuffer::new();
        match answer(&bytes(&query(name, RecordType::A)), &zone, POLICY, &mut reply) {
            Decision::Reply(_) => Some(only_address(&parsed(reply.as_bytes()))),
            Decision::Forward(_) | Decision::Drop => None,
        }
    };
    let v4 = |last| Some(IpAddr::from([198, 18, 0, last]));
    assert_eq!((vip("x.corp.example"), vip("y.x.corp.example")), (v4(1), v4(2)));
    assert_eq!((vip("x.a.example"), vip("y.x.a.example")), (v4(3), v4(4)));
    assert_eq!((vip("corp.example"), vip("example")), (v4(2), None));
}

proptest! {
    #[test]
    fn a_zone_changed_in_steps_equals_one_built_at_once(
        steps in proptest::collection::vec((0..SOURCES.len(), 0u8..4), 0..40)
    ) {
        let mut expected = std::collections::BTreeMap::new();
        let mut changed = Zone::new(Vec::<(redirector::route::SourceName, Vip)>::new());
        for (which, answer) in steps {
            let source: redirector::route::SourceName = SOURCES[which].parse().expect("a source");
            let answer = match answer {
                0 => None,
                1 => Some(Answer::Pending),
                // Each source has two addresses of its own: none belongs to two sources at a time.
                other => Some(Answer::from(v4(10 * which as u8 + other))),
            };
            changed.set(&source, answer.clone());
            match answer {
                Some(answer) => drop(expected.insert(source, answer)),
                None => drop(expected.remove(&source)),
            }
        }
        prop_assert!(changed.is_exactly(expected.clone()));
        let whole = Zone::new(expected);
        let reply = |zone: &Zone, name: &str, kind| {
            let mut reply = ReplyBuffer::new();
            let decision = answer(&bytes(&query(name, kind)), zone, POLICY, &mut reply);
            let records = match decision {
                Decision::Reply(_) => parsed(reply.as_bytes()).answers,
                Decision::Forward(_) | Decision::Drop => Vec::new(),
            };
            (format!("{decision:?}"), records)
        };
        let names = ["example", "x.example", "x.b.a.example", "x.c.example"].map(str::to_owned);
        let sources = SOURCES.iter().filter(|name| !name.starts_with('*')).map(|&name| name.into());
        let reverse = (0..80).map(|last| format!("{last}.0.18.198.in-addr.arpa"));
        let cases = names.into_iter().chain(sources).map(|name| (name, RecordType::A));
        for (name, kind) in cases.chain(reverse.map(|name| (name, RecordType::PTR))) {
            let (one, other) = (reply(&changed, &name, kind), reply(&whole, &name, kind));
            prop_assert_eq!(one, other, "{}", name);
        }
    }
}
