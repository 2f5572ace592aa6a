//! Checkpoints: what old segments contain and a head still needs.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::log::exemplar::{LoggedMetadata, exemplar_record, metadata_record};
use crate::log::reader::SegmentReader;
use crate::log::record::{
    LoggedDeletion, LoggedSample, LoggedSeries, Record, deletion_record, float_record, histogram_records,
    series_record,
};
use crate::log::segments::{checkpoint_name, checkpoints, last_checkpoint, list};
use crate::log::writer::LogWriter;
use crate::metadata::Metadata;

/// Records are written in groups of about this many bytes.
const GROUP_BYTES: usize = 1 << 20;

/// What a checkpoint keeps.
pub(crate) struct Kept<'a> {
    /// Samples before this time are dropped, in milliseconds since the epoch.
    pub(crate) min_time: i64,
    /// Whether a series is kept, by its number in the log.
    pub(crate) series: &'a dyn Fn(u64) -> bool,
    /// The metadata of a series, by its number in the log. The log may have older ones before and the same again later.
    pub(crate) metadata: &'a dyn Fn(u64) -> Option<Arc<Metadata>>,
    /// The series whose metadata were written: initially none.
    pub(crate) described: HashSet<u64>,
}

/// Writes a checkpoint that replaces the last one and the segments up to `last`, then removes these.
///
/// It appears whole or not at all: it is written to a directory with another name, which is renamed.
///
/// # Errors
/// When a file cannot be read or written, or a segment is damaged. The log is then as before.
pub(crate) fn write(dir: &Path, last: u32, kept: Kept<'_>) -> io::Result<()> {
    let unfinished = dir.join(format!("{}.tmp", checkpoint_name(last)));
    remove_dir(&unfinished)?;
    let result = write_unfinished(dir, &unfinished, last, kept);
    if result.is_err() {
        // On a full disk, it would be in the way.
        let _ = remove_dir(&unfinished);
    }
    result?;
    fs::rename(&unfinished, dir.join(checkpoint_name(last)))?;
    File::open(dir)?.sync_all()?;
    remove_replaced(dir)
}

fn write_unfinished(dir: &Path, unfinished: &Path, last: u32, mut kept: Kept<'_>) -> io::Result<()> {
    let mut writer = LogWriter::create(unfinished)?;
    let mut sources = Vec::new();
    let mut first = 0;
    if let Some(checkpoint) = last_checkpoint(dir)? {
        first = checkpoint.number.saturating_add(1);
        sources.extend(list(&checkpoint.path)?);
    }
    sources.extend(list(dir)?.into_iter().filter(|segment| (first..=last).contains(&segment.number)));
    let (mut group, mut bytes) = (Vec::new(), 0);
    for source in sources {
        let mut reader = SegmentReader::open(&source.path)?;
        while let Some(record) = reader.next_record()? {
            for record in kept.filter(record) {
                bytes += record.len();
                group.push(record);
            }
            if bytes >= GROUP_BYTES {
                writer.log(&group)?;
                (group, bytes) = (Vec::new(), 0);
            }
        }
        if let Some(torn) = reader.torn() {
            let text = format!("{} at byte {}: {}", source.path.display(), torn.at, torn.reason);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
    }
    writer.log(&group)?;
    writer.sync()
}

/// Removes unfinished checkpoints, those that a later one replaces, and the segments that the last one replaces.
///
/// # Errors
/// When a file cannot be removed.
pub(crate) fn remove_replaced(dir: &Path) -> io::Result<()> {
    let mut checkpoints = checkpoints(dir)?;
    let Some(last) = checkpoints.pop() else { return Ok(()) };
    for segment in list(dir)?.into_iter().filter(|segment| segment.number <= last.number) {
        fs::remove_file(&segment.path)?;
    }
    checkpoints.iter().try_for_each(|checkpoint| remove_dir(&checkpoint.path))
}

fn remove_dir(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

impl Kept<'_> {
    /// What is kept of a record, as records.
    fn filter(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let min_time = self.min_time;
        let is_recent = |time: i64| time >= min_time;
        match Record::parse(bytes) {
            Ok(Record::Series(mut series)) => {
                series.retain(|LoggedSeries { reference, .. }| (self.series)(*reference));
                let entries = series.iter().map(|series| (series.reference, &series.labels));
                if series.is_empty() { Vec::new() } else { vec![series_record(entries)] }
            }
            Ok(Record::Floats(mut samples)) => {
                samples.retain(|LoggedSample { time, .. }| is_recent(*time));
                if samples.is_empty() { Vec::new() } else { vec![float_record(&samples)] }
            }
            Ok(Record::Histograms(mut samples)) => {
                samples.retain(|LoggedSample { time, .. }| is_recent(*time));
                histogram_records(&samples)
            }
            Ok(Record::Deletions(mut deletions)) => {
                deletions.retain(|LoggedDeletion { reference, max, .. }| {
                    is_recent(*max) && (self.series)(*reference)
                });
                if deletions.is_empty() { Vec::new() } else { vec![deletion_record(&deletions)] }
            }
            Ok(Record::Exemplars(mut exemplars)) => {
                exemplars.retain(|logged| {
                    is_recent(logged.exemplar.time.as_millis()) && (self.series)(logged.reference)
                });
                let entries = exemplars.iter().map(|logged| (logged.reference, &logged.exemplar));
                if exemplars.is_empty() { Vec::new() } else { vec![exemplar_record(entries)] }
            }
            Ok(Record::Metadata(logged)) => {
                let mut current = Vec::new();
                for LoggedMetadata { reference, .. } in logged {
                    if (self.series)(reference) && self.described.insert(reference) {
                        current.extend((self.metadata)(reference).map(|metadata| (reference, metadata)));
                    }
                }
                let entries = current.iter().map(|(reference, metadata)| (*reference, &**metadata));
                if current.is_empty() { Vec::new() } else { vec![metadata_record(entries)] }
            }
            // Those that follow the log have read them.
            Ok(Record::Late(_)) => Vec::new(),
            // A record that is damaged although its checksum matches was written so. It is kept for other readers.
            Ok(Record::Other(_) | Record::Markers(_)) | Err(_) => vec![bytes.to_vec()],
        }
    }
}

#[cfg(test)]
mod tests {
    use model::Labels;

    use super::*;
    use crate::exemplars::Exemplar;
    use crate::log::exemplar::LoggedExemplar;

    fn sample(reference: u64, time: i64) -> LoggedSample<f64> {
        LoggedSample { reference, time, start: 0, value: time as f64 }
    }

    /// Keeps all series but the second.
    fn kept(min_time: i64) -> Kept<'static> {
        let metadata = &|reference| (reference != 3).then(|| Arc::new(metadata("newest")));
        Kept { min_time, series: &|reference| reference != 2, metadata, described: HashSet::new() }
    }

    fn metadata(help: &str) -> Metadata {
        Metadata { help: help.into(), ..Metadata::default() }
    }

    fn all_records(dir: &Path) -> Vec<Record> {
        let mut sources = Vec::new();
        if let Some(checkpoint) = last_checkpoint(dir).unwrap() {
            sources.extend(list(&checkpoint.path).unwrap());
        }
        sources.extend(list(dir).unwrap());
        let mut out = Vec::new();
        for source in sources {
            let mut reader = SegmentReader::open(&source.path).unwrap();
            while let Some(record) = reader.next_record().unwrap() {
                out.push(Record::parse(record).unwrap());
            }
        }
        out
    }

    #[test]
    fn a_checkpoint_keeps_what_is_needed_and_replaces_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let labels = |name: &str| Labels::from_pairs([("__name__", name)]).unwrap();
        let mut writer = LogWriter::create(dir.path()).unwrap();
        for (reference, name) in [(1, "a"), (2, "b"), (3, "c")] {
            writer.log(&[series_record([(reference, &labels(name))])]).unwrap();
            writer.log(&[float_record(&[sample(reference, 10), sample(reference, 20)])]).unwrap();
            writer.next_segment().unwrap();
        }
        writer
            .log(&[deletion_record(&[LoggedDeletion { reference: 1, min: 0, max: 15 }]), vec![99, 1]])
            .unwrap();
        writer.next_segment().unwrap();
        let series = |reference: u64, name: &str| {
            Record::Series(vec![LoggedSeries { reference, labels: labels(name) }])
        };
        write(dir.path(), 1, kept(15)).unwrap();
        let floats = |times: &[i64], reference| {
            Record::Floats(times.iter().map(|time| sample(reference, *time)).collect())
        };
        let deletion = Record::Deletions(vec![LoggedDeletion { reference: 1, min: 0, max: 15 }]);
        let rest = [series(3, "c"), floats(&[10, 20], 3), deletion.clone(), Record::Other(99)];
        let first = [series(1, "a"), floats(&[20], 1), floats(&[20], 2)];
        assert_eq!(all_records(dir.path()), [&first[..], &rest[..]].concat());
        // The next one reads the first one.
        write(dir.path(), 3, kept(20)).unwrap();
        let last = [series(3, "c"), floats(&[20], 3), Record::Other(99)];
        assert_eq!(all_records(dir.path()), [&first[..], &last[..]].concat());
        let names: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn recent_exemplars_and_the_newest_metadata_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let exemplar = |time: i64| Exemplar {
            labels: Labels::from_pairs([("trace", "a")]).unwrap(),
            value: 1.0,
            time: model::Timestamp::from_millis(time),
            has_own_time: false,
        };
        let mut writer = LogWriter::create(dir.path()).unwrap();
        for help in ["a", "b"] {
            let old = metadata(help);
            let (first, last) = (exemplar(10), exemplar(20));
            writer.log(&[exemplar_record([(1, &first), (1, &last), (2, &last)])]).unwrap();
            writer.log(&[metadata_record([(1, &old), (2, &old), (3, &old), (4, &old)])]).unwrap();
            writer.next_segment().unwrap();
        }
        write(dir.path(), 1, kept(15)).unwrap();
        let exemplars = Record::Exemplars(vec![LoggedExemplar { reference: 1, exemplar: exemplar(20) }]);
        let newest = |reference| LoggedMetadata { reference, metadata: metadata("newest") };
        let metadata = Record::Metadata(vec![newest(1), newest(4)]);
        assert_eq!(all_records(dir.path()), [exemplars.clone(), metadata, exemplars]);
    }

    #[test]
    fn damage_leaves_the_log_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::create(dir.path()).unwrap();
        writer.log(&[vec![99; 100]]).unwrap();
        writer.next_segment().unwrap();
        let path = list(dir.path()).unwrap()[0].path.clone();
        let mut bytes = fs::read(&path).unwrap();
        bytes[9] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let error = write(dir.path(), 0, kept(0)).unwrap_err().to_string();
        assert!(error.ends_with("00000000 at byte 0: a checksum does not match"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(last_checkpoint(dir.path()).unwrap(), None);
    }
}
