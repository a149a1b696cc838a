//! Files of other programs that redirect names: recognised, and answered with what to write
//! instead. None of them has exactly our routes, so none is imported silently.

use std::net::IpAddr;

use crate::spanned::{Spanned, Value};

/// What a text is that is certainly none of ours, and how its content is written here.
pub(super) fn recognise(text: &str) -> Option<String> {
    let lines = || text.lines().map(statement).filter(|line| !line.is_empty());
    haproxy(lines())
        .or_else(|| coredns(lines()))
        .or_else(|| dnsmasq(lines()))
        .or_else(|| hosts(lines()))
}

/// A line without its comment.
fn statement(line: &str) -> &str {
    line.split('#').next().unwrap_or_default().trim()
}

fn instead(program: &str, source: &str, destination: &str) -> String {
    format!(
        "is {program}: write its names as routes, such as `routes = [{{ source = {source:?}, \
            destination = {destination:?} }}]` in a file that ends in .toml"
    )
}

/// `ADDRESS NAME…` on every line.
fn hosts<'l>(mut lines: impl Iterator<Item = &'l str>) -> Option<String> {
    let entry = |line: &'l str| {
        let (address, names) = line.split_once(char::is_whitespace)?;
        Some((address.parse::<IpAddr>().ok()?, names.split_whitespace().next()?))
    };
    let first = entry(lines.next()?)?;
    let (address, name) = lines.try_fold(first, |shown, line| {
        let found = entry(line)?;
        Some(if shown.0.is_loopback() { found } else { shown })
    })?;
    Some(instead("a hosts file", name, &address.to_string()))
}

/// `address=/NAME/ADDRESS`, `cname=NAME,TARGET`, `host-record=NAME,ADDRESS`.
fn dnsmasq<'l>(lines: impl Iterator<Item = &'l str>) -> Option<String> {
    let program = "a configuration of dnsmasq";
    let mut is_dnsmasq = false;
    for line in lines {
        let Some((option, value)) = line.split_once('=') else { continue };
        let value = value.trim();
        let entry = match option.trim() {
            "address" => value.strip_prefix('/').and_then(|value| value.rsplit_once('/')),
            "cname" | "host-record" => value.split_once(','),
            "server" | "local" if value.starts_with('/') => None,
            _ => continue,
        };
        is_dnsmasq = true;
        if let Some((name, target)) =
            entry.filter(|(name, target)| !(name.is_empty() || target.is_empty()))
        {
            // Of several names the last one, as `address=/one/two/ADDRESS` has them.
            let name = name.rsplit('/').next().unwrap_or(name);
            return Some(instead(program, name, target.split(',').next().unwrap_or(target)));
        }
    }
    is_dnsmasq.then(|| instead(program, "artifactory.internal", "artifactory.public"))
}

/// `rewrite name [exact] NAME TARGET` in a server block, or the addresses of `hosts { … }`.
fn coredns<'l>(lines: impl Iterator<Item = &'l str>) -> Option<String> {
    let mut has_block = false;
    let mut shown = None;
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [zone, .., "{"] if zone.contains(':') || *zone == "." => has_block = true,
            ["hosts", .., "{"] => has_block = true,
            ["rewrite", .., name, target] if words.contains(&"name") => {
                shown = shown.or(Some((*name, *target)));
            }
            [address, name, ..] if address.parse::<IpAddr>().is_ok() => {
                shown = shown.or(Some((*name, *address)));
            }
            _ => {}
        }
    }
    let (name, target) = shown.unwrap_or(("artifactory.internal", "artifactory.public"));
    has_block.then(|| {
        instead("a Corefile of CoreDNS", name.trim_end_matches('.'), target.trim_end_matches('.'))
    })
}

/// `server NAME ADDRESS:PORT` in a `backend` or `listen` section.
fn haproxy<'l>(lines: impl Iterator<Item = &'l str>) -> Option<String> {
    let mut has_section = false;
    let mut shown = None;
    for line in lines {
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["frontend" | "backend" | "listen", name, ..] => {
                has_section |= !name.contains(['=', ':', '{']);
            }
            ["server", _, target, ..] if has_section => shown = shown.or(Some(*target)),
            _ => {}
        }
    }
    let target = shown.filter(|_| has_section)?;
    let (host, _) = target.rsplit_once(':').unwrap_or((target, ""));
    Some(instead(
        "a configuration of HAProxy",
        "artifactory.internal",
        host.trim_matches(['[', ']']),
    ))
}

/// A Service of the type ExternalName, and how it is written here.
pub(super) fn external_name(documents: &[Spanned]) -> Option<String> {
    let text = |node: Option<&Spanned>| match node.map(|node| &node.value) {
        Some(Value::Text(text)) => Some(text.clone()),
        _ => None,
    };
    documents.iter().find_map(|document| {
        let target = text(document.get("spec")?.get("externalName"))?;
        let metadata = document.get("metadata");
        let part = |key: &str, default: &str| {
            text(metadata.and_then(|metadata| metadata.get(key))).unwrap_or_else(|| default.into())
        };
        let source = format!(
            "{}.{}.svc.cluster.local",
            part("name", "service"),
            part("namespace", "default")
        );
        Some(instead("a Service of the type ExternalName", &source, &target))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_foreign_file_is_answered_with_a_route() {
        for (program, source, destination, text) in [
            (
                "a hosts file",
                "registry.corp",
                "203.0.113.7",
                "127.0.0.1 localhost\n# ours\n203.0.113.7\tregistry.corp alias # x\n\
                    ::1 ip6-localhost\n",
            ),
            (
                "dnsmasq",
                "registry.corp",
                "203.0.113.7",
                "no-resolv\nserver=/corp/10.0.0.2\naddress=/registry.corp/203.0.113.7\n",
            ),
            ("dnsmasq", "a.corp", "b.public", "cname=a.corp,b.public\n"),
            (
                "CoreDNS",
                "registry.corp",
                "lb.public",
                ".:53 {\n  errors\n  rewrite name exact registry.corp. lb.public.\n\
                    forward . 10.0.0.2\n}\n",
            ),
            (
                "CoreDNS",
                "a.corp",
                "203.0.113.7",
                "corp:53 {\n  hosts {\n    203.0.113.7 a.corp\n  }\n}\n",
            ),
            (
                "HAProxy",
                "artifactory.internal",
                "203.0.113.7",
                "global\n  daemon\nfrontend f\n  bind :443\n  default_backend b\nbackend b\n\
                    server s1 203.0.113.7:443 check\n",
            ),
        ] {
            let answer = recognise(text).unwrap_or_else(|| panic!("{text}"));
            assert!(answer.contains(program), "{answer}");
            let route = format!("{{ source = \"{source}\", destination = \"{destination}\" }}");
            assert!(answer.contains(&route), "{answer}");
        }
    }

    #[test]
    fn our_own_files_are_not_foreign() {
        for text in [
            "routes:\n- source: a\n  destination: 203.0.113.7\n",
            "[[routes]]\nsource = \"a\"\ndestination = \"203.0.113.7\"\n",
            "[{\"source\": \"a\", \"destination\": \"203.0.113.7\"}]",
            "",
            "just words\n",
        ] {
            assert_eq!(recognise(text), None, "{text}");
        }
    }
}
