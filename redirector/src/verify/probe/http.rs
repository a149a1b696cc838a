//! One HTTP request, as far as the status line.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use super::tls::{self, TlsFailure};

/// A status line is well within this.
const MAX_STATUS_LINE: usize = 16 << 10;

/// The outcome of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HttpResult {
    /// A status line.
    Status { code: u16, reason: String },
    /// Bytes that are no HTTP answer.
    NotHttp { begins: String },
    /// Nothing.
    Failed { why: TlsFailure, message: String },
}

/// Asks for `/`.
pub(super) fn ask(
    stream: &mut (impl Read + Write),
    name: &str,
    port: u16,
    tls: bool,
) -> HttpResult {
    let host =
        if port == if tls { 443 } else { 80 } { name.to_owned() } else { format!("{name}:{port}") };
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: redirector-verify/{}\r\nAccept: \
            */*\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    let line = stream
        .write_all(request.as_bytes())
        .and_then(|()| stream.flush())
        .and_then(|()| first_line(stream));
    match line {
        Ok(line) => status(&line)
            .unwrap_or_else(|| HttpResult::NotHttp { begins: line.chars().take(60).collect() }),
        Err(error) => {
            let (why, message) = tls::failure(&error);
            HttpResult::Failed { why, message }
        }
    }
}

fn first_line(stream: &mut impl Read) -> io::Result<String> {
    let (mut read, mut buffer) = (Vec::new(), [0; 1024]);
    while !read.contains(&b'\n') && read.len() < MAX_STATUS_LINE {
        match stream.read(&mut buffer) {
            Ok(0) if read.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(0) => break,
            Ok(length) => read.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Bytes that came before the error are reported.
            Err(_) if !read.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    let line = read.split(|&byte| byte == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).trim_end().to_owned())
}

fn status(line: &str) -> Option<HttpResult> {
    let mut words = line.strip_prefix("HTTP/")?.splitn(3, ' ').skip(1);
    Some(HttpResult::Status {
        code: words.next()?.parse().ok()?,
        reason: words.next().unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_is_read_and_anything_else_is_not_http() {
        assert_eq!(
            status("HTTP/1.1 401 Unauthorized"),
            Some(HttpResult::Status { code: 401, reason: "Unauthorized".into() })
        );
        assert_eq!(
            status("HTTP/1.0 200"),
            Some(HttpResult::Status { code: 200, reason: String::new() })
        );
        for line in ["SSH-2.0-OpenSSH_9.2", "HTTP/1.1", "HTTP/1.1 two", ""] {
            assert_eq!(status(line), None, "{line}");
        }
    }
}
