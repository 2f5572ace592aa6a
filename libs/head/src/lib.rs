//! The head of a database: the write-ahead log, recent samples in memory, and blocks that are cut off it.
//!
//! It reads and writes the data folder of a Prometheus: `wal/`, `chunks_head/`, blocks. Formats of chunks and blocks are those of
//! [`tsdb`]; this crate decides what is in memory, in the log and in files. It has no thread and no clock: its user calls
//! [`Head::sync`], [`Head::store_chunks`], [`Head::cut_block`] and [`Head::truncate`] when it is time.
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! use head::{Head, HeadOptions};
//! use model::{Labels, TimeRange, Timestamp};
//! let (head, _) = Head::open(dir.path(), HeadOptions::default())?;
//! let up = head.series(&Labels::from_pairs([("__name__", "up")])?);
//! let mut appender = head.appender();
//! appender.append_float(&up, Timestamp::from_millis(1_000), Timestamp::EPOCH, 1.0)?;
//! assert_eq!(appender.commit()?.added, 1);
//! assert_eq!(head.select(&[], TimeRange::ALL).count(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod append_late;
mod appender;
mod chunk_files;
mod chunk_format;
mod commit;
mod counts;
mod cut;
mod cut_late;
mod cut_state;
mod database;
mod error;
mod exemplars;
mod files;
mod folder;
mod head;
mod held;
mod index;
mod late;
mod late_chunks;
mod log;
mod log_readers;
mod merge;
mod metadata;
mod paged;
mod replay;
mod select;
mod series;
mod statistics;
mod value;
mod view;
mod views;

pub use appender::{AppendRefused, Appender, Committed, SeriesHandle};
pub use cut_late::LateCut;
pub use database::{Database, DatabaseOptions, LocalBlock, Maintained, OpenedDatabase};
pub use error::HeadError;
pub use exemplars::{Exemplar, ExemplarRefused, SeriesExemplars};
pub use head::{Head, HeadOptions, HeadStats};
pub use held::LogHold;
pub use log::buffered::Unlogged;
pub use log::follow::{LogEntries, LogFollower, LogPosition, LogSample, LogValue};
pub use metadata::Metadata;
pub use replay::{DamagedPart, Replay};
pub use select::{FoundSeries, HeadSelection, HeadSeries};
pub use statistics::HeadStatistics;
pub use view::DatabaseView;

#[cfg(test)]
mod tests;
