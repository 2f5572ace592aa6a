//! What is written, and what is rejected.

use model::{FloatHistogram, Sample};

use super::{oracle, *};
use crate::random::Random;
use crate::{Aggregates, Block, HistogramEncoder, VerifyEvent, Xor2Encoder, XorEncoder, verify_dir};

fn options() -> BlockOptions {
    BlockOptions::new(Ulid::from_parts(7, 7))
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

fn chunk(start: i64, samples: usize) -> Chunk {
    let mut encoder = XorEncoder::new();
    for number in 0..samples as i64 {
        encoder.append(Sample::new(start + number * 10, number as f64 * 1.1)).unwrap();
    }
    encoder.finish().unwrap()
}

fn assert_sound(dir: &Path) {
    verify_dir(dir, &mut |event| {
        if let VerifyEvent::Problem(error) = event {
            panic!("{error}");
        }
    });
}

/// Series whose labels vary in number, name and value.
fn series(count: usize) -> Vec<(Labels, Vec<Chunk>)> {
    let mut random = Random::seeded(5);
    let mut sets: Vec<Labels> = (0..count)
        .map(|number| {
            let mut pairs = vec![("id".to_owned(), number.to_string())];
            for _ in 0..random.below(6) {
                let name = format!("label_{}", random.below(9));
                if pairs.iter().all(|(other, _)| *other != name) {
                    pairs.push((name, "ü".repeat(random.below(5) + 1)));
                }
            }
            Labels::from_pairs(pairs).unwrap()
        })
        .collect();
    sets.sort();
    let chunks =
        |number: usize| (0..number % 4 + 1).map(|n| chunk(n as i64 * 10_000, 3 + number % 50)).collect();
    sets.into_iter().enumerate().map(|(number, labels)| (labels, chunks(number))).collect()
}

fn write(dir: &Path, options: BlockOptions, listed_at_once: Option<u64>) -> PathBuf {
    let mut writer = BlockWriter::create(dir, options).unwrap();
    if let Some(listed) = listed_at_once {
        writer.index.listed_at_once = listed;
    }
    for (labels, chunks) in series(500) {
        writer.add_series(&labels, chunks).unwrap();
    }
    let meta = writer.finish().unwrap();
    dir.join(meta.ulid.to_string())
}

#[test]
fn series_come_back_as_they_were_given() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), options(), None);
    assert_sound(&path);
    let block = Block::open(&path).unwrap();
    let mut read = block.select(&[], TimeRange::ALL).unwrap();
    for (labels, chunks) in series(500) {
        let series = read.next().unwrap().unwrap();
        assert_eq!((series.labels, block.chunks(&series.chunks).unwrap()), (labels, chunks));
    }
    assert!(read.next().is_none());
    let names: Vec<String> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names, [block.meta().ulid.to_string()], "nothing else is left");
}

#[test]
fn the_same_series_make_the_same_bytes_however_many_passes_the_lists_take() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let paths = [
        write(dirs[0].path(), options(), None),
        write(dirs[1].path(), options(), None),
        write(dirs[2].path(), options(), Some(100)),
    ];
    for file in ["index", "meta.json", "tombstones", "chunks/000001"] {
        let bytes = |path: &Path| std::fs::read(path.join(file)).unwrap();
        assert!(bytes(&paths[0]) == bytes(&paths[1]), "{file} differs from run to run");
        assert!(bytes(&paths[0]) == bytes(&paths[2]), "{file} differs with several passes");
    }
}

#[test]
fn the_index_is_the_one_that_the_format_describes() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), BlockOptions { segment_bytes: 5_000, ..options() }, None);
    let block = Block::open(&path).unwrap();
    let all = block.index().all_postings().unwrap();
    let series: Vec<_> = block.index().scan(all.into_iter()).collect::<Result<_, _>>().unwrap();
    assert!(std::fs::read(path.join("index")).unwrap() == oracle::index(&series), "the index differs");
}

/// The store of Thanos reads as many bytes of each entry.
#[test]
fn the_largest_entry_is_noted_with_its_length_and_padding() {
    let dir = tempfile::tempdir().unwrap();
    for count in [1, 300] {
        let parent = dir.path().join(count.to_string());
        fs::create_dir(&parent).unwrap();
        let options = BlockOptions { thanos: Some(ThanosMeta::default()), ..options() };
        let mut writer = BlockWriter::create(&parent, options).unwrap();
        series(count).into_iter().for_each(|(labels, chunks)| writer.add_series(&labels, chunks).unwrap());
        let meta = writer.finish().unwrap();
        let path = parent.join(meta.ulid.to_string()).join(INDEX_FILE);
        let file: std::sync::Arc<dyn crate::ReadAt> =
            std::sync::Arc::new(crate::LocalFile::open(&path).unwrap());
        let bytes = fs::read(&path).unwrap();
        let mut at =
            (crate::IndexSections::read(meta.ulid, &file).unwrap().symbols.end as usize).next_multiple_of(16);
        let mut largest = 0;
        for _ in 0..meta.stats.series {
            let mut cursor = crate::ByteCursor::new(&bytes[at..]);
            let length = cursor.uvarint().unwrap() as usize;
            let entry = (cursor.at() + length + 4).next_multiple_of(16);
            largest = largest.max(entry as u64);
            at += entry;
        }
        assert_eq!(meta.thanos.unwrap().index_stats.series_max_size, Some(largest), "{count} series");
    }
}

#[test]
fn segments_are_cut_before_they_are_too_large() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), BlockOptions { segment_bytes: 5_000, ..options() }, None);
    assert_sound(&path);
    let sizes: Vec<u64> = std::fs::read_dir(path.join("chunks"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .collect();
    assert!(sizes.len() > 10 && sizes.iter().all(|size| (8..=5_000).contains(size)), "{sizes:?}");
    let block = Block::open(&path).unwrap();
    let count: usize = block
        .select(&[], TimeRange::ALL)
        .unwrap()
        .map(|series| block.chunks(&series.unwrap().chunks).unwrap().len())
        .sum();
    assert_eq!(count as u64, block.meta().stats.chunks);
    // A chunk that is larger than the limit gets a segment of its own.
    let dir = tempfile::tempdir().unwrap();
    assert_sound(&write(dir.path(), BlockOptions { segment_bytes: 1, ..options() }, None));
}

#[test]
fn invalid_series_are_rejected_and_the_writer_continues() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = BlockWriter::create(dir.path(), options()).unwrap();
    writer.add_series(&labels(&[("a", "2")]), [chunk(0, 5)]).unwrap();
    let mut refused = |set: &[(&str, &str)], chunks: Vec<Chunk>| {
        writer.add_series(&labels(set), chunks).unwrap_err().to_string()
    };
    assert!(refused(&[("a", "2")], vec![chunk(0, 5)]).contains("must come before"));
    assert!(refused(&[("a", "1")], vec![chunk(0, 5)]).contains(r#"{a="1"} must come before {a="2"}"#));
    assert!(refused(&[], vec![chunk(0, 5)]).contains("no labels"));
    assert!(refused(&[("a", "3")], vec![chunk(0, 5), chunk(40, 5)]).contains("begins at 40"));
    let reversed = Chunk { range: TimeRange::new(Timestamp::EPOCH, Timestamp::MIN), ..chunk(0, 5) };
    assert!(refused(&[("a", "3")], vec![reversed]).contains("a chunk begins at 0"));
    writer.add_series(&labels(&[("a", "3")]), []).unwrap();
    writer.add_series(&labels(&[("a", "4")]), [chunk(0, 5), chunk(41, 5)]).unwrap();
    let meta = writer.finish().unwrap();
    assert_eq!((meta.stats.series, meta.stats.chunks, meta.stats.samples), (2, 3, 15));
    assert_eq!((meta.min_time, meta.max_time), (Timestamp::EPOCH, Timestamp::from_millis(82)));
    assert_sound(&dir.path().join(meta.ulid.to_string()));
    let error = BlockWriter::create(dir.path(), options()).err().unwrap().to_string();
    assert!(error.contains(&meta.ulid.to_string()) && error.contains("exists"), "{error}");
}

#[test]
fn a_block_that_is_not_finished_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let left = || std::fs::read_dir(dir.path()).unwrap().count();
    let mut writer = BlockWriter::create(dir.path(), options()).unwrap();
    writer.add_series(&labels(&[("a", "2")]), [chunk(0, 5)]).unwrap();
    assert_eq!(left(), 1);
    drop(writer);
    assert_eq!(left(), 0);

    let writer = BlockWriter::create(dir.path(), options()).unwrap();
    assert!(matches!(writer.finish(), Err(WriteError::Empty)));
    let times = Some((Timestamp::EPOCH, Timestamp::from_millis(40)));
    let mut writer = BlockWriter::create(dir.path(), BlockOptions { times, ..options() }).unwrap();
    writer.add_series(&labels(&[("a", "2")]), [chunk(0, 5)]).unwrap();
    let error = writer.finish().unwrap_err().to_string();
    assert!(error.contains("[0, 40)") && error.contains("from 0 to 40"), "{error}");
    assert_eq!(left(), 0);

    // The remains of a killed process are removed.
    let unfinished = dir.path().join(format!("{}{UNFINISHED_SUFFIX}", options().ulid));
    std::fs::create_dir_all(unfinished.join("chunks")).unwrap();
    std::fs::write(unfinished.join("index"), b"half").unwrap();
    assert_sound(&write(dir.path(), options(), None));
}

#[test]
fn a_write_that_fails_names_the_file_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = BlockWriter::create(dir.path(), options()).unwrap();
    // Something is where the first segment is to be.
    let chunks = dir.path().join(format!("{}{UNFINISHED_SUFFIX}/chunks", options().ulid));
    std::fs::create_dir(chunks.join("000001")).unwrap();
    let error = writer.add_series(&labels(&[("a", "1")]), [chunk(0, 5)]).unwrap_err().to_string();
    assert!(error.contains(&format!("write {}: ", chunks.display())), "{error}");
    let error = writer.finish().unwrap_err().to_string();
    assert!(error.contains("an earlier write failed"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let error = BlockWriter::create(&dir.path().join("none"), options()).err().unwrap().to_string();
    assert!(error.contains("none/"), "{error}");
}

#[test]
fn chunks_of_every_encoding_come_back_and_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = BlockWriter::create(dir.path(), options()).unwrap();
    let at = |number: i64| Timestamp::from_millis(number * 10);
    let mut xor2 = Xor2Encoder::new();
    let [mut integer, mut float, mut integer_st] =
        [HistogramEncoder::integer(), HistogramEncoder::float(), HistogramEncoder::integer_with_starts()];
    let mut histogram = FloatHistogram { schema: 1, count: 2.0, sum: 3.0, ..FloatHistogram::default() };
    histogram.positive_spans = vec![model::BucketSpan { offset: 0, length: 1 }];
    histogram.positive_buckets = vec![2.0];
    for number in 0..20 {
        xor2.append(Sample::new(number * 10, 0.5), Timestamp::EPOCH).unwrap();
        for encoder in [&mut integer, &mut float, &mut integer_st] {
            encoder.append(at(number), &histogram).unwrap();
        }
    }
    let part = Some(chunk(0, 20));
    let counter = Some(chunk(-5, 20));
    let aggregates =
        Aggregates { count: part.clone(), sum: part.clone(), min: part.clone(), max: part.clone(), counter };
    let range = chunk(0, 20).range;
    let chunks = [
        chunk(0, 20),
        xor2.finish().unwrap(),
        integer.finish().unwrap(),
        float.finish().unwrap(),
        integer_st.finish().unwrap(),
        aggregates.encode(range),
    ];
    for (number, chunk) in chunks.iter().enumerate() {
        writer.add_series(&labels(&[("a", &number.to_string())]), [chunk.clone()]).unwrap();
    }
    let meta = writer.finish().unwrap();
    let stats = &meta.stats;
    assert_eq!((stats.samples, stats.float_samples, stats.histogram_samples), (120, 40, 60));
    let path = dir.path().join(meta.ulid.to_string());
    assert_sound(&path);
    let block = Block::open(&path).unwrap();
    for (series, chunk) in block.select(&[], TimeRange::ALL).unwrap().zip(chunks) {
        assert_eq!(block.chunks(&series.unwrap().chunks).unwrap(), [chunk]);
    }
}

#[test]
fn a_downsampled_block_says_what_it_was_made_of() {
    let dir = tempfile::tempdir().unwrap();
    let parent = crate::BlockDesc {
        ulid: Ulid::from_parts(1, 1),
        min_time: Timestamp::from_millis(-50),
        max_time: Timestamp::from_millis(900),
    };
    let mut raw = BlockMeta::new(Ulid::from_parts(7, 1), parent.min_time, parent.max_time);
    raw.stats =
        BlockStats { samples: 90, float_samples: 70, histogram_samples: 20, tombstones: 4, ..raw.stats };
    raw.compaction =
        Compaction { level: 3, sources: vec![parent.ulid], parents: vec![parent], ..raw.compaction };
    raw.thanos = Some(ThanosMeta {
        labels: [("cluster".to_owned(), "c".to_owned())].into(),
        source: "sidecar".to_owned(),
        segment_files: vec!["000001".to_owned()],
        extensions: Some(serde_json::json!({"team": "a"})),
        upload_time: "2026-01-01T00:00:00Z".to_owned(),
        ..ThanosMeta::default()
    });
    let options = BlockOptions::downsampled(Ulid::from_parts(7, 2), &raw, Duration::from_secs(300));
    let mut writer = BlockWriter::create(dir.path(), options).unwrap();
    let part = Some(chunk(0, 20));
    let chunk = Aggregates { count: part.clone(), counter: part, ..Aggregates::default() };
    writer.add_series(&labels(&[("a", "1")]), [chunk.encode(self::chunk(0, 20).range)]).unwrap();
    let meta = writer.finish().unwrap();

    assert_eq!((meta.min_time, meta.max_time), (raw.min_time, raw.max_time));
    assert_eq!(meta.compaction, raw.compaction);
    assert_eq!(meta.resolution(), Duration::from_secs(300));
    let stats = (meta.stats.samples, meta.stats.float_samples, meta.stats.histogram_samples);
    assert_eq!((stats, meta.stats.tombstones), ((20, 70, 20), 0));
    let (old, new) = (raw.thanos.unwrap(), meta.thanos.unwrap());
    assert_eq!((&new.labels, &new.extensions), (&old.labels, &old.extensions));
    assert_eq!((new.source.as_str(), new.segment_files.len()), ("compactor", 0));
    assert_eq!(new.upload_time, ThanosMeta::NOT_UPLOADED);
}
