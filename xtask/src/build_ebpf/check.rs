//! Checks an object before the agent may embed it: BPF, with BTF and the licence, and with exactly
//! the programs, hooks and maps that `redirector_common::names` lists.

use std::{collections::BTreeSet, fmt};

use anyhow::{Context as _, bail};
use object::{
    Architecture, Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind,
};
use redirector_common::names::{self, Hook};

const LICENSE: &str = "Dual MIT/GPL";
/// The kernel cuts longer names.
const NAME_MAX: usize = 15;

/// The contents of an object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    size: usize,
    /// Names of programs, each after its section.
    programs: BTreeSet<String>,
    maps: BTreeSet<String>,
    btf: usize,
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, programs, maps, btf } = self;
        write!(
            f,
            "{size} bytes, {} programs, {} maps, {btf} bytes of BTF, licence {LICENSE}",
            programs.len(),
            maps.len()
        )
    }
}

/// Checks an object. The error has every problem.
pub(crate) fn check(object: &[u8], maps: &[&str]) -> anyhow::Result<Contents> {
    let file = object::File::parse(object).context("not an ELF file")?;
    if file.architecture() != Architecture::Bpf || file.endianness() != Endianness::Little {
        bail!(
            "it is for {:?}, {:?} endian, not for BPF, little endian",
            file.architecture(),
            file.endianness()
        );
    }
    let found = Contents {
        size: object.len(),
        programs: programs_of(&file),
        maps: maps_of(&file),
        btf: section(&file, ".BTF").map_or(0, <[u8]>::len),
    };
    let mut problems = Vec::new();
    if found.btf == 0 {
        problems.push("it has no .BTF section: was it linked by bpf-linker with --btf?".to_owned());
    }
    problems.extend(wrong_license(&file));
    problems.extend(young_atomics(&file));
    let programs: BTreeSet<String> = expected_programs()
        .map(|(section, name)| {
            problems.extend(long_name("program", &name));
            in_section(section, &name)
        })
        .collect();
    let maps: BTreeSet<String> = maps.iter().map(|&name| name.to_owned()).collect();
    problems.extend(maps.iter().filter_map(|name| long_name("map", name)));
    problems.extend(differences("program", &found.programs, &programs));
    problems.extend(differences("map", &found.maps, &maps));
    if !problems.is_empty() {
        bail!("{}", problems.join("; "));
    }
    Ok(found)
}

fn section<'data>(file: &object::File<'data>, name: &str) -> Option<&'data [u8]> {
    file.section_by_name(name)?.data().ok()
}

fn wrong_license(file: &object::File<'_>) -> Option<String> {
    let license = section(file, "license")
        .map(|bytes| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned());
    (license.as_deref() != Some(LICENSE)).then(|| {
        let found = license.map_or("missing".to_owned(), |text| format!("\"{text}\""));
        format!("its licence is {found}, not \"{LICENSE}\"")
    })
}

/// Atomic instructions that kernels before 5.12 lack: all but the addition without a result. The
/// compiler makes one of an addition whose amount it knows to be 0.
fn young_atomics(file: &object::File<'_>) -> Vec<String> {
    const ATOMIC: [u8; 2] = [0xc3, 0xdb];
    let code = file.sections().filter(|section| section.kind() == object::SectionKind::Text);
    let young = code.filter_map(|section| {
        let count = section
            .data()
            .ok()?
            .chunks_exact(8)
            .filter(|word| ATOMIC.contains(&word[0]) && word[4..] != [0; 4])
            .count();
        let name = section.name().unwrap_or_default();
        (count > 0).then(|| {
            format!(
                "{count} atomic instructions in {name} are not additions: kernels before 5.12 \
                 reject them"
            )
        })
    });
    young.collect()
}

/// Every program with its section.
fn expected_programs() -> impl Iterator<Item = (String, String)> {
    let cgroup =
        names::PROGRAMS.iter().map(|program| (section_of(program.hook), program.name.to_owned()));
    let packet = names::PACKET_PROGRAMS.iter().flat_map(|program| {
        let copying = program.name.replacen(names::PROGRAM_PREFIX, names::COPYING_PREFIX, 1);
        [program.name.to_owned(), copying].map(|name| ("classifier".to_owned(), name))
    });
    cgroup.chain(packet)
}

/// The section of a program on this hook, by which a loader knows the hook.
fn section_of(hook: Hook) -> String {
    match hook {
        Hook::SockOps => "sockops".to_owned(),
        hook => format!("cgroup/{}", hook.as_str()),
    }
}

fn in_section(section: impl fmt::Display, name: &str) -> String {
    format!("{section} {name}")
}

/// Programs are the global functions outside `.text`, which holds what they call.
fn programs_of(file: &object::File<'_>) -> BTreeSet<String> {
    let programs = globals(file)
        .filter(|(section, kind, _)| *kind == SymbolKind::Text && section != ".text")
        .map(|(section, _, name)| in_section(section, &name));
    programs.collect()
}

fn maps_of(file: &object::File<'_>) -> BTreeSet<String> {
    let maps = globals(file).filter(|(section, kind, _)| {
        *kind == SymbolKind::Data && matches!(section.as_str(), "maps" | ".maps")
    });
    maps.map(|(_, _, name)| name).collect()
}

/// The defined global symbols: section, kind and name.
fn globals(file: &object::File<'_>) -> impl Iterator<Item = (String, SymbolKind, String)> {
    let symbols = file.symbols().filter(|symbol| symbol.is_global() && symbol.is_definition());
    symbols.filter_map(|symbol| {
        let section = file.section_by_index(symbol.section_index()?).ok()?;
        Some((section.name().ok()?.to_owned(), symbol.kind(), symbol.name().ok()?.to_owned()))
    })
}

fn differences(what: &str, found: &BTreeSet<String>, expected: &BTreeSet<String>) -> Vec<String> {
    let missing = expected.difference(found).map(|name| format!("it lacks the {what} {name}"));
    let unlisted = found
        .difference(expected)
        .map(|name| format!("it has a {what} {name} that redirector_common::names does not list"));
    missing.chain(unlisted).collect()
}

fn long_name(what: &str, name: &str) -> Option<String> {
    (name.len() > NAME_MAX)
        .then(|| format!("the name of the {what} {name} is longer than {NAME_MAX} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_for_this_machine_is_refused() {
        let own = std::fs::read("/proc/self/exe").expect("a process can read its own binary");
        let error = check(&own, names::MAPS).unwrap_err().to_string();
        assert!(error.contains("not for BPF"), "{error}");
    }

    #[test]
    fn missing_and_unlisted_and_long_names_are_reported() {
        let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let (found, expected) = (set(&["a", "b"]), set(&["b", "c"]));
        let problems = differences("map", &found, &expected);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("lacks the map c") && problems[1].contains("a map a that"));
        assert_eq!(long_name("map", "a_name_of_fifteen"[..15].as_ref()), None);
        assert!(long_name("map", "a_name_of_sixteen").is_some());
    }

    #[test]
    fn a_program_on_another_hook_is_another_program() {
        assert_eq!(in_section(section_of(Hook::Connect4), "a"), "cgroup/connect4 a");
        assert_eq!(in_section(section_of(Hook::SockOps), "a"), "sockops a");
        assert_eq!(section_of(Hook::SockRelease), "cgroup/sock_release");
    }
}
