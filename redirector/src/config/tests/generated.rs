//! Hundreds of malformed configurations: a whole good file with one thing wrong, for each key and
//! each way to get it wrong.

use std::{collections::BTreeSet, path::Path};

use crate::config::parse;

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Text,
    Texts,
    /// One text or several.
    Either,
    Number,
    Boolean,
    /// Texts or numbers, several.
    Ports,
}

/// A key with a good value, and texts that it can't take.
type Key = (&'static str, &'static str, Takes, &'static [&'static str]);

const PATHS: &[&str] = &["", "relative", "/a/../b", "~/x", "./x", "C:\\\\x"];
const BINDS: &[&str] = &[
    "",
    "localhost:53",
    "1.2.3.4:99999",
    "1.2.3.4",
    "[::1",
    "1.2.3.4:x",
    "999.1.1.1:53",
    "1.2.3.4:53:53",
    " 1.2.3.4:53",
];
const SERVERS: &[&str] = &[
    "",
    "dns.google",
    "1.2.3.4:99999",
    "1.2.3.4:0",
    "[::1",
    "1.2.3.4:x",
    "999.1.1.1",
    "1.2.3.4:53:53",
    "1.2.3.4/24",
];
const ADDRESSES: &[&str] =
    &["", "host", "1.2.3", "1.2.3.4:53", "999.1.1.1", "[::1]", "::g", "1.2.3.4/24", "1.2.3.4 "];
const NETWORKS: &[&str] = &[
    "",
    "10.0.0.0/33",
    "10.0.0.1/16",
    "net/16",
    "10.0.0/16",
    "10.0.0.0/",
    "/16",
    "10.0.0.0/x",
    "10.0.0.0-10.0.0.9",
];
const POOLS: &[&str] = &[
    "",
    "10.0.0.0",
    "10.0.0.0/33",
    "10.0.0.1/16",
    "10.0.0.0/8",
    "10.0.0.0/31",
    "127.0.0.0/16",
    "224.0.0.0/16",
    "net/16",
];
const POOLS6: &[&str] = &[
    "",
    "fd00::",
    "fd00::/129",
    "fd00::1/112",
    "fd00::/64",
    "10.0.0.0/16",
    "::1/112",
    "ff02::/112",
    "net/112",
];
const DURATIONS: &[&str] =
    &["", "3", "s", "-3s", "3 fortnights", "999999h", "1e3s", "0s", "3s3", "soon"];
const NAMES: &[&str] =
    &["", "a..b", "a b", "10.0.0.1", "a.*.b", "http://a", "*", "a/b", "ä.b", ".a"];
const DESTINATIONS: &[&str] =
    &["", "lb:443", "https://lb", "a..b", "a b", "lb/x", "198.18.0.9", "1.2.3.4:80", "*.lb"];
const PORTS: &[&str] = &["", "0", "65536", "443:", ":443", "80:8080:1", "http", "-1", "1-5", "80 "];
const CGROUPS: &[&str] = &["", "../x", "a/../b", "[", "a/[b", "Docker", "kubernets", "podmans"];
const INTERFACES: &[&str] = &["", "!", "!veth*", "a/b", "[", "!auto", "a-name-of-16-byt"];

/// Every key of the file. A key of `[[routes]]` has no section before it.
const KEYS: &[Key] = &[
    ("agent.state_dir", "\"/var/lib/redirector\"", Takes::Text, PATHS),
    ("agent.run_dir", "\"/run/redirector\"", Takes::Text, PATHS),
    ("agent.bpffs", "\"/sys/fs/bpf/redirector\"", Takes::Text, PATHS),
    ("agent.admin", "\"127.0.0.1:9464\"", Takes::Text, BINDS),
    ("attach.cgroups", "[\"auto\"]", Takes::Texts, CGROUPS),
    ("attach.namespaces", "[\"!kube-system\"]", Takes::Texts, &["", "!", "Default", "a b", "!!a"]),
    ("attach.pod_names", "[\"sg-executor-job-*\"]", Takes::Texts, &["", "!a", "A", "a/b", "a_b"]),
    ("attach.pod_labels", "[\"app=executor\"]", Takes::Texts, &["", "app", "=x", "a=b c"]),
    ("attach.interfaces", "[\"auto\"]", Takes::Either, INTERFACES),
    ("pool.ipv4", "\"198.18.0.0/16\"", Takes::Text, POOLS),
    ("pool.ipv6", "\"fd00:198:18::/112\"", Takes::Text, POOLS6),
    ("pool.guard", "true", Takes::Boolean, &[]),
    ("dns.listen", "[\"169.254.20.53:53\"]", Takes::Texts, BINDS),
    ("dns.upstreams", "[\"system\"]", Takes::Texts, SERVERS),
    ("dns.intercept", "\"sockets\"", Takes::Text, &["", "yes", "AUTO ", "1.2.3", "on", "never"]),
    ("dns.intercept_resolvers", "[\"10.96.0.10\"]", Takes::Texts, ADDRESSES),
    ("dns.clients", "[\"local\"]", Takes::Texts, NETWORKS),
    ("dns.real_address_clients", "[\"10.61.0.0/16\"]", Takes::Texts, NETWORKS),
    ("dns.ttl", "30", Takes::Number, &[]),
    ("health.connect_timeout", "\"3s\"", Takes::Text, DURATIONS),
    ("health.probe_interval", "\"5s\"", Takes::Text, DURATIONS),
    ("health.eject_on_reset", "false", Takes::Boolean, &[]),
    ("datapath.debug_log", "true", Takes::Boolean, &[]),
    ("source", "\"artifactory.internal.company.net\"", Takes::Text, NAMES),
    ("destination", "\"artifactory.public.company.net\"", Takes::Either, DESTINATIONS),
    ("ports", "[\"443\", \"80:8080\"]", Takes::Ports, PORTS),
    ("resolver", "\"10.0.0.2:53\"", Takes::Text, SERVERS),
    ("source_ips", "[\"198.51.100.1\"]", Takes::Texts, ADDRESSES),
    ("on_no_backend", "\"refuse\"", Takes::Text, &["", "drop", "REFUSE ", "refuse,pass", "0"]),
    ("idle_timeout", "\"350s\"", Takes::Text, DURATIONS),
];

/// Values of no type that any key of texts takes, and what is left of them for the others.
const VALUES: &[(&str, &[Takes])] = &[
    ("17", &[Takes::Number]),
    ("-1", &[]),
    ("86401", &[]),
    ("1.5", &[]),
    ("nan", &[]),
    ("true", &[Takes::Boolean]),
    ("1979-05-27", &[]),
    ("{ a = 1 }", &[]),
    ("[[1]]", &[]),
    ("[true]", &[]),
];

/// The good file, one key a line, with the value of `changed` replaced, or its whole line.
fn file(changed: usize, line: impl Fn(&str, &str) -> String) -> (String, usize) {
    let (mut text, mut section, mut at) = (String::new(), "", 0);
    for (number, (key, good, ..)) in KEYS.iter().enumerate() {
        let (of, key) = key.split_once('.').unwrap_or(("routes", key));
        if of != section {
            section = of;
            text.push_str(&if of == "routes" {
                "[[routes]]\n".to_owned()
            } else {
                format!("[{of}]\n")
            });
        }
        if number == changed {
            at = text.lines().count() + 1;
            text.push_str(&line(key, good));
        } else {
            text.push_str(&format!("{key} = {good}"));
        }
        text.push('\n');
    }
    (text, at)
}

/// One malformed file, the line that is wrong, and what must be said of it.
struct Malformed {
    text: String,
    line: usize,
    said: String,
}

fn malformed() -> Vec<Malformed> {
    let mut all = Vec::new();
    for (number, (key, _, takes, texts)) in KEYS.iter().enumerate() {
        let short = key.split_once('.').map_or(*key, |(_, key)| key);
        let mut push = |said: &str, line: &dyn Fn(&str, &str) -> String| {
            let (text, line) = file(number, line);
            all.push(Malformed { text, line, said: said.to_owned() });
        };
        for wrong in *texts {
            match takes {
                Takes::Text | Takes::Either => {
                    push(short, &|key, _| format!("{key} = \"{wrong}\""))
                }
                _ => push(short, &|key, _| format!("{key} = [\"{wrong}\"]")),
            }
            if matches!(takes, Takes::Texts | Takes::Ports) {
                push(short, &|key, good| {
                    format!("{key} = {}, \"{wrong}\"]", good.trim_end_matches(']'))
                });
            }
        }
        for (value, _) in VALUES.iter().filter(|(_, fits)| !fits.contains(takes)) {
            push(short, &|key, _| format!("{key} = {value}"));
        }
        push(&format!("did you mean `{short}`"), &|key, good| {
            format!("{key} = {good}\n{key}x = {good}")
        });
        push(short, &|key, good| format!("{key} = {good}\n{key} = {good}"));
        push("not TOML", &|key, _| format!("{key} ="));
        push("not TOML", &|key, _| format!("{key} = \"unfinished"));
        push("not TOML", &|key, good| format!("{key} {good}"));
    }
    all
}

/// Phrases of a remedy.
const REMEDIES: &[&str] = &[
    "write",
    "did you mean",
    "remove",
    "expected",
    "begin it",
    "add one",
    "known are",
    "leave it out",
    "quoted",
    "is missing",
    "duplicate key",
];

#[test]
fn the_good_file_has_every_key_and_is_accepted() {
    let (text, _) = file(usize::MAX, |_, _| String::new());
    let config =
        parse(&text, Path::new("f"), &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
    let effective = config.effective_toml();
    let keys: BTreeSet<&str> =
        effective.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key).collect();
    let tried: BTreeSet<&str> =
        KEYS.iter().map(|(key, ..)| key.split_once('.').map_or(*key, |(_, key)| key)).collect();
    let untried: Vec<_> = keys.difference(&tried).collect();
    // A key of no section, which has a test of its own.
    assert_eq!(untried, [&"wildcards"]);
}

#[test]
fn five_hundred_malformed_files_are_refused_with_a_remedy() {
    let all = malformed();
    let distinct: BTreeSet<&str> = all.iter().map(|malformed| malformed.text.as_str()).collect();
    assert!(distinct.len() >= 500, "only {}", distinct.len());
    let mut wrong = Vec::new();
    for Malformed { text, line, said } in &all {
        let shown = text.lines().skip(line - 1).take(2).collect::<Vec<_>>().join(" / ");
        // Nothing of a refused file is applied: all that there is of it is its problems.
        let problems = match parse(text, Path::new("f"), &|_| None) {
            Ok(_) => {
                wrong.push(format!("accepted: {shown}"));
                continue;
            }
            Err(errors) => errors.problems,
        };
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let places = [format!("f:{line}:"), format!("f:{}:", line + 1)];
        let here = |line: &&String| {
            places.iter().any(|place| line.starts_with(place)) && line.contains(said.as_str())
        };
        if !lines.iter().any(|line| here(&line)) {
            wrong.push(format!("no problem at line {line} says `{said}`: {shown}: {lines:?}"));
        }
        for line in lines.iter().filter(|line| !REMEDIES.iter().any(|remedy| line.contains(remedy)))
        {
            wrong.push(format!("no remedy: {shown}: {line}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), all.len(), wrong.join("\n"));
}
