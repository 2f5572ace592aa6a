//! A log whose records are kept in memory while it cannot be written.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use crate::log::writer::LogWriter;

/// A log that goes on in memory, up to a limit, while its files cannot be written. Records keep their order.
pub(crate) struct BufferedLog {
    dir: PathBuf,
    /// None before the first segment.
    writer: Option<LogWriter>,
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
    /// A log in `dir`, to which nothing is written yet. At most this many bytes of records are kept in memory.
    pub(crate) fn new(dir: &Path, most_bytes: usize) -> Self {
        let (dir, kept) = (dir.to_owned(), VecDeque::new());
        Self { dir, writer: None, kept, kept_bytes: 0, most_bytes, problem: None, refused: 0 }
    }

    /// Begins a new segment after those in the directory, which is created if it is missing.
    ///
    /// # Errors
    /// When a file cannot be created.
    pub(crate) fn begin(&mut self) -> io::Result<&mut LogWriter> {
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => LogWriter::create(&self.dir)?,
        };
        Ok(self.writer.insert(writer))
    }

    /// Appends records with this many samples, or keeps them if they cannot be written.
    ///
    /// # Errors
    /// When they cannot be written, and records that are kept have reached the limit; when a record does not fit into a segment.
    pub(crate) fn log(&mut self, records: Vec<Vec<u8>>, samples: u64) -> io::Result<()> {
        self.begin()?.check(&records)?;
        let result = self.write_kept().and_then(|()| self.begin()?.log(&records));
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
        while let Some(batch) = self.kept.pop_front() {
            if let Err(error) = self.begin().and_then(|writer| writer.log(&batch.records)) {
                self.kept.push_front(batch);
                return Err(error);
            }
            self.kept_bytes -= batch.records.iter().map(Vec::len).sum::<usize>();
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
        self.writer.as_ref().map_or(Ok(()), LogWriter::sync)
    }

    /// Completes the segment and begins the next one. Returns its number. Records that cannot be written are kept for it.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub(crate) fn next_segment(&mut self) -> io::Result<u32> {
        let _ = self.write_kept();
        let writer = self.begin()?;
        writer.next_segment()?;
        Ok(writer.number())
    }

    /// The current segment, and its bytes that have whole records; none before the first segment.
    pub(crate) fn end(&self) -> Option<(u32, u64)> {
        self.writer.as_ref().map(|writer| (writer.number(), writer.written()))
    }

    /// The writer, to make it fail.
    #[cfg(test)]
    pub(crate) fn writer(&mut self) -> &mut LogWriter {
        self.begin().unwrap()
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
        // A drop returns no error. A caller that needs the outcome calls `sync` before.
        let _ = self.write_kept();
    }
}
