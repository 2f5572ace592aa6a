//! Limits log lines that any host can cause in any number, such as those about rejected handshakes. A metric counts all.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines that are written within one [`WINDOW`]; further ones are suppressed.
const LINES: u32 = 20;
/// See [`LINES`].
const WINDOW: Duration = Duration::from_secs(10);

/// Decides which lines are written: at most 20 within 10 seconds.
#[derive(Debug)]
pub struct LogLimit {
    window: Mutex<LogWindow>,
}

#[derive(Debug)]
struct LogWindow {
    since: Instant,
    lines: u32,
    suppressed: u64,
}

impl LogLimit {
    /// No line was written yet.
    pub fn new(now: Instant) -> Self {
        Self { window: Mutex::new(LogWindow { since: now, lines: 0, suppressed: 0 }) }
    }

    /// Counts a line. Returns `None` to suppress it; otherwise the number of lines suppressed since the last written one.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(window.since) >= WINDOW {
            (window.since, window.lines) = (now, 0);
        }
        if window.lines == LINES {
            window.suppressed += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_lines_are_limited_and_the_suppressed_ones_are_reported() {
        let start = Instant::now();
        let log = LogLimit::new(start);
        let written = (0..10_000).filter(|_| log.admit(start) == Some(0)).count();
        assert_eq!(written, 20);
        assert_eq!(log.admit(start + WINDOW / 2), None);
        assert_eq!(log.admit(start + WINDOW), Some(9_981));
        assert_eq!(log.admit(start + WINDOW), Some(0));
    }
}
