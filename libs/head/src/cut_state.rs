//! What a start must know of blocks of out-of-order samples that were being written.
//!
//! ```text
//! wbl/cut    "writing", then the ids of the blocks          the blocks are removed: the log has their samples
//!            "written", the next segment, the last place of a chunk          the log and the chunks up to there are removed
//! ```
//!
//! Lines end with a line feed. Without this file, a process that is killed meanwhile would have samples in two blocks, as a
//! Prometheus that is killed then, which ignores the file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use tsdb::{Ulid, parse_block_id};

use crate::log::segments::list;

const FILE: &str = "cut";

/// Most bytes of the file that are read.
const MOST_BYTES: usize = 1 << 20;

/// How far the blocks of a cut are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CutState {
    /// Those with these ids may be there.
    Writing(Vec<Ulid>),
    /// All are there.
    Written {
        /// Segments of the log before this one have only samples of the blocks.
        segment: u32,
        /// Out-of-order chunks up to this place, as marks name it, have only such samples.
        place: u64,
    },
}

impl CutState {
    /// The state in the directory of the log; none without one, or if it cannot be read or is over.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(crate) fn load(dir: &Path) -> io::Result<Option<Self>> {
        let bytes = match fs::read(dir.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes?,
        };
        let text = std::str::from_utf8(&bytes).ok().filter(|text| text.len() <= MOST_BYTES);
        let Some(state) = text.and_then(Self::parse) else { return Ok(None) };
        if let Self::Written { segment, .. } = state {
            // A Prometheus that used the folder meanwhile has written the samples to blocks, and the places mean other chunks.
            let is_current = list(dir)?.iter().any(|old| old.number < segment);
            return Ok(is_current.then_some(state));
        }
        Ok(Some(state))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let kind = lines.next()?;
        match kind {
            "writing" => lines.map(parse_block_id).collect::<Option<_>>().map(Self::Writing),
            "written" => {
                let (segment, place) = (lines.next()?.parse().ok()?, lines.next()?.parse().ok()?);
                lines.next().is_none().then_some(Self::Written { segment, place })
            }
            _ => None,
        }
    }

    /// Writes the state. It is there completely or as before.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn save(&self, dir: &Path) -> io::Result<()> {
        let lines = match self {
            Self::Writing(ids) => {
                ids.iter().fold("writing\n".to_owned(), |lines, id| lines + &id.to_string() + "\n")
            }
            Self::Written { segment, place } => format!("written\n{segment}\n{place}\n"),
        };
        let unfinished = dir.join("cut.tmp");
        let mut file = File::create(&unfinished)?;
        file.write_all(lines.as_bytes())?;
        file.sync_all()?;
        fs::rename(unfinished, dir.join(FILE))?;
        File::open(dir)?.sync_all()
    }

    /// Removes the state.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub(crate) fn remove(dir: &Path) -> io::Result<()> {
        match fs::remove_file(dir.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_comes_back_and_damage_is_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("00000004"), "").unwrap();
        let ids = vec![Ulid::from_parts(1, 2), Ulid::from_parts(3, 4)];
        for state in [CutState::Writing(ids), CutState::Written { segment: 5, place: u64::MAX }] {
            state.save(dir.path()).unwrap();
            assert_eq!(CutState::load(dir.path()).unwrap(), Some(state));
            let bytes = fs::read(dir.path().join(FILE)).unwrap();
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x80;
                fs::write(dir.path().join(FILE), &damaged).unwrap();
                assert_eq!(CutState::load(dir.path()).unwrap(), None, "byte {at}");
                fs::write(dir.path().join(FILE), &bytes[..at]).unwrap();
                let cut = CutState::load(dir.path()).unwrap();
                assert!(cut.is_none() || bytes[..at].ends_with(b"\n"), "cut at {at}");
            }
        }
        // Without the segments of its time, it is over.
        CutState::Written { segment: 4, place: 1 }.save(dir.path()).unwrap();
        assert_eq!(CutState::load(dir.path()).unwrap(), None);
        CutState::remove(dir.path()).unwrap();
        CutState::remove(dir.path()).unwrap();
    }
}
