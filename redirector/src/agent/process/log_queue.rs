//! Lines on their way to standard error. Its reader may stop (a full pipe, a journal that hangs):
//! only the thread that writes waits for it.

use std::{
    collections::VecDeque,
    io::{self, Write},
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use tracing::warn;

use crate::control::count;

/// Most bytes that wait: some thousand lines.
const MAX_WAITING: usize = 256 << 10;

/// Lines that wait to be written. Once there is no room, all are dropped until none waits: the log
/// has one gap instead of many.
#[derive(Default)]
pub(super) struct LogQueue {
    state: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    /// In these lines.
    bytes: usize,
    /// Whether a line has found no room since none waited.
    is_full: bool,
    /// Whether a line is taken and not written yet.
    is_writing: bool,
    /// Lines that were dropped.
    dropped: u64,
    /// Those of them that the log shows.
    reported: u64,
}

impl LogQueue {
    /// Adds a line, if there is room.
    pub(super) fn push(&self, line: Vec<u8>) {
        let mut state = self.state.lock();
        let has_room = !state.is_full && state.bytes + line.len() <= MAX_WAITING;
        state.is_full = !has_room && !state.lines.is_empty();
        if state.is_full {
            state.dropped += 1;
        } else {
            state.add(line);
            self.changed.notify_all();
        }
    }

    /// Adds the last words of the process, whether there is room or not.
    pub(super) fn push_always(&self, text: Vec<u8>) {
        self.state.lock().add(text);
        self.changed.notify_all();
    }

    /// Lines that were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.state.lock().dropped
    }

    /// Waits until everything is written, at most for `limit`.
    pub(super) fn flush(&self, limit: Duration) {
        let is_unwritten = |state: &mut Waiting| state.is_writing || !state.lines.is_empty();
        self.changed.wait_while_for(&mut self.state.lock(), is_unwritten, limit);
    }

    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// When the system has no room for it.
    pub(super) fn start(&'static self, mut out: impl Write + Send + 'static) -> io::Result<()> {
        let write = move || {
            loop {
                let line = self.take();
                // One call for each line: another process may write to the same pipe.
                let is_written = out.write_all(&line).is_ok();
                if let Some(dropped) = self.finish(is_written) {
                    let lines = count(dropped as usize, "line");
                    warn!("{lines} of the log dropped: standard error did not take more");
                }
            }
        };
        thread::Builder::new().name("redirector-log".to_owned()).spawn(write).map(drop)
    }

    /// The next line, once there is one.
    fn take(&self) -> Vec<u8> {
        let mut state = self.state.lock();
        loop {
            if let Some(line) = state.lines.pop_front() {
                state.bytes -= line.len();
                state.is_writing = true;
                return line;
            }
            self.changed.wait(&mut state);
        }
    }

    /// Records that the line that was taken is written, or was dropped. Returns how many lines the
    /// log lacks here.
    fn finish(&self, is_written: bool) -> Option<u64> {
        let mut state = self.state.lock();
        state.is_writing = false;
        state.dropped += u64::from(!is_written);
        self.changed.notify_all();
        let lacking = state.dropped - state.reported;
        if lacking == 0 || !is_written || !state.lines.is_empty() {
            return None;
        }
        state.reported = state.dropped;
        Some(lacking)
    }
}

impl Waiting {
    fn add(&mut self, line: Vec<u8>) {
        self.bytes += line.len();
        self.lines.push_back(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a line as the thread does. Returns it, and the size of the gap behind it.
    fn next(queue: &LogQueue, is_written: bool) -> (Vec<u8>, Option<u64>) {
        let line = queue.take();
        (line, queue.finish(is_written))
    }

    #[test]
    fn lines_without_room_are_one_gap() {
        let queue = LogQueue::default();
        let line = vec![b'x'; MAX_WAITING / 2];
        (0..3).for_each(|_| queue.push(line.clone()));
        assert_eq!(next(&queue, true), (line.clone(), None));
        queue.push(b"short, but in the gap".to_vec());
        queue.push_always(b"last words".to_vec());
        assert_eq!(next(&queue, true), (line, None));
        assert_eq!(next(&queue, true), (b"last words".to_vec(), Some(2)));
        queue.push(b"after".to_vec());
        assert_eq!(next(&queue, true), (b"after".to_vec(), None));
        assert_eq!(queue.dropped(), 2);
    }

    #[test]
    fn a_line_of_any_length_is_taken_when_none_waits() {
        let queue = LogQueue::default();
        let line = vec![b'x'; MAX_WAITING + 1];
        queue.push(line.clone());
        assert_eq!(next(&queue, true), (line, None));
    }

    #[test]
    fn lines_that_fail_are_a_gap_before_the_next_that_does_not() {
        let queue = LogQueue::default();
        for _ in 0..3 {
            queue.push(b"lost".to_vec());
            assert_eq!(next(&queue, false).1, None, "a line about it would fail, too");
        }
        queue.push(b"written".to_vec());
        assert_eq!(next(&queue, true).1, Some(3));
        assert_eq!(queue.dropped(), 3);
    }

    #[test]
    fn a_flush_waits_for_the_line_that_is_being_written() {
        let queue = LogQueue::default();
        queue.push(b"line".to_vec());
        let _ = queue.take();
        let is_finished = Mutex::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(20));
                *is_finished.lock() = true;
                queue.finish(true);
            });
            queue.flush(Duration::from_secs(60));
            assert!(*is_finished.lock());
        });
    }

    #[test]
    fn a_flush_of_lines_that_nobody_takes_ends() {
        let queue = LogQueue::default();
        queue.push(b"line".to_vec());
        queue.flush(Duration::from_millis(1));
        assert_eq!(queue.take(), b"line");
    }
}
