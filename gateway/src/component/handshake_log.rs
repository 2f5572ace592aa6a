//! Log lines about connections that did not get in, of which anybody can cause any number. The metric counts them all.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// So many lines are written within [`WINDOW`].
const LINES: u32 = 20;
/// See [`LINES`].
const WINDOW: Duration = Duration::from_secs(10);

/// Decides which lines are written.
pub(super) struct HandshakeLog {
    window: Mutex<LogWindow>,
}

struct LogWindow {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl HandshakeLog {
    /// Nothing was written yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { window: Mutex::new(LogWindow { since: now, lines: 0, left_out: 0 }) }
    }

    /// Whether to write a line now, and how many were left out since the last one written.
    pub(super) fn admit(&self, now: Instant) -> Option<u64> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(window.since) >= WINDOW {
            (window.since, window.lines) = (now, 0);
        }
        if window.lines == LINES {
            window.left_out += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_strangers_makes_few_lines_and_says_how_many_were_left_out() {
        let start = Instant::now();
        let log = HandshakeLog::new(start);
        let written = (0..10_000).filter(|_| log.admit(start) == Some(0)).count();
        assert_eq!(written, 20);
        assert_eq!(log.admit(start + WINDOW / 2), None);
        assert_eq!(log.admit(start + WINDOW), Some(9_981));
        assert_eq!(log.admit(start + WINDOW), Some(0));
    }
}
