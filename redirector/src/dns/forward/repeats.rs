//! Questions that arrive again while they are being forwarded: by another client, or by an
//! upstream that forwards them back to us. Only a probe can distinguish them; this says when
//! one is worth it.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Questions with the same place in the table are taken for one: then a probe is sent in vain.
const PLACES: usize = 4096;
/// Octets of a question's type and class.
pub(super) const TYPE_AND_CLASS: usize = 4;

/// The questions that are being forwarded.
#[derive(Debug)]
pub(super) struct Repeats {
    places: Box<[AtomicU32]>,
    hasher: RandomState,
    /// The name of the last question that arrived again, in wire form and lower case.
    last: Mutex<Option<Vec<u8>>>,
    repeated: Notify,
}

/// A question that is being forwarded, until this is dropped.
#[derive(Debug)]
pub(super) struct UnderWay<'a>(&'a AtomicU32);

impl Repeats {
    pub(super) fn new() -> Self {
        let places = (0..PLACES).map(|_| AtomicU32::new(0)).collect();
        let (last, repeated) = (Mutex::default(), Notify::new());
        Self { places, hasher: RandomState::new(), last, repeated }
    }

    /// Begins to forward a question, in wire form and any case.
    pub(super) fn begin(&self, question: &[u8]) -> UnderWay<'_> {
        let mut hasher = self.hasher.build_hasher();
        question.iter().for_each(|byte| hasher.write_u8(byte.to_ascii_lowercase()));
        let place = &self.places[hasher.finish() as usize % PLACES];
        if place.fetch_add(1, Relaxed) > 0 {
            let name = question.len().saturating_sub(TYPE_AND_CLASS);
            *self.last.lock() = Some(question[..name].to_ascii_lowercase());
            self.repeated.notify_one();
        }
        UnderWay(place)
    }

    /// Waits for a question that arrives again.
    pub(super) async fn wait(&self) {
        self.repeated.notified().await;
    }

    /// The name of the last question that arrived again since the last call.
    pub(super) fn take(&self) -> Option<Vec<u8>> {
        self.last.lock().take()
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_question_that_arrives_again_is_noted_in_any_case() {
        let repeats = Repeats::new();
        drop(repeats.begin(b"\x01a\0\0\x01\0\x01"));
        let _under_way = repeats.begin(b"\x01a\0\0\x01\0\x01");
        let _other_type = repeats.begin(b"\x01a\0\0\x1c\0\x01");
        assert_eq!(repeats.take(), None, "one after another, and another type");
        assert!(timeout(Duration::from_millis(20), repeats.wait()).await.is_err());
        let _again = repeats.begin(b"\x01A\0\0\x01\0\x01");
        repeats.wait().await;
        assert_eq!(repeats.take().as_deref(), Some(&b"\x01a\0"[..]));
        assert_eq!(repeats.take(), None);
    }
}
