//! The journal: the alerts of the queue in a file, so that a restart loses none.
//!
//! ```text
//! alert_queue/journal    lines of text, each of which ends with a line feed
//!
//! isthmus alert queue 1                              the first line
//! CCCCCCCC {"add":{"id":7,"is_resolved":false,"alert":{...}}}  an alert that waits; replaces one with the same number
//! CCCCCCCC {"taken":{"group":"1f2e3d4c","ids":[7]}}      alerts that one group of Alertmanagers has, and another one has not
//! CCCCCCCC {"remove":[7,8]}                           alerts that do not wait any more
//!
//! CCCCCCCC is the CRC-32C of what follows the space, as 8 hexadecimal digits.
//! ```
//!
//! The last line may be torn, because the machine may stop while it is written. A line before it that is damaged is reported: the file
//! is kept under another name, and all lines that are valid are used.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::alert::{Alert, StoredAlert};
use crate::queue::{Changes, JournalEntry};

const FOLDER: &str = "alert_queue";
const FILE: &str = "journal";
const HEADER: &str = "isthmus alert queue 1";
/// A file that is longer is not read: the limits of the queue allow far less.
const MAX_BYTES: u64 = 1 << 30;
/// A longer line is damaged.
const MAX_LINE_BYTES: u64 = 128 << 20;
/// Below this size the file is not written anew.
const SMALL_BYTES: u64 = 1 << 20;

/// The content of a line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Line {
    Add {
        id: u64,
        is_resolved: bool,
        alert: StoredAlert,
        /// Groups that have it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        taken: Vec<String>,
    },
    Taken {
        group: String,
        ids: BTreeSet<u64>,
    },
    Remove(Vec<u64>),
}

/// The file.
#[derive(Debug)]
pub(crate) struct Journal {
    folder: PathBuf,
    file: Option<File>,
    bytes: u64,
    /// The size when it was last written anew.
    compact_bytes: u64,
}

/// What was found in the file.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) alerts: Vec<JournalEntry>,
    /// Bytes at the end that were not written completely.
    pub(crate) torn_bytes: u64,
    /// What is damaged, and where the file is kept.
    pub(crate) damage: Option<(String, PathBuf)>,
}

impl Journal {
    /// Reads the file in a data folder, and writes it anew.
    ///
    /// # Errors
    /// The folder or the file cannot be read or written. A file that is damaged is not an error.
    pub(crate) fn open(data_dir: &Path) -> io::Result<(Self, Found)> {
        let folder = data_dir.join(FOLDER);
        fs::create_dir_all(&folder)?;
        let path = folder.join(FILE);
        let (alerts, torn_bytes, damage) = match File::open(&path) {
            Ok(file) => read(file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Default::default(),
            Err(error) => return Err(error),
        };
        let damage = damage.map(|why| keep(&path).map(|kept| (why, kept))).transpose()?;
        let mut journal = Self { folder, file: None, bytes: 0, compact_bytes: 0 };
        let added: Vec<JournalEntry> = alerts.into_values().collect();
        let changes = Changes { is_all: true, added, ..Changes::default() };
        journal.write(&changes)?;
        Ok((journal, Found { alerts: changes.added, torn_bytes, damage }))
    }

    /// Whether the next changes must be all that waits: the file has become long, or could not be written.
    pub(crate) fn wants_all(&self) -> bool {
        self.has_failed() || self.bytes > SMALL_BYTES + 4 * self.compact_bytes
    }

    /// Whether the last write failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.file.is_none()
    }

    /// Writes changes, and waits until they are on the disk.
    ///
    /// # Errors
    /// They cannot be written. What the file has then is not known, and the next changes must be all that waits.
    pub(crate) fn write(&mut self, changes: &Changes) -> io::Result<()> {
        if changes.is_all {
            return self.write_all(changes);
        }
        let Some(mut file) = self.file.take() else {
            return Err(io::Error::other("the file must be written anew"));
        };
        let text = encode(changes);
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        self.bytes += text.len() as u64;
        self.file = Some(file);
        Ok(())
    }

    fn write_all(&mut self, changes: &Changes) -> io::Result<()> {
        self.file = None;
        let (path, new) = (self.folder.join(FILE), self.folder.join("journal.new"));
        let text = format!("{HEADER}\n{}", encode(changes));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(&self.folder)?.sync_all()?;
        self.bytes = text.len() as u64;
        self.compact_bytes = self.bytes;
        self.file = Some(file);
        Ok(())
    }
}

fn encode(changes: &Changes) -> String {
    let mut text = String::new();
    let mut push = |line: &Line| {
        // Text and maps with text as keys can always be written.
        let json = serde_json::to_string(line).unwrap_or_default();
        text.push_str(&format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes())));
    };
    // Before the added ones, which may have the number of a removed one.
    if !changes.removed.is_empty() {
        push(&Line::Remove(changes.removed.clone()));
    }
    for JournalEntry { id, is_resolved, alert, taken } in &changes.added {
        let alert = StoredAlert::from(&**alert);
        push(&Line::Add { id: *id, is_resolved: *is_resolved, alert, taken: taken.clone() });
    }
    for (group, ids) in &changes.taken {
        push(&Line::Taken { group: group.clone(), ids: ids.clone() });
    }
    text
}

/// Gives a damaged file a second name, so that it is kept when the file is written anew.
fn keep(path: &Path) -> io::Result<PathBuf> {
    for number in 1.. {
        let kept = path.with_file_name(format!("{FILE}.damaged-{number}"));
        match fs::hard_link(path, &kept) {
            Ok(()) => return Ok(kept),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("all names are taken"))
}

/// Reads a file: alerts, bytes of a torn line at the end, and the first damage.
fn read(source: impl Read) -> io::Result<(BTreeMap<u64, JournalEntry>, u64, Option<String>)> {
    let mut reader = BufReader::new(source.take(MAX_BYTES + 1));
    let (mut alerts, mut damage) = (BTreeMap::new(), None);
    let (mut number, mut at, mut line) = (0_u64, 0_u64, Vec::new());
    loop {
        line.clear();
        let length = reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)? as u64;
        if length == 0 {
            return Ok((alerts, 0, damage));
        }
        (number, at) = (number + 1, at + length);
        if at > MAX_BYTES {
            damage.get_or_insert(format!("line {number}: the file is longer than {MAX_BYTES} bytes"));
            return Ok((alerts, 0, damage));
        }
        let read = match line.strip_suffix(b"\n") {
            Some(text) if number == 1 => {
                (text == HEADER.as_bytes()).then_some(()).ok_or_else(|| format!("is not {HEADER:?}"))
            }
            Some(text) => apply(text, &mut alerts),
            None => Err("has no end".to_owned()),
        };
        if let Err(why) = read {
            // Nothing follows a line that is torn.
            if reader.fill_buf()?.is_empty() {
                return Ok((alerts, length, damage));
            }
            damage.get_or_insert(format!("line {number}: {why}"));
        }
    }
}

fn apply(text: &[u8], alerts: &mut BTreeMap<u64, JournalEntry>) -> Result<(), String> {
    let (sum, json) = text.split_at_checked(9).ok_or("is too short")?;
    let sum = std::str::from_utf8(sum).ok().and_then(|sum| sum.strip_suffix(' '));
    let sum = sum.and_then(|sum| u32::from_str_radix(sum, 16).ok()).ok_or("has no checksum")?;
    let actual = crc32c::crc32c(json);
    if actual != sum {
        return Err(format!("checksum is {actual:08x}, expected {sum:08x}"));
    }
    match serde_json::from_slice(json).map_err(|why| why.to_string())? {
        Line::Remove(ids) => ids.iter().for_each(|id| drop(alerts.remove(id))),
        Line::Taken { group, ids } => {
            for id in &ids {
                if let Some(entry) = alerts.get_mut(id).filter(|entry| !entry.taken.contains(&group)) {
                    entry.taken.push(group.clone());
                }
            }
        }
        Line::Add { id, is_resolved, alert, taken } => {
            let alert = Arc::new(Alert::try_from(alert)?);
            alerts.insert(id, JournalEntry { id, is_resolved, alert, taken });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
