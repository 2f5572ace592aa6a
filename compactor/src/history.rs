//! The history of decisions: what was done to which blocks, and why. Each is a log line, a line of `history.jsonl` in the data folder,
//! and an entry of `/api/v1/compactor/history`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use model::Timestamp;
use serde::Serialize;
use tsdb::Ulid;

use crate::account::SampleAccount;
use crate::removed::RemovedBlocks;

/// Decisions that are kept in memory.
const IN_MEMORY: usize = 1_000;
/// The file is begun again after so many bytes; the one before it is kept.
const FILE_BYTES: u64 = 16 << 20;
const FILE: &str = "history.jsonl";
/// The extension of the file before it.
const OLD: &str = "old.jsonl";

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    /// Blocks were merged into one.
    Compacted,
    /// A block was written again without deleted samples.
    Rewritten,
    /// A block was downsampled.
    Downsampled,
    /// A block was marked for deletion.
    Marked,
    /// The files of a marked block were removed.
    Deleted,
    /// An abandoned upload was removed.
    Cleaned,
    /// A block cannot be read, and is left alone.
    Quarantined,
    /// A job failed and is tried again.
    Failed,
    /// Something was due and was not done.
    Skipped,
}

/// One decision.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Decision {
    /// RFC 3339.
    pub(crate) time: String,
    pub(crate) bucket: String,
    pub(crate) action: Action,
    /// The labels and the resolution of the blocks.
    pub(crate) group: String,
    pub(crate) why: String,
    #[serde(serialize_with = "texts")]
    pub(crate) from: Vec<Ulid>,
    #[serde(serialize_with = "texts")]
    pub(crate) to: Vec<Ulid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) samples: Option<SampleAccount>,
    /// Whether nothing was changed because it was a dry run.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) dry_run: bool,
}

impl Decision {
    /// A decision made now about no particular samples.
    pub(crate) fn new(bucket: &str, action: Action, group: impl ToString, why: impl ToString) -> Self {
        Self {
            time: rfc3339(crate::now()),
            bucket: bucket.to_owned(),
            action,
            group: group.to_string(),
            why: why.to_string(),
            from: Vec::new(),
            to: Vec::new(),
            samples: None,
            dry_run: false,
        }
    }

    pub(crate) fn from(self, blocks: impl IntoIterator<Item = Ulid>) -> Self {
        Self { from: blocks.into_iter().collect(), ..self }
    }

    pub(crate) fn to(self, blocks: impl IntoIterator<Item = Ulid>) -> Self {
        Self { to: blocks.into_iter().collect(), ..self }
    }
}

/// The decisions of this process, shared by its clones.
#[derive(Clone, Debug)]
pub(crate) struct History {
    last: Arc<Mutex<VecDeque<Decision>>>,
    removed: Arc<RemovedBlocks>,
    path: Option<Arc<PathBuf>>,
}

impl History {
    /// A history that is written to a file in `dir`, too. Which blocks an earlier process has removed is read from there.
    pub(crate) fn new(dir: Option<&Path>) -> Self {
        let removed = RemovedBlocks::default();
        let path = dir.map(|dir| dir.join(FILE));
        if let Some(path) = &path {
            removed.load(&path.with_extension(OLD), crate::now());
            removed.load(path, crate::now());
        }
        Self { last: Arc::default(), removed: Arc::new(removed), path: path.map(Arc::new) }
    }

    /// When the compactor has removed a block, within the last days.
    pub(crate) fn removed_at(&self, bucket: &str, block: Ulid) -> Option<Timestamp> {
        self.removed.at(bucket, block, crate::now())
    }

    /// Notes a decision. A file that cannot be written is a warning.
    pub(crate) fn note(&self, decision: Decision) {
        let ids = |ids: &[Ulid]| ids.iter().map(Ulid::to_string).collect::<Vec<_>>().join(",");
        let (from, to) = (ids(&decision.from), ids(&decision.to));
        let Decision { bucket, action, group, why, dry_run, .. } = &decision;
        match action {
            Action::Quarantined | Action::Failed => {
                tracing::error!(%bucket, ?action, %group, %why, %from, "a block or a job failed");
            }
            Action::Skipped => tracing::warn!(%bucket, %group, %why, %from, "skipped"),
            _ => tracing::info!(%bucket, ?action, %group, %why, %from, %to, dry_run, "decision"),
        }
        match action {
            Action::Deleted if !dry_run => {
                self.removed.note(bucket, &decision.from, crate::now(), crate::now());
            }
            Action::Compacted | Action::Rewritten | Action::Downsampled => {
                self.removed.forget(bucket, &decision.to);
            }
            _ => {}
        }
        if let Some(path) = &self.path
            && let Err(error) = append(path, &decision)
        {
            tracing::warn!(file = %path.display(), %error, "the history cannot be written");
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == IN_MEMORY {
            last.pop_front();
        }
        last.push_back(decision);
    }

    /// The last decisions, the newest first.
    pub(crate) fn last(&self) -> Vec<Decision> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }
}

fn append(path: &Path, decision: &Decision) -> std::io::Result<()> {
    let mut file = File::options().create(true).append(true).open(path)?;
    if file.metadata()?.len() > FILE_BYTES {
        std::fs::rename(path, path.with_extension(OLD))?;
        file = File::options().create(true).append(true).open(path)?;
    }
    let mut line = serde_json::to_vec(decision)?;
    line.push(b'\n');
    file.write_all(&line)
}

fn texts<S: serde::Serializer>(ids: &[Ulid], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(ids.iter().map(Ulid::to_string))
}

/// A time in RFC 3339; milliseconds if the calendar cannot express it.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    let nanos = i128::from(at.as_millis()) * 1_000_000;
    let time = time::OffsetDateTime::from_unix_timestamp_nanos(nanos).ok();
    let text = time.and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok());
    text.unwrap_or_else(|| at.as_millis().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_lines_of_json_and_the_last_ones_stay_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::new(Some(dir.path()));
        for number in 0..=IN_MEMORY {
            let id = Ulid::from_parts(1, number as u128);
            history.note(Decision::new("b", Action::Marked, "g", "because").from([id]));
        }
        assert_eq!(history.last().len(), IN_MEMORY);
        assert_eq!(history.last()[0].from, [Ulid::from_parts(1, IN_MEMORY as u128)]);
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), IN_MEMORY + 1);
        assert_eq!((&lines[0]["action"], &lines[0]["why"]), (&"marked".into(), &"because".into()));
        assert_eq!(rfc3339(Timestamp::EPOCH), "1970-01-01T00:00:00Z");
    }
}
