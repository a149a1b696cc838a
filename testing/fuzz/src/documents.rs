//! The parsers of files: the configuration, imported routes, resolv.conf.

use std::{net::IpAddr, path::Path};

use redirector::{
    config,
    net::{SearchList, nameservers},
    route::{
        RawRoute,
        export::{Format, export},
        import::parse_named,
    },
    spanned::Diagnostic,
    verify::Hosts,
};

/// A configuration: accepted and written back as itself, or refused with its problems.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match config::parse(text, Path::new("f"), &|_| None) {
        Ok(config) => {
            let written = config.effective_toml();
            let again = config::parse(&written, Path::new("f"), &|_| None);
            assert!(again.is_ok_and(|again| again == config), "written as {written}");
        }
        Err(errors) => check_problems(&errors.problems),
    }
}

/// A file of routes: the first byte selects its name, the rest is its text. What is imported comes
/// back from an export in each format.
pub fn import(data: &[u8]) {
    const NAMES: [&str; 5] = ["f.yaml", "f.toml", "f.json", "hosts", "f.cfg"];
    let Some((&choice, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let name = NAMES[usize::from(choice) % NAMES.len()];
    match parse_named(Path::new(name), text) {
        Ok(read) => {
            let raw: Vec<_> = read.routes.iter().map(RawRoute::from).collect();
            for format in [Format::Toml, Format::Yaml, Format::Json] {
                let written = export(&raw, format);
                let again = parse_named(Path::new("f"), &written);
                assert!(
                    again.is_ok_and(|again| again.routes == read.routes),
                    "exported as {written}"
                );
            }
        }
        Err(error) => check_problems(&error.problems),
    }
}

/// A resolv.conf: at most the servers and suffixes that its lines have.
pub fn resolv_conf(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    assert!(nameservers::parse(text).len() <= text.lines().count());
    let candidates = SearchList::parse(text).candidates("a.test");
    assert!(candidates.iter().any(|name| name == "a.test"), "{candidates:?}");
}

/// A hosts file: each of its names has the address of the first line with it.
pub fn hosts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let hosts = Hosts::parse(text);
    let mut before: Vec<&str> = Vec::new();
    for line in text.lines() {
        let line = line.split_once('#').map_or(line, |(line, _)| line);
        let mut words = line.split_ascii_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
        for name in words {
            if !before.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                assert_eq!(hosts.address(name), Some(address), "{name} of {text:?}");
                before.push(name);
            }
        }
    }
    assert_eq!(hosts.address(""), None);
}

/// A refusal has a problem, and none of its texts acts on a terminal.
fn check_problems(problems: &[Diagnostic]) {
    assert!(!problems.is_empty(), "refused without a problem");
    for problem in problems {
        let line = problem.to_string();
        assert!(!problem.message.is_empty());
        assert!(!line.contains(|c: char| c.is_control() && c != '\n'), "{line:?}");
    }
}
