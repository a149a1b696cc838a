//! The lines of a response that lasts for minutes.

use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

/// The longest line: an object of the API server has at most 1.5 MiB in its store.
const MAX_LINE: usize = 8 << 20;

/// Reads line by line.
#[derive(Debug)]
pub(super) struct Lines {
    body: Incoming,
    read: BytesMut,
    idle: Duration,
}

impl Lines {
    /// Lines of `body`, which ends if nothing arrives for `idle`.
    pub(super) fn new(body: Incoming, idle: Duration) -> Self {
        Self { body, read: BytesMut::new(), idle }
    }

    /// The next line; none at the end.
    pub(super) async fn next(&mut self) -> std::io::Result<Option<BytesMut>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(end);
                self.read.advance(1);
                return Ok(Some(line));
            }
            if self.read.len() > MAX_LINE {
                return Err(std::io::Error::other("a line without an end"));
            }
            let Ok(frame) = timeout(self.idle, self.body.frame()).await else {
                return Err(std::io::Error::other(format!("silent for {:?}", self.idle)));
            };
            match frame {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.read.extend_from_slice(data);
                    }
                }
                Some(Err(error)) => return Err(std::io::Error::other(error)),
                None => return Ok(None),
            }
        }
    }
}
