//! The banner that an SSH server sends first (RFC 4253 section 4.2).

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use super::io_failure::IoFailure;

/// The beginning of every banner.
pub(super) const BANNER: &str = "SSH-";

/// A server may send a few lines before its banner.
const MAX_READ: usize = 8 << 10;

/// What came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SshResult {
    /// A banner, such as `SSH-2.0-OpenSSH_9.2`.
    Banner { banner: String },
    /// Something else.
    NotSsh { begins: String },
    /// Nothing.
    Failed { why: IoFailure },
}

/// The banner in what a server has sent.
pub fn read_banner(mut sent: &[u8]) -> Option<String> {
    match listen(&mut sent) {
        SshResult::Banner { banner } => Some(banner),
        _ => None,
    }
}

/// Reads the banner. Nothing is sent.
pub(super) fn listen(stream: &mut impl Read) -> SshResult {
    let (mut read, mut buffer) = (Vec::new(), [0; 512]);
    loop {
        let text = String::from_utf8_lossy(&read);
        let mut lines = text.split_inclusive('\n');
        if let Some(line) = lines.find(|line| line.starts_with(BANNER) && line.ends_with('\n')) {
            return SshResult::Banner { banner: line.trim_end().to_owned() };
        }
        let ended = match stream.read(&mut buffer) {
            Ok(length) if length > 0 && read.len() < MAX_READ => {
                read.extend_from_slice(&buffer[..length]);
                continue;
            }
            Ok(_) => IoFailure::Closed,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => IoFailure::from_error(&error),
        };
        return if read.is_empty() {
            SshResult::Failed { why: ended }
        } else {
            SshResult::NotSsh { begins: text.lines().next().unwrap_or_default().to_owned() }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_banner_is_found_behind_other_lines() {
        let read = |text: &str| listen(&mut text.as_bytes());
        let banner = |banner: &str| SshResult::Banner { banner: banner.into() };
        assert_eq!(read("SSH-2.0-OpenSSH_9.2p1\r\n"), banner("SSH-2.0-OpenSSH_9.2p1"));
        assert_eq!(read("hello\r\nSSH-2.0-x y\nmore"), banner("SSH-2.0-x y"));
        let other = SshResult::NotSsh { begins: "220 smtp".into() };
        assert_eq!(read("220 smtp\r\nSSH-2"), other);
        assert_eq!(read(""), SshResult::Failed { why: IoFailure::Closed });
    }
}
