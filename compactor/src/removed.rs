//! Blocks that were removed in the last days. A listing may still show one, or a program that was paused may upload it again: such a
//! block is left alone, because it was removed for a reason, and its files may be incomplete.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use model::Timestamp;
use tsdb::{Ulid, parse_block_id};

/// Removed blocks are remembered for seven days.
const REMEMBERED_MILLIS: i64 = 7 * 24 * 3_600_000;
/// Most bytes that are read of one file with decisions.
const MOST_BYTES: u64 = 64 << 20;

/// The blocks that were removed, by bucket.
#[derive(Debug, Default)]
pub(crate) struct RemovedBlocks(Mutex<BTreeMap<(String, Ulid), Timestamp>>);

impl RemovedBlocks {
    /// Reads what a file with decisions says about removed blocks. Lines that cannot be used are skipped.
    pub(crate) fn load(&self, path: &Path, now: Timestamp) {
        let Ok(file) = File::open(path) else { return };
        let lines = BufReader::new(file.take(MOST_BYTES)).split(b'\n').map_while(Result::ok);
        for line in lines {
            let Ok(decision) = serde_json::from_slice::<serde_json::Value>(&line) else { continue };
            let text = |key: &str| decision.get(key).and_then(serde_json::Value::as_str);
            let ids = decision.get("from").and_then(serde_json::Value::as_array).into_iter().flatten();
            let ids = ids.filter_map(|id| parse_block_id(id.as_str()?)).collect::<Vec<_>>();
            let (Some(bucket), Some(at)) = (text("bucket"), text("time").and_then(parse_time)) else {
                continue;
            };
            match text("action") {
                Some("deleted") => self.note(bucket, &ids, at, now),
                Some("compacted" | "rewritten" | "downsampled") => {
                    let to = decision.get("to").and_then(serde_json::Value::as_array).into_iter().flatten();
                    let made = to.filter_map(|id| parse_block_id(id.as_str()?)).collect::<Vec<_>>();
                    self.forget(bucket, &made);
                }
                _ => {}
            }
        }
    }

    /// Notes blocks that were removed at `at`, and forgets those of long ago.
    pub(crate) fn note(&self, bucket: &str, blocks: &[Ulid], at: Timestamp, now: Timestamp) {
        let mut removed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        removed.extend(blocks.iter().map(|block| ((bucket.to_owned(), *block), at)));
        removed.retain(|_, at| is_remembered(*at, now));
    }

    /// Forgets blocks, because the compactor itself has made them again.
    pub(crate) fn forget(&self, bucket: &str, blocks: &[Ulid]) {
        let mut removed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for block in blocks {
            removed.remove(&(bucket.to_owned(), *block));
        }
    }

    /// When a block was removed, if that is remembered.
    pub(crate) fn at(&self, bucket: &str, block: Ulid, now: Timestamp) -> Option<Timestamp> {
        let removed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        removed.get(&(bucket.to_owned(), block)).copied().filter(|at| is_remembered(*at, now))
    }
}

fn is_remembered(at: Timestamp, now: Timestamp) -> bool {
    now.millis_since(at) < REMEMBERED_MILLIS
}

fn parse_time(text: &str) -> Option<Timestamp> {
    let format = &time::format_description::well_known::Rfc3339;
    let at = time::OffsetDateTime::parse(text, format).ok()?;
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok().map(Timestamp::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_blocks_are_remembered_for_seven_days_and_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.jsonl");
        let id = |number: u128| Ulid::from_parts(1, number);
        let day = |day: i64| Timestamp::from_millis(day * 24 * 3_600_000);
        let line = |action: &str, list: &str, number: u128| {
            let (id, time) = (id(number), "1970-01-11T00:00:00Z");
            format!(
                "{{\"time\":\"{time}\",\"bucket\":\"b\",\"action\":\"{action}\",\"{list}\":[\"{id}\"]}}\n"
            )
        };
        let mut text = line("deleted", "from", 1) + "garbage\n{}\n" + &line("marked", "from", 2);
        text += &(line("deleted", "from", 3) + &line("compacted", "to", 3));
        std::fs::write(&path, &text).unwrap();
        let removed = RemovedBlocks::default();
        removed.load(&dir.path().join("absent"), day(10));
        removed.load(&path, day(10));
        assert_eq!(removed.at("b", id(1), day(16)), Some(day(10)));
        assert_eq!([removed.at("b", id(1), day(17)), removed.at("c", id(1), day(10))], [None, None]);
        assert_eq!([removed.at("b", id(2), day(10)), removed.at("b", id(3), day(10))], [None, None]);
        removed.note("b", &[id(4)], day(18), day(18));
        assert_eq!(removed.0.lock().unwrap().len(), 1, "what was long ago is forgotten");
        removed.forget("b", &[id(4)]);
        assert_eq!(removed.at("b", id(4), day(18)), None);
        // Any byte of the file may be damaged.
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 0x55;
            std::fs::write(&path, &bytes).unwrap();
            RemovedBlocks::default().load(&path, day(10));
        }
    }
}
