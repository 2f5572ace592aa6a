//! A log whose records are kept in memory while it cannot be written.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use crate::log::writer::LogWriter;

/// A log that goes on in memory, up to a limit, while its files cannot be written. Records keep their order.
pub(crate) struct BufferedLog {
    writer: LogWriter,
    kept: VecDeque<Batch>,
    kept_bytes: usize,
    most_bytes: usize,
    /// Why records are kept.
    problem: Option<String>,
    refused: u64,
}

/// Records of one commit.
struct Batch {
    records: Vec<Vec<u8>>,
    samples: u64,
}

/// Samples that are only in memory, because a log cannot be written. They are lost if the process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlogged {
    /// Why the log cannot be written.
    pub problem: String,
    /// Samples that wait for the log.
    pub samples: u64,
    /// Bytes of their records.
    pub bytes: usize,
    /// Samples that were refused since the log could be written last, because those that wait have reached the limit.
    pub refused: u64,
}

impl BufferedLog {
    /// Begins a new segment after those in `dir`. At most this many bytes of records are kept in memory.
    ///
    /// # Errors
    /// When a file cannot be created.
    pub(crate) fn create(dir: &Path, most_bytes: usize) -> io::Result<Self> {
        let writer = LogWriter::create(dir)?;
        Ok(Self { writer, kept: VecDeque::new(), kept_bytes: 0, most_bytes, problem: None, refused: 0 })
    }

    /// Appends records with this many samples, or keeps them if they cannot be written.
    ///
    /// # Errors
    /// When they cannot be written, and records that are kept have reached the limit; when a record does not fit into a segment.
    pub(crate) fn log(&mut self, records: Vec<Vec<u8>>, samples: u64) -> io::Result<()> {
        self.writer.check(&records)?;
        let result = self.write_kept().and_then(|()| self.writer.log(&records));
        let Err(error) = result else { return Ok(()) };
        let bytes: usize = records.iter().map(Vec::len).sum();
        self.problem = Some(error.to_string());
        if self.kept_bytes + bytes > self.most_bytes {
            self.refused += samples;
            let kept: u64 = self.kept.iter().map(|batch| batch.samples).sum();
            let text = format!(
                "{error}; {kept} samples are only in memory, the limit of {} bytes is reached; free space on the disk",
                self.most_bytes
            );
            return Err(io::Error::new(error.kind(), text));
        }
        self.kept_bytes += bytes;
        self.kept.push_back(Batch { records, samples });
        Ok(())
    }

    /// Writes the records that were kept.
    fn write_kept(&mut self) -> io::Result<()> {
        while let Some(batch) = self.kept.front() {
            self.writer.log(&batch.records)?;
            self.kept_bytes -= batch.records.iter().map(Vec::len).sum::<usize>();
            self.kept.pop_front();
        }
        (self.problem, self.refused) = (None, 0);
        Ok(())
    }

    /// Waits until all records are on the disk.
    ///
    /// # Errors
    /// When some cannot be written, or the disk reports an error.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.write_kept()?;
        self.writer.sync()
    }

    /// Completes the segment and begins the next one. Returns its number. Records that cannot be written are kept for it.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub(crate) fn next_segment(&mut self) -> io::Result<u32> {
        let _ = self.write_kept();
        self.writer.next_segment()?;
        Ok(self.writer.number())
    }

    /// The writer, to make it fail.
    #[cfg(test)]
    pub(crate) fn writer(&mut self) -> &mut LogWriter {
        &mut self.writer
    }

    /// What is only in memory; none if everything is in the log.
    pub(crate) fn unlogged(&self) -> Option<Unlogged> {
        let problem = self.problem.clone()?;
        let samples = self.kept.iter().map(|batch| batch.samples).sum();
        Some(Unlogged { problem, samples, bytes: self.kept_bytes, refused: self.refused })
    }
}

impl Drop for BufferedLog {
    fn drop(&mut self) {
        // There is nobody left to tell. Who must know calls `sync` before.
        let _ = self.write_kept();
    }
}
