//! Damaged blocks: what is salvaged is compared with the undamaged block and with what a real promtool reads.

use std::collections::BTreeSet;
use std::ops::Range;

use tsdb::{Block, BlockMeta, BlockOptions, SeriesRef, ThanosMeta, Tombstones, Ulid, Workload, verify_dir};

use super::*;

/// A block with 24 chunks in 3 segments, and what was done to it.
struct DamagedBlock {
    dir: tempfile::TempDir,
    id: Ulid,
}

const SERIES: u64 = 8;
/// Samples of a series, in three chunks.
const SAMPLES: usize = 360;

impl DamagedBlock {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        fs::create_dir_all(data.join("wal")).unwrap();
        let (id, start) =
            (Ulid::from_parts(1_700_000_000_000, 1), model::Timestamp::from_millis(1_700_006_400_000));
        let length = std::time::Duration::from_secs(20 * SAMPLES as u64);
        let interval = std::time::Duration::from_secs(20);
        let workload = Workload {
            series: SERIES,
            series_per_target: 2,
            gauges: 1.0,
            jitter: std::time::Duration::from_millis(900),
            start,
            interval,
            duration: length,
            ..Workload::default()
        };
        let mut options = BlockOptions::new(id);
        options.segment_bytes = 3000;
        let labels = [("cluster".to_owned(), "eu-1".to_owned())].into();
        options.thanos = Some(ThanosMeta { labels, ..ThanosMeta::default() });
        let meta = workload.write(&data, options, &mut |_| {}).unwrap();
        assert_eq!(meta.stats.chunks, 3 * SERIES);
        let block = Self { dir, id };
        let sizes =
            fs::read_dir(block.path("chunks")).unwrap().map(|file| file.unwrap().metadata().unwrap().len());
        let sizes: Vec<u64> = sizes.collect();
        assert_eq!(sizes.len(), 3, "{sizes:?}");
        block
    }

    fn block(&self) -> PathBuf {
        self.dir.path().join("data").join(self.id.to_string())
    }

    fn path(&self, file: &str) -> PathBuf {
        self.block().join(file)
    }

    fn change(&self, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path(file)).unwrap();
        change(&mut bytes);
        fs::write(self.path(file), bytes).unwrap();
    }

    /// Changes bodies of entries of the index, whose checksums are corrected.
    fn change_series(&self, change: impl FnOnce(&mut Vec<u8>, &[Range<usize>])) {
        self.change("index", |bytes| {
            let bodies = bodies(bytes);
            assert_eq!(bodies.len() as u64, SERIES);
            change(bytes, &bodies);
            for body in bodies {
                correct(bytes, body);
            }
        });
    }

    fn salvage(&self, more: &[&str]) -> Done {
        let (block, out) =
            (self.block().display().to_string(), self.dir.path().join("out").display().to_string());
        tools(&[&["block", "salvage", &block, "--output-dir", &out][..], more].concat())
    }

    /// The salvaged block.
    fn salvaged(&self) -> PathBuf {
        self.dir.path().join("out").join(crate::salvage::new_id(self.id).to_string())
    }
}

/// The sections of an index, from its table of contents.
fn contents(index: &[u8]) -> Vec<usize> {
    let at = index.len() - 52;
    let offsets = index[at..at + 48].as_chunks::<8>().0.iter();
    offsets.map(|offset| u64::from_be_bytes(*offset) as usize).collect()
}

/// The bodies of all entries of an index of fewer than 128 symbols.
fn bodies(index: &[u8]) -> Vec<Range<usize>> {
    let contents = contents(index);
    let (mut at, end) = (contents[1].next_multiple_of(16), contents[4]);
    let mut bodies = Vec::new();
    while at + 16 < end {
        // Lengths of one or two bytes.
        let (length, head) = match index[at] {
            low if low < 0x80 => (usize::from(low), 1),
            low => (usize::from(low & 0x7f) | usize::from(index[at + 1]) << 7, 2),
        };
        bodies.push(at + head..at + head + length);
        at = (at + head + length + 4).next_multiple_of(16);
    }
    bodies
}

/// Writes the checksum of `range` after it.
fn correct(bytes: &mut [u8], range: Range<usize>) {
    let checksum = crc32c::crc32c(&bytes[range.clone()]);
    bytes[range.end..range.end + 4].copy_from_slice(&checksum.to_be_bytes());
}

/// The range of the labels in the body of an entry, with their number.
fn labels(bytes: &[u8], body: &Range<usize>) -> Range<usize> {
    body.start..body.start + 1 + 2 * usize::from(bytes[body.start])
}

/// What `promtool tsdb dump` prints of the blocks in a folder, sorted, each line once. `None` if it fails, or is not installed.
fn promtool(data: &Path) -> Option<BTreeSet<String>> {
    fs::create_dir_all(data.join("wal")).unwrap();
    let output = Command::new("promtool").args(["tsdb", "dump"]).arg(data).output().ok()?;
    let lines = String::from_utf8(output.stdout).unwrap();
    // Go escapes bytes that are not UTF-8, and prints labels as they are sorted in the index.
    let sorted = |line: &str| {
        let (labels, sample) = line[1..].rsplit_once("} ").unwrap();
        let mut labels: Vec<&str> = labels.split(", ").collect();
        labels.sort_unstable();
        format!("{{{}}} {sample}", labels.join(", ")).replace("\\xff", "\u{fffd}")
    };
    let lines = lines.lines().map(sorted).collect();
    output.status.success().then_some(lines)
}

/// What we read of a good block, in the format of promtool.
fn dump(block: &Path) -> BTreeSet<String> {
    let text = tools(&["block", "dump", &block.display().to_string()]).fine();
    let lines: BTreeSet<String> = text.lines().map(ToOwned::to_owned).collect();
    assert_eq!(lines.len(), text.lines().count(), "a sample twice");
    lines
}

/// Damages a block, salvages it, and compares. `lost` is the number of lost samples. Returns the report.
#[track_caller]
fn check(what: &str, lost: usize, damage: impl FnOnce(&DamagedBlock)) -> String {
    let block = DamagedBlock::new();
    let before = dump(&block.block());
    assert_eq!(before.len(), SERIES as usize * SAMPLES);
    damage(&block);
    let theirs = promtool(&block.dir.path().join("data"));
    let planned = block.salvage(&["--dry-run"]);
    assert!(!block.salvaged().exists(), "{what}: a dry run wrote a block");
    let done = block.salvage(&[]);
    assert_eq!(planned.text.replace("would be salvaged", "salvaged").len() > 100, done.text.len() > 100);
    let text = if done.text.contains("lost: ") { done.found() } else { done.fine() };

    let new = block.salvaged();
    let mut problems = Vec::new();
    verify_dir(&new, &mut |event| problems.push(format!("{event:?}")));
    problems.retain(|problem| !problem.starts_with("Progress"));
    assert!(problems.is_empty(), "{what}: {problems:?}");
    let ours = dump(&new);
    let kept = ours.intersection(&before).count();
    assert!(kept == ours.len() || what == "unsorted series", "{what}: a wrong sample\n{text}");
    println!(
        "{what}: {kept} of {} samples, promtool reads {:?}",
        before.len(),
        theirs.as_ref().map(BTreeSet::len)
    );
    assert_eq!(ours.len(), before.len() - lost, "{what}: {text}");
    // Without a segment, promtool reads chunks of the next one: samples of other series.
    if let Some(theirs) = theirs.filter(|_| what != "a missing segment") {
        let missing: Vec<&String> = theirs.difference(&ours).take(3).collect();
        assert!(missing.is_empty(), "{what}: promtool reads {missing:?}\n{text}");
        // promtool reads the same from the new block as we do.
        assert_eq!(promtool(&block.dir.path().join("out")).unwrap(), ours, "{what}");
    }
    let row = text.lines().last().unwrap();
    let samples = row.split('|').rev().nth(2).unwrap().trim().replace(',', "");
    assert_eq!(samples, lost.to_string(), "{what}: lost samples in {text}");
    text
}

#[test]
fn the_number_of_printed_lines_is_limited_and_the_rest_is_counted() {
    let block = DamagedBlock::new();
    fs::remove_file(block.path("chunks/000002")).unwrap();
    block.change("chunks/000001", |bytes| bytes.truncate(100));
    let text = block.salvage(&["--limit=1"]).found();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("problem: ") && lines[1].starts_with("lost: "), "{text}");
    assert!(lines[2].starts_with("... and ") && lines[2].ends_with(" more lines"), "{text}");
    assert_eq!(lines.len(), 6, "{text}");
}

#[test]
fn a_good_block_is_not_salvaged() {
    let block = DamagedBlock::new();
    let text = block.salvage(&[]).fine();
    assert!(text.contains("nothing to salvage: the block is good"), "{text}");
    assert!(!block.salvaged().exists());
}

#[test]
fn damaged_chunks_are_lost_and_named_and_all_others_are_kept() {
    let text = check("a flipped bit in a chunk", 120, |block| block.change("chunks/000001", |b| b[40] ^= 4));
    assert!(text.contains("lost: series ") && text.contains("in chunks/000001 bytes 8 to "), "{text}");
    assert!(text.contains("checksum is "), "{text}");
    check("a flipped bit in the length of a chunk", 120, |block| {
        block.change("chunks/000001", |b| b[8] ^= 1)
    });
    check("a truncated segment", 120, |block| block.change("chunks/000002", |b| b.truncate(b.len() - 1)));
    let text = check("a damaged segment header", 0, |block| block.change("chunks/000002", |b| b[0] ^= 1));
    assert!(text.contains("problem: ") && !text.contains("lost: "), "{text}");
    check("a zero tail", 0, |block| block.change("chunks/000002", |b| b.resize(b.len() + 5000, 0)));
    check("garbage at the end", 0, |block| block.change("chunks/000003", |b| b.extend(b"garbage")));
    // A page of zeros within a segment.
    let whole = DamagedBlock::new();
    let chunks = chunk_starts(&whole, 1);
    let (first, last) = (chunks[1] + 1, chunks[3] + 2);
    check("zeros in a segment", 360, |block| block.change("chunks/000002", |b| b[first..last].fill(0)));
    let in_first = chunk_starts(&whole, 0).len();
    let text = check("a missing segment", 120 * in_first, |block| {
        fs::remove_file(block.path("chunks/000001")).unwrap()
    });
    assert!(text.contains("the segment is missing"), "{text}");
}

/// Where the chunks of a segment begin.
fn chunk_starts(block: &DamagedBlock, segment: u32) -> Vec<usize> {
    let block = Block::open(&block.block()).unwrap();
    let series = block.select(&[], model::TimeRange::ALL).unwrap();
    let chunks = series.flat_map(|series| series.unwrap().chunks);
    let own = chunks.filter(|chunk| chunk.reference.segment() == segment);
    own.map(|chunk| chunk.reference.offset() as usize).collect()
}

#[test]
fn a_chunk_that_ends_early_is_kept_up_to_its_last_sample() {
    let text = check("a chunk that counts too many samples", 0, |block| {
        let starts = chunk_starts(block, 0);
        block.change("chunks/000001", |bytes| {
            // The record: a length of one or two bytes, the encoding, the payload, the checksum.
            let at = starts[0] + if bytes[starts[0]] < 0x80 { 1 } else { 2 };
            bytes[at + 2] += 100;
            correct(bytes, at..starts[1] - 4);
        });
    });
    assert!(text.contains("120 of 220 samples were read"), "{text}");
}

#[test]
fn series_that_are_unsorted_twice_or_damaged_are_put_in_order() {
    let text = check("unsorted series", 0, |block| {
        block.change_series(|bytes, bodies| {
            let (a, b) = (labels(bytes, &bodies[0]), labels(bytes, &bodies[5]));
            let (first, second) = (bytes[a.clone()].to_vec(), bytes[b.clone()].to_vec());
            bytes[a].copy_from_slice(&second);
            bytes[b].copy_from_slice(&first);
        });
    });
    assert!(text.contains("does not sort after the one before it"), "{text}");

    check("unsorted labels", 0, |block| {
        block.change_series(|bytes, bodies| {
            let own = labels(bytes, &bodies[3]);
            bytes[own.start + 1..own.start + 5].rotate_left(2);
        });
    });
    let text = check("a damaged entry", SAMPLES, |block| {
        block.change("index", |bytes| {
            let body = bodies(bytes)[2].clone();
            bytes[body.end - 1] ^= 1;
        });
    });
    assert!(
        text.contains("lost: index, series at byte ") && text.contains("no series can be read from here"),
        "{text}"
    );
    check("three damaged entries", 3 * SAMPLES, |block| {
        block.change("index", |bytes| {
            let bodies = bodies(bytes);
            bytes[bodies[3].start..bodies[5].end].fill(0);
        });
    });
    check("damaged postings lists", 0, |block| {
        block.change("index", |bytes| {
            let at = contents(bytes)[4];
            bytes[at + 9] ^= 0x55;
        });
    });
    check("a damaged postings offset table", 0, |block| {
        block.change("index", |bytes| {
            let at = contents(bytes)[5];
            bytes[at + 12] ^= 0x55;
        });
    });
}

#[test]
fn series_with_equal_labels_are_joined() {
    // Two series, each with samples of its own.
    let block = DamagedBlock::new();
    block.change_series(|bytes, bodies| {
        let (a, b) = (labels(bytes, &bodies[2]), labels(bytes, &bodies[6]));
        let first = bytes[a].to_vec();
        bytes[b].copy_from_slice(&first);
    });
    let theirs = promtool(&block.dir.path().join("data"));
    let text = block.salvage(&[]).fine();
    assert!(text.contains("does not sort after the one before it"), "{text}");
    let ours = dump(&block.salvaged());
    assert_eq!(ours.len(), SERIES as usize * SAMPLES);
    assert!(theirs.is_none_or(|theirs| theirs == ours));

    // The same chunks twice: nothing is lost.
    let block = DamagedBlock::new();
    block.change_series(|bytes, bodies| {
        let pairs = bodies.iter().enumerate().flat_map(|(i, a)| bodies[i + 1..].iter().map(move |b| (a, b)));
        let (a, b) =
            pairs.into_iter().find(|(a, b)| a.len() == b.len()).expect("two entries of equal length");
        let first = bytes[a.clone()].to_vec();
        bytes[b.clone()].copy_from_slice(&first);
    });
    let theirs = promtool(&block.dir.path().join("data"));
    let text = block.salvage(&["--output=json"]).fine();
    let rows: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(rows[0]["samplesDuplicate"], SAMPLES, "{rows}");
    assert_eq!(rows[0]["samplesKept"], (SERIES as usize - 1) * SAMPLES, "{rows}");
    assert!(theirs.is_none_or(|theirs| theirs == dump(&block.salvaged())));
}

#[test]
fn chunks_of_a_series_that_are_out_of_order_are_sorted() {
    // The first two chunks of a series change places; in the index, the second then begins before the end of the first.
    let block = DamagedBlock::new();
    let before = dump(&block.block());
    block.change("index", |bytes| {
        let bodies = bodies(bytes);
        let body = bodies[1].clone();
        let chunks = labels(bytes, &body).end;
        let entry = Block::open(&block.block()).unwrap();
        let series = entry.select(&[], model::TimeRange::ALL).unwrap().nth(1).unwrap().unwrap();
        let mut out = bytes[body.start..chunks].to_vec();
        out.push(3);
        let mut last: Option<tsdb::ChunkMeta> = None;
        for index in [1, 0, 2] {
            let chunk = series.chunks[index];
            let (min, max) = (chunk.range.min.as_millis(), chunk.range.max.as_millis());
            match last {
                None => put_varint(&mut out, min),
                Some(last) => put_uvarint(&mut out, (min - last.range.max.as_millis()) as u64),
            }
            put_uvarint(&mut out, (max - min) as u64);
            match last {
                None => put_uvarint(&mut out, chunk.reference.0),
                Some(last) => put_varint(&mut out, chunk.reference.0 as i64 - last.reference.0 as i64),
            }
            last = Some(chunk);
        }
        // The entry became longer; it may use the space of the one after it, which is then lost.
        let (from, length) = (body.start / 16 * 16, out.len());
        let end = bodies[2].end + 4;
        assert!(length + 6 < end - from);
        bytes[from..end].fill(0);
        bytes[from] = (length & 0x7f) as u8 | 0x80;
        bytes[from + 1] = (length >> 7) as u8;
        bytes[from + 2..from + 2 + length].copy_from_slice(&out);
        let checksum = crc32c::crc32c(&out);
        bytes[from + 2 + length..from + 6 + length].copy_from_slice(&checksum.to_be_bytes());
    });
    let theirs = promtool(&block.dir.path().join("data"));
    let text = block.salvage(&[]).found();
    assert!(text.contains("the one before it ends at"), "{text}");
    let ours = dump(&block.salvaged());
    assert!(ours.is_subset(&before));
    assert_eq!(ours.len(), (SERIES as usize - 1) * SAMPLES);
    assert!(theirs.is_none_or(|theirs| theirs.is_subset(&ours)), "{text}");
}

fn put_uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    put_uvarint(out, ((value << 1) ^ (value >> 63)) as u64);
}

#[test]
fn bytes_of_labels_that_are_not_utf_8_are_replaced() {
    let block = DamagedBlock::new();
    block.change("index", |bytes| {
        let contents = contents(bytes);
        let word = b"node-0000";
        let at = bytes.windows(word.len()).position(|window| window == word).unwrap();
        assert!(at < contents[1]);
        bytes[at + word.len() - 1] = 0xff;
        let (start, length) =
            (contents[0] + 4, u32::from_be_bytes(bytes[contents[0]..][..4].try_into().unwrap()));
        correct(bytes, start..start + length as usize);
    });
    let theirs = promtool(&block.dir.path().join("data"));
    let text = block.salvage(&[]).fine();
    assert!(
        text.contains("changed: series ") && text.contains("label \"node\" that are not UTF-8 were replaced"),
        "{text}"
    );
    let ours = dump(&block.salvaged());
    assert_eq!(ours.len(), SERIES as usize * SAMPLES);
    assert!(ours.iter().next().unwrap().contains("node=\"node-000\u{fffd}\""));
    if let Some(theirs) = theirs {
        assert_eq!(ours, theirs);
    }
}

#[test]
fn tombstones_are_applied_and_those_of_unknown_series_ignored() {
    let block = DamagedBlock::new();
    let meta = BlockMeta::parse(&fs::read(block.path("meta.json")).unwrap()).unwrap();
    let opened = Block::open(&block.block()).unwrap();
    let first = opened.select(&[], model::TimeRange::ALL).unwrap().next().unwrap().unwrap();
    let mut stones = Tombstones::default();
    let until = meta.min_time.offset_millis(100 * 20_000 - 1);
    stones.delete(first.reference, model::TimeRange::new(meta.min_time, until));
    stones.delete(SeriesRef(7_777_777), model::TimeRange::ALL);
    fs::write(block.path("tombstones"), stones.to_bytes()).unwrap();
    let theirs = promtool(&block.dir.path().join("data"));
    let text = block.salvage(&["--output=json"]).fine();
    let rows: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&rows[0]["samplesDeleted"], &rows[0]["samplesLost"]), (&100.into(), &0.into()), "{rows}");
    let ours = dump(&block.salvaged());
    assert_eq!(ours.len(), SERIES as usize * SAMPLES - 100);
    if let Some(theirs) = theirs {
        assert_eq!(ours, theirs);
    }

    // Tombstones that cannot be read: the deleted samples must not appear again.
    let block = DamagedBlock::new();
    block.change("tombstones", |bytes| bytes[5] ^= 1);
    let error = block.salvage(&[]).failed(Cause::Damaged);
    assert!(error.contains("tombstones") && error.contains("nothing can be salvaged"), "{error}");
}

#[test]
fn no_flipped_bit_gives_a_wrong_sample() {
    let block = DamagedBlock::new();
    let before = dump(&block.block());
    let files = ["index", "chunks/000001", "chunks/000002", "chunks/000003"];
    let whole = files.map(|file| fs::read(block.path(file)).unwrap());
    let mut state = 7u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let (mut salvaged, mut refused) = (0, 0);
    for round in 0..150 {
        for (file, whole) in files.iter().zip(&whole) {
            fs::write(block.path(file), whole).unwrap();
        }
        for _ in 0..1 + random(8) {
            let number = random(files.len());
            let bit = random(whole[number].len() * 8);
            block.change(files[number], |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        }
        match block.salvage(&[]).outcome {
            Ok(_) if block.salvaged().exists() => {
                let ours = dump(&block.salvaged());
                assert!(ours.is_subset(&before), "round {round}: a wrong sample");
                fs::remove_dir_all(block.salvaged()).unwrap();
                salvaged += 1;
            }
            // The bits were flipped back, or are in padding.
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.cause(), Cause::Damaged, "round {round}: {error}");
                refused += 1;
            }
        }
    }
    assert!(salvaged > 60 && refused > 10, "{salvaged} salvaged, {refused} refused");
}

#[test]
fn a_block_of_which_nothing_can_be_read_is_refused() {
    let refused = |what: &str, expected: &str, damage: &dyn Fn(&DamagedBlock)| {
        let block = DamagedBlock::new();
        damage(&block);
        let error = block.salvage(&[]).failed(Cause::Damaged);
        assert!(error.contains("nothing can be salvaged") && error.contains(expected), "{what}: {error}");
        let left = fs::read_dir(block.dir.path().join("out")).unwrap().count();
        assert_eq!(left, 0, "{what}: a block was left");
    };
    refused("symbols", "index, symbols", &|block| block.change("index", |bytes| bytes[20] ^= 1));
    refused("contents", "table of contents", &|block| {
        block.change("index", |bytes| bytes.truncate(bytes.len() - 9))
    });
    refused("an empty index", "index", &|block| block.change("index", Vec::clear));
    refused("meta", "meta.json", &|block| fs::write(block.path("meta.json"), "{").unwrap());
    refused("no chunks", "no sample", &|block| fs::remove_dir_all(block.path("chunks")).unwrap());
    let nothing = DamagedBlock::new();
    fs::remove_file(nothing.path("meta.json")).unwrap();
    nothing.salvage(&[]).failed(Cause::Missing);
}

#[test]
fn a_damaged_block_of_a_bucket_is_replaced_by_what_can_be_read() {
    let world = ToolsWorld::uploaded();
    let id = world.ids()[FIRST].clone();
    let rewrite = |more: &[&str]| {
        let tmp = world.text("tmp");
        world.bucket(&[&["rewrite", "--id", &id, "--salvage", "--tmp.dir", &tmp][..], more].concat())
    };
    assert!(rewrite(&["--dry-run=false"]).fine().contains("nothing to salvage"));
    flip(&world.file(FIRST, "chunks/000001"), 3000);
    let planned = rewrite(&[]).found();
    assert!(planned.contains("would be salvaged") && planned.contains("lost: series "), "{planned}");
    assert!(
        planned.contains("problem: block ") && planned.contains("does not match its manifest"),
        "{planned}"
    );
    assert_eq!(world.bucket(&["ls"]).fine().lines().count(), 3);

    let done = rewrite(&["--dry-run=false", "--delete-blocks"]).found();
    assert!(done.contains("rewritten; old block marked"), "{done}");
    let new = crate::salvage::new_id(id.parse().unwrap()).to_string();
    let log = fs::read_to_string(world.path("tmp").join(format!("{new}.change.log"))).unwrap();
    assert!(log.starts_with("lost: series "), "{log}");
    let fetched = world.bucket(&["ls"]).fine();
    assert!(fetched.contains(&new), "{fetched}");
    assert_eq!(world.bucket(&["verify", "--id", &new]).fine(), "1 block, 0 problems\n");
    let meta = BlockMeta::parse(&fs::read(world.path("a").join(&new).join("meta.json")).unwrap()).unwrap();
    let thanos = meta.thanos.unwrap();
    assert_eq!(thanos.labels.get("cluster").map(String::as_str), Some("eu-1"));
    assert_eq!(thanos.rewrites.last().unwrap()["salvaged"], true);
    assert!(rewrite(&["--dry-run=false", "--delete-blocks"]).fine().contains("done already"));
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}
