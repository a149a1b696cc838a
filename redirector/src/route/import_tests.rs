//! What is imported as it stands, what is refused, and that what is exported comes back.

use proptest::prelude::*;

use super::*;
use crate::route::{
    RawDestination, RawRoute,
    export::{Format, export},
};

/// Sources, destinations and resolvers of what `text` imports.
fn imported(text: &str) -> Vec<String> {
    let routes = parse(text).unwrap_or_else(|error| panic!("{error}"));
    let resolver = |route: &Route| {
        route.resolver.map_or_else(String::new, |resolver| format!(" by {resolver}"))
    };
    routes
        .iter()
        .map(|route| format!("{} -> {}{}", route.source, route.destination, resolver(route)))
        .collect()
}

fn refused(text: &str) -> String {
    parse(text).expect_err("refused").to_string()
}

#[test]
fn executor_private_dns_is_imported_unchanged() {
    let text = "
# an instance, as its repository has it
apiVersion: example.com/v1
kind: Instance
metadata: {name: customer}
spec:
  infrastructure:
    region: europe-west1
    executorPrivateDNS:
      proxyTag: 0.3.1
      routes:
        - source: customer.registry.private.domain
          destination: customer.loadbalancer.public.domain
        - source: customer.code.private.domain
          destination: 203.0.113.7
          resolverIP: 10.0.0.2
    replicas: 3
";
    let expected = [
        "customer.registry.private.domain -> customer.loadbalancer.public.domain",
        "customer.code.private.domain -> 203.0.113.7 by 10.0.0.2:53",
    ];
    assert_eq!(imported(text), expected);
}

#[test]
fn routes_are_found_at_every_usual_path() {
    let route = "[{source: a, destination: lb}]";
    for text in [
        format!(
            "spec: {{infrastructure: {{executorPrivateDNS: {{proxyTag: x, routes: {route}}}}}}}"
        ),
        format!("infrastructure: {{executorPrivateDNS: {{routes: {route}}}}}"),
        format!("executorPrivateDNS: {{routes: {route}}}"),
        format!("routes: {route}"),
        route.to_owned(),
        "- source: a\n  destination: lb\n".into(),
        "kind: Other\n---\nroutes:\n- {source: a, destination: lb}\n---\n".into(),
        r#"{"routes": [{"source": "a", "destination": "lb"}]}"#.into(),
        "[\n\t{\"source\": \"a\", \"destination\": \"lb\"}\n]".into(),
        "\u{feff}# ours\n\n[[routes]]\nsource = \"a\"\ndestination = \"lb\"".into(),
        "[agent]\nadmin = \"off\"\n[[routes]]\nsource = \"a\"\ndestination = \"lb\"".into(),
        "routes = [{source = \"a\", destination = \"lb\"}]".into(),
    ] {
        assert_eq!(imported(&text), ["a -> lb"], "{text}");
    }
}

/// What editors and templates of other systems write.
#[test]
fn boms_merge_keys_and_empty_values_are_read() {
    for text in [
        "\u{feff}routes:\n- {source: a, destination: lb}\n",
        "\u{feff}[{\"source\": \"a\", \"destination\": \"lb\"}]",
        "x-base: &base {destination: lb}\nroutes:\n- {<<: *base, source: a}\n",
        "routes:\n- {source: a, destination: lb, resolverIP: ''}\n",
        "routes:\n- {source: a, destination: lb, resolverIP: }\n",
    ] {
        assert_eq!(imported(text), ["a -> lb"], "{text}");
    }
    for empty in [
        "spec: {infrastructure: {executorPrivateDNS: }}",
        "executorPrivateDNS: {}",
        "executorPrivateDNS: {proxyTag: 1.0, routes: }",
        "executorPrivateDNS: {routes: []}",
    ] {
        assert_eq!(imported(empty), Vec::<String>::new(), "{empty}");
    }
}

#[test]
fn a_problem_names_its_document() {
    let text = "routes:\n- {source: a, destination: lb}\n---\n\
        routes:\n- {source: 'b c', destination: lb}\n";
    let refused = refused(text);
    assert!(refused.contains("key `document[2].routes[0].source`"), "{refused}");
}

#[test]
fn an_external_name_is_answered_with_a_route() {
    let refused = refused(
        "apiVersion: v1\nkind: Service\nmetadata: {name: registry, namespace: ci}\n\
         spec: {type: ExternalName, externalName: lb.public}\n",
    );
    assert!(
        refused.contains("source = \"registry.ci.svc.cluster.local\", destination = \"lb.public\""),
        "{refused}"
    );
}

#[test]
fn the_extension_decides_before_the_text_does() {
    let error =
        parse_named(Path::new("/tmp/routes.toml"), "routes: []").expect_err("not TOML").to_string();
    assert!(error.starts_with("/tmp/routes.toml:1:"), "{error}");
    assert!(parse_named(Path::new("routes.YML"), "routes: []").expect("yaml").routes.is_empty());
}

#[test]
fn every_problem_is_reported_at_once() {
    let text = "
routes:
  - {source: a, destination: lb, ports: ['x'], resolverIP: nobody}
  - {source: A., destination: lb2}
  - {sorce: b, destination: lb}
  - {source: c, destination: {name: lb}}
  - just a text
  - {source: d, destination: lb, resolver: 10.0.0.2, resolverIP: 10.0.0.3}
";
    let refused = refused(text);
    for expected in [
        "key `routes[0].ports[0]`: `x` is not a port",
        "key `routes[0].resolver`: `nobody` is not an address",
        "key `routes[1].source`: `A.` is the source of `routes[0]`",
        "key `routes[2].sorce`: is not a key here: did you mean `source`?",
        "key `routes[2].source`: is missing",
        "key `routes[3].destination`: expected a text or a list",
        "key `routes[4]`: expected a table, not the text \"just a text\"",
        "key `routes[5].resolverIP`: stands beside `resolver`",
    ] {
        assert!(refused.contains(expected), "`{expected}` is not in\n{refused}");
    }
    assert_eq!(refused.lines().count(), 8, "{refused}");
}

#[test]
fn a_text_without_routes_names_the_expected_keys() {
    for text in [
        "",
        "routes:",
        "spec: {infrastructure: {}}",
        "[agent]\nadmin = \"off\"",
        "{}",
        "just words",
    ] {
        assert!(
            refused(text).contains("has no routes: expected the list"),
            "{text}: {}",
            refused(text)
        );
    }
    assert!(refused("routes: 3").contains("expected a list of routes, not the number 3"));
    assert!(parse("routes: []").expect("an empty list is one").is_empty());
}

#[test]
fn a_broken_text_is_refused_with_its_line() {
    assert!(
        refused("routes: [{source: a\nb: c").starts_with("<input>:"),
        "{}",
        refused("routes: [{source: a\nb: c")
    );
    assert!(refused("[[routes]]\nsource = \"a\ndestination = \"lb\"").starts_with("<input>:2:"));
    let json =
        parse_named(Path::new("r.json"), "{\n\"routes\": [}").expect_err("broken").to_string();
    assert!(json.starts_with("r.json:2:"), "{json}");
}

#[test]
fn aliases_that_multiply_are_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let before = format!("*a{}", n - 1);
        text += &format!("a{n}: &a{n} [{}]\n", vec![before; 10].join(", "));
    }
    assert!(refused(&text).contains("repetition limit"), "{}", refused(&text));
}

#[test]
fn only_an_import_knows_the_foreign_keys() {
    let text = "[[routes]]\nsource = \"a\"\ndestination = \"lb\"\nresolverIP = \"10.0.0.2\"";
    assert_eq!(imported(text), ["a -> lb by 10.0.0.2:53"]);
    let error =
        crate::config::parse(text, Path::new("f"), &|_| None).expect_err("strict").to_string();
    assert_eq!(
        error,
        "f:4:1: key `routes[0].resolverIP`: is not a key here: did you mean `resolver`?"
    );
}

#[test]
fn the_api_reads_the_same_route_as_the_file() {
    let json =
        r#"{"source": "a", "destination": "lb", "ports": [443, "80:8080"], "resolver": null}"#;
    let raw: RawRoute = serde_json::from_str(json).expect("a route");
    let toml = "[[routes]]\nsource = \"a\"\ndestination = \"lb\"\nports = [443, \"80:8080\"]";
    assert_eq!(vec![Route::try_from(raw).expect("a route")], parse(toml).expect("routes"));
    let unknown =
        serde_json::from_str::<RawRoute>(r#"{"source": "a", "destination": "lb", "prots": []}"#)
            .expect_err("refused")
            .to_string();
    assert!(unknown.contains("unknown field `prots`"), "{unknown}");
    let wrong = serde_json::from_str::<RawRoute>(r#"{"source": "a", "destination": 7}"#)
        .expect_err("refused")
        .to_string();
    assert!(wrong.contains("expected a text or a list of texts"), "{wrong}");
}

/// Any valid route, as it is written.
fn raw_route() -> impl Strategy<Value = RawRoute> {
    const NAME: &str = concat!(
        "[a-z0-9_]([a-z0-9_-]{0,8}[a-z0-9_])?",
        r"(\.[a-z0-9_]([a-z0-9_-]{0,8}[a-z0-9_])?){0,3}\.[a-z]{2,5}"
    );
    let v4 = |nets: &'static str| {
        prop::collection::btree_set(1u8..255, 1..5).prop_map(move |hosts| {
            hosts.iter().map(|host| format!("{nets}{host}")).collect::<Vec<_>>()
        })
    };
    let destination = prop_oneof![
        NAME.prop_map(RawDestination::One),
        v4("203.0.113.").prop_map(RawDestination::Many)
    ];
    let ports = prop::collection::btree_map(1u16.., 1u16.., 1..16).prop_map(|pairs| {
        pairs
            .iter()
            .map(
                |(client, to)| {
                    if client == to { client.to_string() } else { format!("{client}:{to}") }
                },
            )
            .collect::<Vec<_>>()
    });
    (
        prop_oneof![NAME, NAME.prop_map(|name| format!("*.{name}"))],
        destination,
        prop::option::of(ports),
        prop::option::of(
            (1u8..255, 1u16..).prop_map(|(host, port)| format!("10.0.0.{host}:{port}")),
        ),
        prop::option::of(v4("198.51.100.")),
        prop::option::of(Just("pass".to_owned())),
        prop::option::of((5u64..32_767).prop_map(|seconds| format!("{seconds}s"))),
    )
        .prop_map(
            |(source, destination, ports, resolver, source_ips, on_no_backend, idle_timeout)| {
                RawRoute {
                    source,
                    destination,
                    ports,
                    resolver,
                    source_ips,
                    on_no_backend,
                    idle_timeout,
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn a_route_round_trips(raw in raw_route()) {
        let route = Route::try_from(raw.clone()).expect("a valid route");
        prop_assert_eq!(&RawRoute::from(&route), &raw);
        let json = serde_json::to_string(&raw).expect("json");
        prop_assert_eq!(&serde_json::from_str::<RawRoute>(&json).expect("json"), &raw);
        let toml = toml::to_string(&raw).expect("toml");
        prop_assert_eq!(&toml::from_str::<RawRoute>(&toml).expect("toml"), &raw);
    }

    #[test]
    fn exported_routes_are_imported_unchanged(
        raw in prop::collection::btree_map("[a-z]{1,8}", raw_route(), 1..6),
    ) {
        let routes: Vec<Route> = raw
            .into_iter()
            .map(|(source, route)| RawRoute { source, ..route }.try_into().expect("a valid route"))
            .collect();
        for format in [Format::Toml, Format::Yaml, Format::Json] {
            let raw: Vec<RawRoute> = routes.iter().map(RawRoute::from).collect();
            let text = export(&raw, format);
            let parsed = parse(&text).unwrap_or_else(|error| panic!("{format}: {error}\n{text}"));
            prop_assert_eq!(&parsed, &routes);
        }
    }

    #[test]
    fn any_text_is_read_or_refused_without_panic(
        text in "\\PC*",
        lines in prop::collection::vec("[-a-z:\\[\\]{}\"'=,.*& 0-9]{0,20}", 0..8),
    ) {
        let _ = parse(&text);
        let _ = parse(&lines.join("\n"));
    }
}
