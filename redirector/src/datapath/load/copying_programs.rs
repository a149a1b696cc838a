//! Chooses the packet programs that copy headers instead of reading them in the packet, by
//! exchanging names of the same length in the object. So the rest of this program, and the kernel,
//! know one name for each program.
//!
//! A branch on a load-time constant is not enough; see `strip_helper`.

use redirector_common::names;

/// A copy of `object` in which each packet program has the code of the one that copies headers.
pub(crate) fn chosen(object: &[u8]) -> Vec<u8> {
    let mut copy = object.to_vec();
    for program in names::PACKET_PROGRAMS {
        let copying = program.name.replacen(names::PROGRAM_PREFIX, names::COPYING_PREFIX, 1);
        let [direct, copying] = [program.name, &copying].map(|name| format!("\0{name}\0"));
        let places = |name: &str| -> Vec<usize> {
            let windows = object.windows(name.len()).enumerate();
            windows.filter(|(_, octets)| *octets == name.as_bytes()).map(|(at, _)| at).collect()
        };
        for (found, name) in [(places(&direct), &copying), (places(&copying), &direct)] {
            for at in found {
                copy[at..at + name.len()].copy_from_slice(name.as_bytes());
            }
        }
    }
    copy
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::load::object::OBJECT;

    #[test]
    fn only_the_names_are_exchanged() {
        let chosen = chosen(OBJECT);
        let parsed = |object: &[u8]| aya_obj::Object::parse(object).expect("an object");
        let (before, after) = (parsed(OBJECT), parsed(&chosen));
        for program in names::PACKET_PROGRAMS {
            let copying = program.name.replacen(names::PROGRAM_PREFIX, names::COPYING_PREFIX, 1);
            for (one, other) in [(program.name, copying.as_str()), (copying.as_str(), program.name)]
            {
                let code = |object: &aya_obj::Object, name: &str| {
                    object.functions[&object.programs[name].function_key()].instructions.len()
                };
                assert_eq!(code(&before, one), code(&after, other), "{one}");
            }
        }
        assert_eq!(before.programs.len(), after.programs.len());
    }
}
