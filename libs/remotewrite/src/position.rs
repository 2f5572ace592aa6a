//! The file that says how much of the log was sent.
//!
//! ```text
//! two slots of 4096 bytes, which are written in turn; the valid one with the higher number holds
//!
//! slot      be32 magic, be32 CRC-32C of the rest, be64 number, be32 segment, be64 offset, byte window
//! window    0 nothing is being sent; 1 and
//!           be32 segment, be64 offset, be64 fingerprint, be32 samples of a request, be32 shards, shards x be32 requests that were answered
//! ```

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use head::LogPosition;

const SLOT_BYTES: usize = 4096;
const MAGIC: u32 = 0x4952_5701;
/// Most shards, so that a window fits into a slot.
pub(crate) const MOST_SHARDS: usize = 1_000;

/// How much of the log was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// All before this place was sent.
    pub(crate) until: LogPosition,
    /// What is being sent after it.
    pub(crate) window: Option<WindowState>,
}

/// What of a window was sent. The same samples make the same requests again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WindowState {
    pub(crate) end: LogPosition,
    /// A hash of the settings that decide what is in a request.
    pub(crate) fingerprint: u64,
    pub(crate) per_send: u32,
    /// For each shard the number of requests that were answered.
    pub(crate) answered: Vec<u32>,
}

/// The file. Each state is written to it at once, and survives the process; [`PositionFile::sync`] makes it survive the machine.
pub(crate) struct PositionFile {
    file: File,
    number: u64,
}

/// The file of a queue in a folder.
pub(crate) fn path_of(dir: &Path, name: &str) -> PathBuf {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    let text: String = name.chars().take(60).map(safe).collect();
    // Different names have different files.
    let hash = crc32c::crc32c(name.as_bytes());
    dir.join(format!("{text}-{hash:08x}"))
}

impl PositionFile {
    /// Opens or creates the file. None if it is new, or if no slot is valid.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Option<Sent>)> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let slot = |at: usize| {
            let mut bytes = vec![0; SLOT_BYTES];
            file.read_exact_at(&mut bytes, (at * SLOT_BYTES) as u64).ok()?;
            parse(&bytes)
        };
        let newest = [slot(0), slot(1)].into_iter().flatten().max_by_key(|(number, _)| *number);
        let number = newest.as_ref().map_or(0, |(number, _)| *number);
        let new = Self { file, number };
        if newest.is_none() {
            new.file.set_len(2 * SLOT_BYTES as u64)?;
            new.file.sync_all()?;
        }
        Ok((new, newest.map(|(_, sent)| sent)))
    }

    /// Writes the state.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&mut self, sent: &Sent) -> io::Result<()> {
        let number = self.number + 1;
        let at = number % 2 * SLOT_BYTES as u64;
        self.file.write_all_at(&encode(number, sent), at)?;
        self.number = number;
        Ok(())
    }

    /// Waits until the state is on the disk.
    ///
    /// # Errors
    /// When the disk reports an error.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn encode(number: u64, sent: &Sent) -> Vec<u8> {
    let mut body = Vec::with_capacity(SLOT_BYTES);
    body.extend_from_slice(&number.to_be_bytes());
    put_position(&mut body, sent.until);
    body.push(u8::from(sent.window.is_some()));
    if let Some(window) = &sent.window {
        put_position(&mut body, window.end);
        body.extend_from_slice(&window.fingerprint.to_be_bytes());
        body.extend_from_slice(&window.per_send.to_be_bytes());
        let answered = &window.answered[..window.answered.len().min(MOST_SHARDS)];
        body.extend_from_slice(&(answered.len() as u32).to_be_bytes());
        answered.iter().for_each(|count| body.extend_from_slice(&count.to_be_bytes()));
    }
    body.resize(SLOT_BYTES - 8, 0);
    let mut slot = MAGIC.to_be_bytes().to_vec();
    slot.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
    slot.extend_from_slice(&body);
    slot
}

fn put_position(out: &mut Vec<u8>, position: LogPosition) {
    out.extend_from_slice(&position.segment.to_be_bytes());
    out.extend_from_slice(&position.offset.to_be_bytes());
}

/// The number and state of a slot; none if it is not valid.
fn parse(slot: &[u8]) -> Option<(u64, Sent)> {
    let mut rest = slot;
    if be32(&mut rest)? != MAGIC || be32(&mut rest)? != crc32c::crc32c(slot.get(8..)?) {
        return None;
    }
    let number = be64(&mut rest)?;
    let until = position(&mut rest)?;
    let (&has_window, after) = rest.split_first()?;
    rest = after;
    if has_window == 0 {
        return Some((number, Sent { until, window: None }));
    }
    let (end, fingerprint, per_send) = (position(&mut rest)?, be64(&mut rest)?, be32(&mut rest)?);
    let shards = be32(&mut rest)? as usize;
    if shards > MOST_SHARDS {
        return None;
    }
    let answered = (0..shards).map(|_| be32(&mut rest)).collect::<Option<_>>()?;
    Some((number, Sent { until, window: Some(WindowState { end, fingerprint, per_send, answered }) }))
}

fn position(rest: &mut &[u8]) -> Option<LogPosition> {
    Some(LogPosition { segment: be32(rest)?, offset: be64(rest)? })
}

fn be32(rest: &mut &[u8]) -> Option<u32> {
    let (bytes, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u32::from_be_bytes(*bytes))
}

fn be64(rest: &mut &[u8]) -> Option<u64> {
    let (bytes, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(segment: u32) -> Sent {
        let end = LogPosition { segment: segment + 1, offset: u64::MAX };
        let window = WindowState { end, fingerprint: 5, per_send: 2_000, answered: vec![1, 0, u32::MAX] };
        let window = segment.is_multiple_of(2).then_some(window);
        Sent { until: LogPosition { segment, offset: 77 }, window }
    }

    #[test]
    fn the_last_state_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_of(dir.path(), "a/b c");
        let (mut file, found) = PositionFile::open(&path).unwrap();
        assert_eq!(found, None);
        for segment in 0..5 {
            file.write(&sent(segment)).unwrap();
            let (again, found) = PositionFile::open(&path).unwrap();
            assert_eq!(found, Some(sent(segment)));
            file = again;
        }
        file.sync().unwrap();
        assert_ne!(path_of(dir.path(), "a/b c"), path_of(dir.path(), "a_b c"));
        let largest = WindowState { answered: vec![7; MOST_SHARDS], ..sent(2).window.unwrap() };
        let largest = Sent { window: Some(largest), ..sent(2) };
        file.write(&largest).unwrap();
        assert_eq!(PositionFile::open(&path).unwrap().1, Some(largest));
    }

    #[test]
    fn a_damaged_slot_leaves_the_state_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_of(dir.path(), "a");
        let (mut file, _) = PositionFile::open(&path).unwrap();
        file.write(&sent(1)).unwrap();
        file.write(&sent(2)).unwrap();
        let whole = fs::read(&path).unwrap();
        // The second state is in the first slot.
        for bit in 0..200 * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bytes).unwrap();
            assert_eq!(PositionFile::open(&path).unwrap().1, Some(sent(1)), "bit {bit}");
        }
        for length in [0, 1, 4095, 4096] {
            fs::write(&path, &whole[..length]).unwrap();
            let expected = (length == 4096).then(|| sent(2));
            assert_eq!(PositionFile::open(&path).unwrap().1, expected, "{length} bytes");
        }
    }
}
