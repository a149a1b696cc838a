//! Any text is a configuration or is refused with its problems: nothing panics, and what is
//! accepted comes back as itself.

use std::path::Path;

use proptest::prelude::*;

use crate::config::{Config, parse};

/// Lines of a configuration, good and bad, in any order.
fn line() -> impl Strategy<Value = String> {
    let header = prop::sample::select(vec![
        "[agent]",
        "[attach]",
        "[pool]",
        "[dns]",
        "[health]",
        "[[routes]]",
        "[x]",
        "[routes]",
        "[[dns]]",
    ]);
    let key = prop::sample::select(vec![
        "state_dir",
        "run_dir",
        "admin",
        "cgroups",
        "interfaces",
        "ipv4",
        "ipv6",
        "guard",
        "listen",
        "upstreams",
        "intercept",
        "intercept_resolvers",
        "clients",
        "real_address_clients",
        "ttl",
        "connect_timeout",
        "probe_interval",
        "eject_on_reset",
        "debug_log",
        "source",
        "destination",
        "ports",
        "resolver",
        "source_ips",
        "on_no_backend",
        "idle_timeout",
        "y",
    ]);
    let text = prop::sample::select(vec![
        "",
        "auto",
        "off",
        "system",
        "a.b",
        "*.a",
        "lb:1",
        "10.0.0.0/8",
        "10.0.0.0/30",
        "10.0.0.1",
        "10.0.0.1:53",
        "::",
        "fd00::/112",
        "[::1]:53",
        "0.0.0.0/0",
        "::/0",
        "255.255.255.255/32",
        "3s",
        "99999999h",
        "-1s",
        "443",
        "80:8080",
        "0",
        "/x",
        "../x",
        "pass",
        "\\u0000",
        "ä",
    ]);
    let text = text.prop_map(|text| format!("\"{text}\"")).boxed();
    let value = prop_oneof![
        4 => text.clone(),
        3 => prop::collection::vec(text, 0..4).prop_map(|texts| format!("[{}]", texts.join(", "))),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        1 => any::<bool>().prop_map(|value| value.to_string()),
        1 => Just("{a = 1}".to_owned()),
    ];
    let header = header.prop_map(str::to_owned);
    let pair = (key, value).prop_map(|(key, value)| format!("{key} = {value}"));
    prop_oneof![1 => header, 3 => pair, 1 => "\\PC{0,12}"]
}

/// What must hold of any text: it is accepted and comes back as itself, or refused with a problem;
/// never a panic.
fn read_or_refused(text: &str) -> Result<Config, ()> {
    match parse(text, Path::new("f"), &|_| None) {
        Ok(config) => {
            let again = parse(&config.effective_toml(), Path::new("f"), &|_| None)
                .unwrap_or_else(|errors| panic!("{errors}\nof {text}"));
            assert_eq!(again, config, "{text}");
            Ok(config)
        }
        Err(errors) => {
            assert!(
                !errors.problems.is_empty()
                    && errors.problems.iter().all(|problem| !problem.message.is_empty()),
                "{text}"
            );
            Err(())
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_lines_are_read_or_refused_without_panic(lines in prop::collection::vec(line(), 0..12)) {
        let _ = read_or_refused(&lines.join("\n"));
    }

    #[test]
    fn any_text_is_read_or_refused_without_panic(text in "(\\PC|\n){0,80}") {
        let _ = read_or_refused(&text);
    }

    #[test]
    fn any_line_below_its_header_is_read_or_refused(
        header in prop::sample::select(vec!["[agent]", "[attach]", "[pool]", "[dns]", "[health]"]),
        lines in prop::collection::vec(line(), 1..3),
    ) {
        let _ = read_or_refused(&format!("{header}\n{}", lines.join("\n")));
    }
}
