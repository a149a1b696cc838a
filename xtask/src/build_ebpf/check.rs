//! What the object must be before the agent may embed it: BPF, with BTF and the licence, and with
//! every program and map that user space asks for by name, and no other.

use std::{collections::BTreeSet, fmt};

use anyhow::{Context as _, bail};
use object::{
    Architecture, Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind,
};

const LICENSE: &str = "Dual MIT/GPL";
/// The kernel keeps this much of a name.
const NAME_MAX: usize = 15;

/// What is in the object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) size: usize,
    pub(crate) programs: BTreeSet<String>,
    pub(crate) maps: BTreeSet<String>,
    pub(crate) btf: u64,
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

/// Checks the object; every problem is in the error.
pub(crate) fn check(object: &[u8], programs: &[&str], maps: &[&str]) -> anyhow::Result<Contents> {
    let file = object::File::parse(object).context("not an ELF file")?;
    let mut problems = Vec::new();
    if file.architecture() != Architecture::Bpf || file.endianness() != Endianness::Little {
        bail!(
            "it is for {:?}, {:?} endian, not for BPF, little endian",
            file.architecture(),
            file.endianness()
        );
    }
    let btf = section(&file, ".BTF").map_or(0, <[u8]>::len) as u64;
    if btf == 0 {
        problems.push(
            "it has no .BTF section: was it linked by our bpf-linker, with --btf?".to_owned(),
        );
    }
    let license = section(&file, "license")
        .map(|bytes| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned());
    if license.as_deref() != Some(LICENSE) {
        problems.push(format!(
            "its licence is {}, not \"{LICENSE}\"",
            license.map_or("missing".to_owned(), |text| format!("\"{text}\""))
        ));
    }
    let found = Contents {
        size: object.len(),
        programs: names(&file, is_program),
        maps: names(&file, is_map),
        btf,
    };
    problems.extend(young_atomics(&file));
    compare("program", &found.programs, programs, &mut problems);
    compare("map", &found.maps, maps, &mut problems);
    if !problems.is_empty() {
        bail!("{}", problems.join("; "));
    }
    Ok(found)
}

fn section<'data>(file: &object::File<'data>, name: &str) -> Option<&'data [u8]> {
    file.section_by_name(name)?.data().ok()
}

/// Atomic instructions that kernels before 5.12 do not have: all but the addition that returns
/// nothing. The compiler makes one of an innocent addition when it knows the amount to be 0.
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
                "{count} atomic instructions in {name} are not additions, \
            which no kernel before 5.12 takes"
            )
        })
    });
    young.collect()
}

/// Names of the global symbols in the sections that `wanted` picks.
fn names(file: &object::File<'_>, wanted: fn(&str, SymbolKind) -> bool) -> BTreeSet<String> {
    let symbols = file.symbols().filter(|symbol| symbol.is_global() && symbol.is_definition());
    let named = symbols.filter_map(|symbol| {
        let section = file.section_by_index(symbol.section_index()?).ok()?;
        wanted(section.name().ok()?, symbol.kind())
            .then(|| symbol.name().ok().map(str::to_owned))?
    });
    named.collect()
}

/// Programs are the global functions outside `.text`, which holds what they call.
fn is_program(section: &str, kind: SymbolKind) -> bool {
    kind == SymbolKind::Text && section != ".text"
}

fn is_map(section: &str, kind: SymbolKind) -> bool {
    kind == SymbolKind::Data && matches!(section, "maps" | ".maps")
}

fn compare(what: &str, found: &BTreeSet<String>, expected: &[&str], problems: &mut Vec<String>) {
    let expected: BTreeSet<String> = expected.iter().map(|&name| name.to_owned()).collect();
    problems.extend(expected.difference(found).map(|name| format!("it lacks the {what} {name}")));
    problems.extend(
        found.difference(&expected).map(|name| {
            format!("it has a {what} {name} that redirector_common::names does not list")
        }),
    );
    problems.extend(
        found
            .iter()
            .filter(|name| name.len() > NAME_MAX)
            .map(|name| format!("the name of the {what} {name} is longer than {NAME_MAX} bytes")),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_for_this_machine_is_refused() {
        let own = std::fs::read("/proc/self/exe").expect("a process can read its own binary");
        let error = check(&own, &[], &[]).unwrap_err().to_string();
        assert!(error.contains("not for BPF"), "{error}");
    }

    #[test]
    fn a_missing_and_an_unlisted_name_are_both_reported() {
        let found = BTreeSet::from(["connect4".to_owned(), "a_name_of_seventeen".to_owned()]);
        let mut problems = Vec::new();
        compare("program", &found, &["connect4", "connect6"], &mut problems);
        let all = problems.join("; ");
        assert!(
            all.contains("lacks the program connect6")
                && all.contains("a_name_of_seventeen that")
                && all.contains("longer than 15"),
            "{all}"
        );
    }
}
