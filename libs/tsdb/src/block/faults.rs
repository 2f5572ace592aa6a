//! Damage to every part of a block: samples that are read are those that were written, and everything else is an error that
//! names the block and the part.
//!
//! `ISTHMUS_FAULTS` sets the number of bits that are flipped, one at a time (300 without it); `ISTHMUS_SEED` selects them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use model::{MatchOp, Timestamp};

use super::*;
use crate::index::testing::checked_spans;
use crate::random::Random;
use crate::{BlockOptions, SeriesRef, Workload};

/// The files of a block, in memory.
#[derive(Clone)]
struct BlockFiles {
    id: Ulid,
    meta: Vec<u8>,
    index: Vec<u8>,
    segments: Vec<Vec<u8>>,
    tombstones: Vec<u8>,
}

/// A file of [`BlockFiles`] by number: meta, index, tombstones, then segments.
const META: usize = 0;
const INDEX: usize = 1;
const TOMBSTONES: usize = 2;
const SEGMENTS: usize = 3;

/// Samples by series: time, and the bits of the value or of its text.
type SamplesBySeries = BTreeMap<String, Vec<(i64, u64)>>;

impl BlockFiles {
    /// A block with several segments, all kinds of samples, and deletions.
    fn generate(seed: u64, series: u64) -> Self {
        Self::generate_of(Workload {
            seed,
            series,
            labels: 9,
            churn: 0.4,
            interval: Duration::from_secs(45),
            jitter: Duration::from_millis(seed % 5),
            histograms: 0.2,
            ..Workload::default()
        })
    }

    fn generate_of(workload: Workload) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let seed = workload.seed;
        let id = Ulid::from_parts(5, u128::from(seed));
        let options = BlockOptions { segment_bytes: 6_000, ..BlockOptions::new(id) };
        let mut meta = workload.write(dir.path(), options, &mut |_| {}).unwrap();
        let path = dir.path().join(id.to_string());
        let mut stones = Tombstones::default();
        let block = Block::open(&path).unwrap();
        for series in block.index().all_postings().unwrap().iter().skip(3).step_by(10 * seed as usize) {
            let begin = workload.start.offset_millis(600_000);
            stones.delete(series, TimeRange::new(begin, begin.offset_millis(900_000)));
        }
        meta.stats.tombstones = stones.count();
        let read = |file: PathBuf| std::fs::read(path.join(file)).unwrap();
        let segments = (0..block.segments.count() as u32).map(segment_file_name);
        let segments: Vec<Vec<u8>> = segments.map(|name| read(Path::new(CHUNKS_DIR).join(name))).collect();
        assert!(segments.len() > 2);
        Self {
            id,
            meta: meta.to_json(),
            index: read(INDEX_FILE.into()),
            segments,
            tombstones: stones.to_bytes(),
        }
    }

    fn count(&self) -> usize {
        SEGMENTS + self.segments.len()
    }

    fn file(&mut self, number: usize) -> &mut Vec<u8> {
        match number {
            META => &mut self.meta,
            INDEX => &mut self.index,
            TOMBSTONES => &mut self.tombstones,
            segment => &mut self.segments[segment - SEGMENTS],
        }
    }

    fn open(&self) -> Result<Block, BlockError> {
        let place = BlockLocation::new(&Arc::from(self.id.to_string()), BlockPart::Meta);
        let meta = BlockMeta::parse(&self.meta).map_err(|e| place.error(None, BlockProblem::Meta(e)))?;
        let part = |bytes: &Vec<u8>| -> Arc<dyn ReadAt> { Arc::new(Bytes::from(bytes.clone())) };
        let segments = self.segments.iter().map(part).collect();
        let (index, tombstones) = (part(&self.index), Some(part(&self.tombstones)));
        let parts = BlockParts { meta, index, segments, tombstones, index_memory: IndexMemory::default() };
        Block::from_parts(self.id, parts)
    }
}

/// All samples that match, and all errors.
fn read(block: &Block, matchers: &[Matcher]) -> (SamplesBySeries, Vec<BlockError>) {
    let (mut out, mut errors) = (SamplesBySeries::new(), Vec::new());
    let select = match block.select(matchers, TimeRange::ALL) {
        Ok(select) => select,
        Err(error) => return (out, vec![error]),
    };
    for series in select {
        let read = series.and_then(|series| Ok((block.chunks(&series.chunks)?, series)));
        let (chunks, series) = match read {
            Ok(read) => read,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        let mut samples = Vec::new();
        for chunk in &chunks {
            if chunk.encoding.holds_floats() {
                let (mut timestamps, mut values) = (Vec::new(), Vec::new());
                chunk.decode_floats(&mut timestamps, &mut values).unwrap();
                samples.extend(timestamps.into_iter().zip(values.into_iter().map(f64::to_bits)));
            } else {
                let mut histograms = Vec::new();
                chunk.decode_histograms(&mut histograms).unwrap();
                samples.extend(histograms.iter().map(|(t, h)| (*t, h.sum.to_bits() ^ h.count.to_bits())));
            }
        }
        samples.retain(|(t, _)| !series.is_deleted(Timestamp::from_millis(*t)));
        out.insert(series.labels.to_string(), samples);
    }
    (out, errors)
}

fn selectors() -> Vec<Vec<Matcher>> {
    let matcher = |op, name, value| Matcher::new(op, name, value).unwrap();
    vec![
        vec![],
        vec![matcher(MatchOp::Equal, "job", "api"), matcher(MatchOp::Regex, "pod", "a.*")],
        vec![matcher(MatchOp::NotEqual, "job", "api")],
        vec![matcher(MatchOp::Regex, "zone", ".*b"), matcher(MatchOp::NotRegex, "pod", "[a-m].*")],
    ]
}

/// The answers of the undamaged block to all selectors.
fn expected(files: &BlockFiles) -> Vec<SamplesBySeries> {
    let block = files.open().unwrap();
    let answer = |matchers: &Vec<Matcher>| {
        let (samples, errors) = read(&block, matchers);
        assert!(errors.is_empty() && !samples.is_empty(), "{errors:?}");
        samples
    };
    selectors().iter().map(answer).collect()
}

/// Reads a damaged block in every way. Returns whether the damage was detected.
fn survives(files: &BlockFiles, expected: &[SamplesBySeries], what: &str) -> bool {
    let id = files.id.to_string();
    let names = |error: &BlockError| {
        let told = error.to_string();
        assert!(told.starts_with(&format!("block {id}: ")), "{what}: {told}");
        assert!(error.is_damage(), "{what}: {told}");
    };
    let block = match files.open() {
        Ok(block) => block,
        Err(error) => {
            names(&error);
            return true;
        }
    };
    let mut is_noticed = false;
    for (matchers, expected) in selectors().iter().zip(expected) {
        let (samples, errors) = read(&block, matchers);
        errors.iter().for_each(names);
        for (series, samples) in &samples {
            assert_eq!(Some(samples), expected.get(series), "{what}: {series} is wrong");
        }
        if errors.is_empty() {
            assert_eq!(samples.len(), expected.len(), "{what}: series are missing without an error");
        }
        is_noticed |= !errors.is_empty();
    }
    let mut problems = Vec::new();
    block.verify(&mut |event| {
        if let VerifyEvent::Problem(error) = event {
            problems.push(error);
        }
    });
    problems.iter().for_each(names);
    assert!(!is_noticed || !problems.is_empty(), "{what}: reading fails, verifying does not");
    is_noticed || !problems.is_empty()
}

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn no_flipped_bit_gives_a_wrong_sample() {
    let (flips, seed) = (from_env("ISTHMUS_FAULTS", 300), from_env("ISTHMUS_SEED", 1));
    println!("{flips} flips, seed {seed}");
    let files = BlockFiles::generate(seed, 150);
    let expected = expected(&files);
    let mut random = Random::seeded(seed);
    let mut noticed = BTreeMap::<usize, (u32, u32)>::new();
    for round in 0..flips {
        let mut damaged = files.clone();
        // Each file equally often, although segments are by far the largest.
        let number =
            [META, INDEX, INDEX, TOMBSTONES, SEGMENTS + random.below(files.segments.len())][random.below(5)];
        let file = damaged.file(number);
        let bit = random.below(file.len() * 8);
        file[bit / 8] ^= 1 << (bit % 8);
        let what = format!("seed {seed}, round {round}: bit {bit} of file {number}");
        let count = noticed.entry(number).or_default();
        count.0 += 1;
        count.1 += u32::from(survives(&damaged, &expected, &what));
    }
    println!("file: (flips, noticed) {noticed:?}");
    for (number, (flips, noticed)) in noticed {
        // Damage that is not detected has no effect: padding, and in meta.json times that are too wide, and remarks.
        let least = if number == META { 2 } else { 10 };
        assert!(noticed * 10 >= flips * least.min(9), "file {number}: {noticed} of {flips} were noticed");
    }
}

#[test]
fn no_truncated_or_extended_file_gives_a_wrong_sample() {
    let files = BlockFiles::generate(2, 60);
    let expected = expected(&files);
    let mut random = Random::seeded(2);
    for number in 0..files.count() {
        for round in 0..60 {
            let mut damaged = files.clone();
            let file = damaged.file(number);
            let length = match round {
                0..8 => round,
                8..16 => file.len() - 1 - (round - 8),
                _ => random.below(file.len()),
            };
            file.truncate(length);
            // Without its last newline, meta.json is still complete.
            let is_whole = number == META && length + 1 == files.meta.len();
            let noticed = survives(&damaged, &expected, &format!("file {number} cut to {length}"));
            assert!(noticed || is_whole, "file {number} cut to {length}: not noticed");
        }
        let mut damaged = files.clone();
        damaged.file(number).push(7);
        assert!(survives(&damaged, &expected, &format!("file {number} extended")), "file {number} extended");
    }
    let mut missing = files.clone();
    missing.segments.pop();
    assert!(survives(&missing, &expected, "without the last segment"));
}

#[test]
fn no_file_of_another_block_gives_a_wrong_sample() {
    let (mut one, mut other) = (BlockFiles::generate(3, 120), BlockFiles::generate(4, 120));
    let least = one.segments.len().min(other.segments.len());
    let expected = expected(&one);
    for number in 0..SEGMENTS + least {
        let mut mixed = one.clone();
        *mixed.file(number) = other.file(number).clone();
        let what = format!("file {number} of another block");
        assert!(survives(&mixed, &expected, &what), "{what}: not noticed");
    }
    let mut mixed = one.clone();
    mixed.segments = other.segments.clone();
    assert!(survives(&mixed, &expected, "all segments of another block"));
    one.segments.swap(0, 1);
    assert!(survives(&one, &expected, "two segments in each other's place"));
}

/// The same series two hours later: segments of equal sizes, and chunks at the same places.
#[test]
fn segments_of_another_time_are_rejected_whatever_they_contain() {
    for histograms in [0.0, 1.0] {
        let now =
            Workload { seed: 7, series: 120, labels: 9, gauges: 0.0, histograms, ..Workload::default() };
        let later = Workload { start: now.start.offset_millis(7_200_000), ..now.clone() };
        let (mut block, other) = (BlockFiles::generate_of(now), BlockFiles::generate_of(later));
        let sizes = |files: &BlockFiles| files.segments.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(&block), sizes(&other), "otherwise the sizes would tell");
        let expected = expected(&block);
        block.segments = other.segments;
        assert!(survives(&block, &expected, "segments of two hours later"), "histograms {histograms}");
    }
}

#[test]
fn verification_reports_wrong_times_and_counts_in_meta() {
    let files = BlockFiles::generate(5, 60);
    let said = |change: &dyn Fn(&mut BlockMeta)| -> Vec<String> {
        let mut files = files.clone();
        let mut meta = BlockMeta::parse(&files.meta).unwrap();
        change(&mut meta);
        files.meta = meta.to_json();
        let mut told = Vec::new();
        match files.open() {
            Err(error) => told.push(error.to_string()),
            Ok(block) => {
                block.verify(&mut |event| {
                    if let VerifyEvent::Problem(error) = event {
                        told.push(error.to_string());
                    }
                });
            }
        }
        told
    };
    assert_eq!(said(&|_| {}), Vec::<String>::new());
    let downsampled = said(&|meta| {
        meta.thanos.get_or_insert_default().downsample.resolution_millis = 300_000;
        meta.stats.float_samples += 1000;
        meta.stats.histogram_samples += 1000;
    });
    assert_eq!(downsampled, Vec::<String>::new(), "Thanos keeps these counts of the raw block");
    let first = BlockMeta::parse(&files.meta).unwrap().min_time;
    for (change, part) in [
        (
            &(|meta: &mut BlockMeta| meta.min_time = first.offset_millis(3_600_000))
                as &dyn Fn(&mut BlockMeta),
            "but the block has samples",
        ),
        (&|meta| meta.max_time = first.offset_millis(3_600_000), "but the block has samples"),
        (&|meta| meta.stats.samples += 1, " samples, but "),
        (&|meta| meta.stats.histogram_samples -= 1, " histogram samples, but "),
        (&|meta| meta.stats.chunks += 1, " chunks, but "),
        (&|meta| meta.stats.series += 1, "but the index has 60"),
        (&|meta| meta.stats.tombstones += 1, "deleted intervals"),
        (&|meta| meta.ulid = Ulid::from_parts(1, 1), "belongs to another block"),
        (
            &|meta| {
                let file =
                    crate::FileMeta { rel_path: "chunks/000001".into(), size_bytes: Some(1), hash: None };
                meta.thanos = Some(crate::ThanosMeta { files: vec![file], ..Default::default() });
            },
            "chunks/000001 has",
        ),
    ] {
        let told = said(change);
        assert!(told.len() == 1 && told[0].contains(part) && told[0].contains("meta"), "{part}: {told:?}");
    }
}

/// Changes bytes and corrects the checksum, as an attacker or a program with a bug would write them.
#[test]
fn invalid_content_with_correct_checksums_does_not_panic() {
    let (rounds, seed) = (from_env("ISTHMUS_FAULTS", 300), from_env("ISTHMUS_SEED", 1));
    let files = BlockFiles::generate(seed, 100);
    let spans: Vec<Range<usize>> = checked_spans(&files.index);
    assert!(spans.len() > 200, "{}", spans.len());
    let mut random = Random::seeded(seed);
    let mut refused = 0;
    for _ in 0..rounds {
        let mut damaged = files.clone();
        // The few large spans are chosen as often as the many small ones.
        let span = match random.below(4) {
            0 => spans[random.below(3)].clone(),
            _ => spans[random.below(spans.len())].clone(),
        };
        for _ in 0..1 + random.below(3) {
            let at = span.start + random.below(span.len());
            damaged.index[at] = match random.below(3) {
                0 => 0xff,
                1 => damaged.index[at] ^ 1 << random.below(8),
                _ => random.next() as u8,
            };
        }
        let checksum = crc32c::crc32c(&damaged.index[span.clone()]);
        damaged.index[span.end..span.end + 4].copy_from_slice(&checksum.to_be_bytes());
        let block = match damaged.open() {
            Ok(block) => block,
            Err(_) => {
                refused += 1;
                continue;
            }
        };
        for matchers in selectors() {
            let Ok(select) = block.select(&matchers, TimeRange::ALL) else { continue };
            for series in select.flatten().take(200) {
                let _ = block.chunks(&series.chunks);
            }
        }
        for name in ["job", "pod", "__name__"] {
            let _ = block.index().label_values(name);
        }
        let _ = block.index().series(SeriesRef(random.next() as u32 % (damaged.index.len() as u32 / 16)));
        refused += u32::from(block.verify(&mut |_| {}).problems > 0);
    }
    assert!(u64::from(refused) > rounds / 2, "{refused} of {rounds} were noticed");
}

#[test]
fn invalid_chunks_with_correct_checksums_do_not_panic() {
    let (rounds, seed) = (from_env("ISTHMUS_FAULTS", 300), from_env("ISTHMUS_SEED", 1));
    let files = BlockFiles::generate(seed, 40);
    let block = files.open().unwrap();
    let metas: Vec<ChunkMeta> =
        block.select(&[], TimeRange::ALL).unwrap().flat_map(|series| series.unwrap().chunks).collect();
    let mut random = Random::seeded(seed);
    let mut refused = 0;
    for _ in 0..rounds {
        let mut damaged = files.clone();
        let meta = metas[random.below(metas.len())];
        let end = block.segments.record_end(meta.reference).unwrap() as usize - 4;
        let segment = &mut damaged.segments[meta.reference.segment() as usize];
        // After the length, which has at most two bytes.
        let begin = meta.reference.offset() as usize;
        let begin = begin + 1 + usize::from(segment[begin] >= 0x80);
        for _ in 0..1 + random.below(4) {
            let at = if random.below(3) == 0 {
                begin + random.below(4)
            } else {
                begin + random.below(end - begin)
            };
            segment[at] = random.next() as u8;
        }
        let checksum = crc32c::crc32c(&segment[begin..end]);
        segment[end..end + 4].copy_from_slice(&checksum.to_be_bytes());
        let block = damaged.open().unwrap();
        if let Ok(chunk) = block.chunk(&meta) {
            let (mut timestamps, mut values, mut histograms) = (Vec::new(), Vec::new(), Vec::new());
            let _ = chunk.decode_floats(&mut timestamps, &mut values);
            let _ = chunk.decode_histograms(&mut histograms);
            let _ = chunk.aggregates();
        }
        refused += u32::from(block.verify(&mut |_| {}).problems > 0);
    }
    // Another value is also valid.
    assert!(u64::from(refused) > rounds / 4, "{refused} of {rounds} were noticed");
}

#[test]
fn invalid_small_files_do_not_panic() {
    let files = BlockFiles::generate(6, 60);
    let mut random = Random::seeded(6);
    let place = BlockLocation::new(&Arc::from("b"), BlockPart::Tombstones);
    for _ in 0..5_000 {
        let mut meta = files.meta.clone();
        let mut stones = files.tombstones.clone();
        for _ in 0..1 + random.below(5) {
            let at = random.below(meta.len());
            meta[at] = random.next() as u8;
            let at = 5 + random.below(stones.len() - 9);
            stones[at] = random.next() as u8;
        }
        let _ = BlockMeta::parse(&meta).map(|meta| meta.to_json());
        let end = stones.len() - 4;
        let checksum = crc32c::crc32c(&stones[5..end]);
        stones[end..].copy_from_slice(&checksum.to_be_bytes());
        if let Ok(stones) = Tombstones::parse(&place, &stones) {
            // Intervals of series that no index can have are not written again.
            let again = Tombstones::parse(&place, &stones.to_bytes()).unwrap();
            assert_eq!(again.count() + stones.beyond(), stones.count());
            assert!(stones.beyond() > 0 || again == stones);
        }
    }
}
