//! Writes cpio archives ("newc"), which kernels unpack as their first root file system.

/// An archive under construction.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
}

impl Archive {
    /// Adds a program: a file that everybody may execute.
    pub fn program(&mut self, path: &str, content: &[u8]) {
        self.append(path, 0o100_755, content);
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.append(path, 0o100_644, content);
    }

    /// Adds a directory. Its parent must be there already.
    pub fn directory(&mut self, path: &str) {
        self.append(path, 0o040_755, &[]);
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.append(path, 0o120_777, target.as_bytes());
    }

    /// The archive with its end mark. A kernel unpacks several of them, one after the other.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.append("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn append(&mut self, name: &str, mode: usize, content: &[u8]) {
        let name = name.trim_start_matches('/');
        // Inode, mode, owner, group, links, time, size, four device numbers, length of the name,
        // and a checksum, which is 0 in this format.
        let inode = self.bytes.len() + 1;
        let fields = [inode, mode, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_contents_begin_at_multiples_of_four() {
        let mut archive = Archive::default();
        archive.program("init", b"\x7fELF!");
        let archive = archive.finish();
        let content = archive.windows(5).position(|window| window == b"\x7fELF!").unwrap();
        let trailer = archive.windows(6).rposition(|window| window == b"070701").unwrap();
        assert_eq!((content % 4, trailer % 4, archive.len() % 4), (0, 0, 0));
        assert!(
            archive.starts_with(b"070701") && archive[6 + 6 * 8..6 + 7 * 8] == *b"00000005",
            "size of the file"
        );
    }
}
