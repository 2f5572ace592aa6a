//! How much of the log was sent, in memory and in its file.

use std::io;
use std::path::Path;

use head::LogPosition;

use crate::position::{PositionFile, Sent, WindowState};

/// How much of the log was sent.
pub(crate) struct Progress {
    file: PositionFile,
    sent: Sent,
}

impl Progress {
    /// Reads the file. A new queue begins at `end`, which is written at once.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub(crate) fn open(path: &Path, end: LogPosition) -> io::Result<Self> {
        let (mut file, found) = PositionFile::open(path)?;
        let is_new = found.is_none();
        let sent = found.unwrap_or(Sent { until: end, window: None });
        if is_new {
            file.write(&sent)?;
            file.sync()?;
        }
        Ok(Self { file, sent })
    }

    pub(crate) fn until(&self) -> LogPosition {
        self.sent.until
    }

    /// The window that was being sent when the queue ended.
    pub(crate) fn unfinished(&self) -> Option<&WindowState> {
        self.sent.window.as_ref()
    }

    /// Begins to send a window.
    pub(crate) fn begin(&mut self, window: WindowState) -> io::Result<()> {
        self.sent.window = Some(window);
        self.file.write(&self.sent)
    }

    /// Counts a request of a shard that was answered.
    pub(crate) fn answered(&mut self, shard: usize) -> io::Result<()> {
        if let Some(count) = self.sent.window.as_mut().and_then(|window| window.answered.get_mut(shard)) {
            *count += 1;
        }
        self.file.write(&self.sent)
    }

    /// All up to this place was sent.
    pub(crate) fn end(&mut self, until: LogPosition) -> io::Result<()> {
        self.sent = Sent { until, window: None };
        self.file.write(&self.sent)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}
