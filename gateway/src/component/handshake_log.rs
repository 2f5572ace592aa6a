//! Limits the log lines about rejected handshakes, because any host can cause any number of them. The metric counts all.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Lines that are written within one [`WINDOW`]; further ones are suppressed.
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
    suppressed: u64,
}

impl HandshakeLog {
    /// No line was written yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { window: Mutex::new(LogWindow { since: now, lines: 0, suppressed: 0 }) }
    }

    /// Counts a line. Returns `None` to suppress it; otherwise the number of lines suppressed since the last written one.
    pub(super) fn admit(&self, now: Instant) -> Option<u64> {
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
    fn many_rejected_handshakes_write_few_lines_and_report_the_suppressed_ones() {
        let start = Instant::now();
        let log = HandshakeLog::new(start);
        let written = (0..10_000).filter(|_| log.admit(start) == Some(0)).count();
        assert_eq!(written, 20);
        assert_eq!(log.admit(start + WINDOW / 2), None);
        assert_eq!(log.admit(start + WINDOW), Some(9_981));
        assert_eq!(log.admit(start + WINDOW), Some(0));
    }
}
