//! The virtual machine's initrd: a cpio archive with one static program, `/init`.

use std::{fs, io::Write as _, path::PathBuf};

use anyhow::Context as _;
use testbed::workspace;

use super::{cross::Cross, kernels::Arch};
use crate::build::{self, Program};

/// The package and its program.
const PROGRAM: &str = "redirector-scenarios";

/// Builds the program and packs it.
pub(super) fn initrd(arch: Arch) -> anyhow::Result<PathBuf> {
    let target = format!("{}-unknown-linux-gnu", arch.name());
    let program = if arch.name() == std::env::consts::ARCH {
        build::static_program(PROGRAM, Program::Binary(PROGRAM), &target, |_| {})?
    } else {
        let cross = Cross::ensure(arch)?;
        build::static_program(PROGRAM, Program::Binary(PROGRAM), &target, |command| {
            cross.prepare(command)
        })?
    };
    let program =
        fs::read(&program).with_context(|| format!("failed to read {}", program.display()))?;
    let folder = workspace::target_dir().join("vm");
    fs::create_dir_all(&folder)
        .with_context(|| format!("failed to create {}", folder.display()))?;
    let path = folder.join(format!("{}.cpio", arch.name()));
    let mut temporary = tempfile::NamedTempFile::new_in(&folder)
        .with_context(|| format!("failed to create a file in {}", folder.display()))?;
    temporary.write_all(&archive(&program)).context("failed to write an archive")?;
    temporary
        .persist(&path)
        .with_context(|| format!("failed to move the archive to {}", path.display()))?;
    Ok(path)
}

/// A cpio archive ("newc") with `/init`.
fn archive(init: &[u8]) -> Vec<u8> {
    let mut archive = Vec::with_capacity(init.len() + 1024);
    append(&mut archive, "init", 0o100_755, init);
    append(&mut archive, "TRAILER!!!", 0, &[]);
    archive
}

fn append(archive: &mut Vec<u8>, name: &str, mode: usize, content: &[u8]) {
    // Inode, mode, owner, group, links, time, size, four device numbers, length of the name, and a
    // checksum, which is 0 in this format.
    let inode = archive.len() + 1;
    let fields = [inode, mode, 1, 0, 0, 0, 0, 0, 0, 0, 0, name.len() + 1, 0];
    archive.extend_from_slice(b"070701");
    for (number, field) in fields.into_iter().enumerate() {
        let field = if number == 6 { content.len() } else { field };
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_contents_begin_at_multiples_of_four() {
        let archive = archive(b"\x7fELF!");
        let content = archive.windows(5).position(|window| window == b"\x7fELF!").unwrap();
        let trailer = archive.windows(6).rposition(|window| window == b"070701").unwrap();
        assert_eq!((content % 4, trailer % 4, archive.len() % 4), (0, 0, 0));
        assert!(
            archive.starts_with(b"070701") && archive[6 + 6 * 8..6 + 7 * 8] == *b"00000005",
            "size of the file"
        );
    }
}
