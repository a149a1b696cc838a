//! One HTTP request, as far as the head of the answer.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use super::tls::{self, TlsFailure};

/// The head of an answer is well within this.
const MAX_HEAD: usize = 64 << 10;

/// What refers to another place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Referrer {
    /// `Location` of a redirect.
    Location,
    /// `realm` of `WWW-Authenticate: Bearer`, where clients fetch a token.
    Realm,
}

/// A reference of an answer, as the server wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) by: Referrer,
    pub(crate) url: String,
}

/// The outcome of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HttpResult {
    /// A status line, and where the answer sends the client.
    Status { code: u16, reason: String, references: Vec<Reference> },
    /// Bytes that are no HTTP answer.
    NotHttp { begins: String },
    /// Nothing.
    Failed { why: TlsFailure, message: String },
}

/// Asks for a path of the host.
pub(super) fn ask(stream: &mut (impl Read + Write), host: &str, path: &str) -> HttpResult {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: redirector-verify/{}\r\nAccept: \
            */*\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    let head = stream
        .write_all(request.as_bytes())
        .and_then(|()| stream.flush())
        .and_then(|()| read_head(stream));
    match head {
        Ok(head) => status(&head).unwrap_or_else(|| {
            let line = head.lines().next().unwrap_or_default().trim_end();
            HttpResult::NotHttp { begins: line.chars().take(60).collect() }
        }),
        Err(error) => {
            let (why, message) = tls::failure(&error);
            HttpResult::Failed { why, message }
        }
    }
}

/// Where an answer sends a client; `None` for what is no HTTP.
pub fn read_references(mut answer: &[u8]) -> Option<Vec<(Referrer, String)>> {
    let Some(HttpResult::Status { references, .. }) = status(&read_head(&mut answer).ok()?) else {
        return None;
    };
    Some(references.into_iter().map(|Reference { by, url }| (by, url)).collect())
}

/// Reads up to the first empty line; what is no HTTP, up to the first line's end.
fn read_head(stream: &mut impl Read) -> io::Result<String> {
    let (mut read, mut buffer) = (Vec::new(), [0; 1024]);
    while !is_complete(&read) && read.len() < MAX_HEAD {
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
    Ok(String::from_utf8_lossy(&read).into_owned())
}

fn is_complete(read: &[u8]) -> bool {
    let mut lines =
        read.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
    match lines.next() {
        Some(first) if first.starts_with(b"HTTP/") => {
            lines.any(|line| line.trim_ascii().is_empty())
        }
        first => first.is_some(),
    }
}

fn status(head: &str) -> Option<HttpResult> {
    let mut lines = head.lines();
    let mut words = lines.next()?.trim_end().strip_prefix("HTTP/")?.splitn(3, ' ').skip(1);
    let code: u16 = words.next()?.parse().ok()?;
    let reason = words.next().unwrap_or_default().to_owned();
    let headers = lines.take_while(|line| !line.trim_end().is_empty());
    let references = headers.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        match name.trim().to_ascii_lowercase().as_str() {
            "location" if (300..400).contains(&code) && !value.is_empty() => {
                Some(Reference { by: Referrer::Location, url: value.to_owned() })
            }
            "www-authenticate" if code == 401 => {
                Some(Reference { by: Referrer::Realm, url: bearer_realm(value)? })
            }
            _ => None,
        }
    });
    Some(HttpResult::Status { code, reason, references: references.collect() })
}

/// The realm of a Bearer challenge, which registries make the URL of their token server.
fn bearer_realm(challenge: &str) -> Option<String> {
    let (scheme, parameters) = challenge.split_once(' ')?;
    let realm = parameters.split(',').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("realm").then(|| value.trim().trim_matches('"').to_owned())
    });
    realm.filter(|url| scheme.eq_ignore_ascii_case("bearer") && url.contains("://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16, reason: &str, references: &[(Referrer, &str)]) -> HttpResult {
        let references =
            references.iter().map(|&(by, url)| Reference { by, url: url.to_owned() }).collect();
        HttpResult::Status { code, reason: reason.to_owned(), references }
    }

    #[test]
    fn a_redirect_and_a_token_server_are_read() {
        let redirect =
            "HTTP/1.1 307 Temporary Redirect\r\nlocation:  https://cdn.net/x\r\n\r\nLocation: n";
        let to = [(Referrer::Location, "https://cdn.net/x")];
        assert_eq!(status(redirect), Some(answer(307, "Temporary Redirect", &to)));
        let challenge = "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"x\"\r\n\
            Www-Authenticate: Bearer service=\"r\",realm=\"https://auth.net/token\"\r\n\r\n";
        let realm = [(Referrer::Realm, "https://auth.net/token")];
        assert_eq!(status(challenge), Some(answer(401, "No", &realm)));
        assert_eq!(
            status("HTTP/1.1 201 Created\r\nLocation: /x\r\n\r\n"),
            Some(answer(201, "Created", &[])),
            "no redirect"
        );
        let complete = [&redirect[..redirect.len() - 11], "220 smtp\r\n"];
        assert!(complete.iter().all(|text| is_complete(text.as_bytes())));
        assert!(!is_complete(b"HTTP/1.1 200 OK\r\nA: b\r\n") && !is_complete(b"220"));
    }

    #[test]
    fn a_status_line_is_read_and_anything_else_is_not_http() {
        assert_eq!(status("HTTP/1.1 401 Unauthorized"), Some(answer(401, "Unauthorized", &[])));
        assert_eq!(status("HTTP/1.0 200"), Some(answer(200, "", &[])));
        for line in ["SSH-2.0-OpenSSH_9.2", "HTTP/1.1", "HTTP/1.1 two", ""] {
            assert_eq!(status(line), None, "{line}");
        }
    }
}
