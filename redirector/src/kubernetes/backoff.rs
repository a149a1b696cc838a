//! The pauses between attempts to reach the API server.

use std::time::Duration;

/// Each pause is twice as long as the one before it, up to the longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// Begins with the first pause. Begin again after a success.
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, longest }
    }

    /// The pause after a failure.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(30));
        let pauses = [(); 5].map(|()| backoff.pause().as_secs());
        assert_eq!(pauses, [5, 10, 20, 30, 30]);
    }
}
