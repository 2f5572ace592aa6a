//! Samples that are out of order: their log, its damage, and a real Prometheus.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::TimeRange;

use crate::tests::prometheus::{Floats, Prometheus, dumped, floats_of, is_installed, serve, wait_for};
use crate::tests::{AllSamples, Random, at, labels, open_late, samples_of};
use crate::{AppendRefused, Database, DatabaseOptions, Head};

const HOUR: i64 = 3_600_000;
/// A boundary of blocks.
const BEGIN: i64 = 1_699_992_000_000;

/// Appends scrapes of five series every 15 s, and for each one a sample of about the hour before, at times that no other sample has.
fn append(head: &Head, scrapes: std::ops::Range<i64>, all: &mut Floats) {
    let random = &mut Random::seeded(scrapes.start as u64);
    for scrape in scrapes {
        let mut appender = head.appender();
        for n in 0..5i64 {
            let series = labels(&[("__name__", "m"), ("n", &n.to_string())]);
            let time = BEGIN + scrape * 15_000;
            let late = time - random.below(240) as i64 * 15_000 - 1 - random.below(14_000) as i64;
            let own = all.entry(series.to_string()).or_default();
            for (time, value) in [(time, scrape as f64), (late, scrape as f64 + 0.25)] {
                if !own.contains_key(&time) && (time % 15_000 == 0 || own.len() > 1) {
                    appender.append_float(&head.series(&series), at(time), at(0), value).unwrap();
                    own.insert(time, value.to_bits());
                }
            }
        }
        let committed = appender.commit().unwrap();
        assert_eq!(committed.refused, 0);
    }
}

fn floats(head: &Head) -> Floats {
    floats_of(&samples_of(head, TimeRange::ALL))
}

#[test]
fn late_samples_are_accepted_within_their_window() {
    let dir = tempfile::tempdir().unwrap();
    let (head, _) = open_late(dir.path(), BEGIN, 0);
    let series = head.series(&labels(&[("__name__", "m")]));
    let append = |time: i64, value: f64| {
        let mut appender = head.appender();
        let result = appender.append_float(&series, at(time), at(0), value);
        let committed = appender.commit().unwrap();
        (result, committed.added, committed.late)
    };
    assert_eq!(append(BEGIN + HOUR, 1.0), (Ok(()), 1, 0));
    assert_eq!(append(BEGIN + HOUR - 1, 1.0), (Err(AppendRefused::OutOfOrder), 0, 0));
    head.set_out_of_order_window(Duration::from_secs(2 * 3_600));
    assert_eq!(append(BEGIN + HOUR - 1, 1.0), (Ok(()), 1, 1));
    assert_eq!(append(BEGIN + HOUR - 1, 2.0), (Ok(()), 0, 0), "the first one of a time counts");
    assert_eq!(append(BEGIN + HOUR, 2.0), (Err(AppendRefused::Duplicate), 0, 0));
    // Also in the time of a block.
    assert_eq!(append(BEGIN - HOUR, 3.0), (Ok(()), 1, 1));
    assert_eq!(append(BEGIN - HOUR - 1, 3.0), (Err(AppendRefused::TooOld), 0, 0));
    assert_eq!(head.stats().times, Some(TimeRange::new(at(BEGIN - HOUR), at(BEGIN + HOUR))));
    let expected = [(BEGIN - HOUR, 3.0), (BEGIN + HOUR - 1, 1.0), (BEGIN + HOUR, 1.0)];
    assert!(floats(&head)["m"].iter().map(|(time, bits)| (*time, f64::from_bits(*bits))).eq(expected));
    // What a batch has is also late if another batch was faster.
    let (mut first, mut second) = (head.appender(), head.appender());
    first.append_float(&series, at(BEGIN + HOUR + 1), at(0), 1.0).unwrap();
    second.append_float(&series, at(BEGIN + HOUR + 2), at(0), 1.0).unwrap();
    assert_eq!(second.commit().unwrap().late, 0);
    let committed = first.commit().unwrap();
    assert_eq!((committed.added, committed.late, committed.refused), (1, 1, 0));
}

/// Kills at any place, simulated by a log and chunk files of other lengths.
#[test]
fn damage_of_the_late_log_costs_what_lies_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let (head, _) = open_late(dir.path(), i64::MIN, HOUR);
    let mut all = Floats::new();
    append(&head, 0..200, &mut all);
    assert!(floats(&head) == all);
    drop(head);
    let files = ["wbl/00000000", "chunks_head/000001"];
    let original = files.map(|file| fs::read(dir.path().join(file)).unwrap());
    let wal = fs::read(dir.path().join("wal/00000000")).unwrap();
    let random = &mut Random::seeded(3);
    for round in 0..100 {
        for folder in ["wal", "wbl", "chunks_head"] {
            fs::remove_dir_all(dir.path().join(folder)).unwrap();
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        fs::write(dir.path().join("wal/00000000"), &wal).unwrap();
        let damaged = round % 2;
        for (n, (file, bytes)) in files.iter().zip(&original).enumerate() {
            let mut bytes = bytes.clone();
            let place = random.below(bytes.len());
            if n == damaged {
                match random.below(2) {
                    0 => bytes.truncate(place),
                    _ => bytes[place] ^= 1 << random.below(8),
                }
            }
            fs::write(dir.path().join(file), bytes).unwrap();
        }
        let (head, replay) = open_late(dir.path(), i64::MIN, HOUR);
        let found = floats(&head);
        if damaged == 1 {
            // The log has the samples of the chunk files.
            assert!(found == all, "round {round}");
            continue;
        }
        for (series, samples) in &found {
            let in_order = |samples: &std::collections::BTreeMap<i64, u64>| {
                samples.keys().filter(|time| *time % 15_000 == 0).count()
            };
            assert!(samples.iter().all(|(time, bits)| all[series].get(time) == Some(bits)), "round {round}");
            assert_eq!(in_order(samples), in_order(&all[series]), "round {round}");
        }
        let before = found.values().map(|samples| samples.len()).sum::<usize>();
        let is_cut = fs::metadata(dir.path().join(files[0])).unwrap().len() < original[0].len() as u64;
        assert!(found == all || is_cut, "round {round}: {replay:?}");
        drop(head);
        let (head, replay) = open_late(dir.path(), i64::MIN, HOUR);
        assert_eq!(replay.damaged, [], "round {round}");
        assert_eq!(
            floats(&head).values().map(|samples| samples.len()).sum::<usize>(),
            before,
            "round {round}"
        );
    }
}

/// All samples of head and blocks. Several blocks may have a sample.
fn samples(database: &Database) -> Floats {
    let mut out = floats(database.head());
    for block in database.blocks(TimeRange::ALL) {
        let mut samples = AllSamples::new();
        crate::tests::add_block(&block.dir, &mut samples);
        for (series, samples) in floats_of(&samples) {
            let own = out.entry(series).or_default();
            for (time, bits) in samples {
                assert_eq!(own.insert(time, bits), None, "{time} twice");
            }
        }
    }
    out
}

#[test]
fn a_database_writes_late_samples_to_blocks_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let window = Duration::from_secs(2 * 3_600);
    let options = DatabaseOptions { out_of_order_window: window, ..DatabaseOptions::default() };
    let (mut database, _) = Database::open(dir.path(), options).unwrap();
    let mut all = Floats::new();
    for minutes in 0..40 {
        append(database.head(), minutes * 60..(minutes + 1) * 60, &mut all);
        database.maintain(at(BEGIN + minutes * 900_000)).unwrap();
        assert!(samples(&database) == all, "minute {minutes}");
        if minutes % 7 == 6 {
            drop(database);
            database = Database::open(dir.path(), options).unwrap().0;
        }
    }
    let blocks = database.blocks(TimeRange::ALL);
    let hints: Vec<_> =
        blocks.iter().map(|block| block.block.meta().compaction.hints.first().cloned()).collect();
    let late = hints.iter().flatten().filter(|hint| *hint == "from-out-of-order").count();
    assert!(late > 3 && late < hints.len(), "{hints:?}");
    if is_installed("prometheus") {
        drop((blocks, database));
        let own = &all["m{n=\"0\"}"];
        let config = tempfile::tempdir().unwrap();
        // promtool takes the end of the last block for the begin of the head, also if the block has late samples only.
        let prometheus =
            Prometheus::start(config.path(), dir.path(), None, &["--storage.tsdb.retention.time=100y"]);
        for (function, expected) in [
            ("count_over_time", own.len() as f64),
            ("sum_over_time", own.values().map(|bits| f64::from_bits(*bits)).sum()),
        ] {
            let query =
                format!("/api/v1/query?query={function}(m{{n=%220%22}}[1d])&time={}", BEGIN / 1_000 + 50_000);
            wait_for("an answer", || value(&prometheus.get(&query)).is_some());
            assert_eq!(value(&prometheus.get(&query)), Some(expected), "{function}");
        }
    }
}

#[test]
fn a_view_keeps_the_late_samples_that_are_cut_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let window = Duration::from_secs(2 * 3_600);
    let options = DatabaseOptions { out_of_order_window: window, ..DatabaseOptions::default() };
    let database = Arc::new(Database::open(dir.path(), options).unwrap().0);
    let mut all = Floats::new();
    append(database.head(), 0..800, &mut all);
    let now = at(BEGIN + 800 * 15_000);
    let view = database.view(TimeRange::ALL);
    // In order first: what is out of order waits until the view is gone.
    let cut = database.maintain(now).unwrap().cut.len();
    assert_eq!((cut, view.blocks().len(), view.is_whole()), (1, 0, true));
    assert!(floats(view.head()) == all);
    drop(view);
    let view = database.view(TimeRange::ALL);
    let cut = database.maintain(now).unwrap().cut.len();
    assert!(cut > 1 && view.is_whole() && view.blocks().len() == 1, "{cut}");
    assert!(since(&floats(view.head()), BEGIN + 2 * HOUR) == since(&all, BEGIN + 2 * HOUR));
    let late = |floats: Floats| -> usize {
        floats.values().flat_map(|samples| samples.keys()).filter(|time| *time % 15_000 != 0).count()
    };
    assert_eq!(late(floats(view.head())), late(all.clone()));
    drop(view);
    database.maintain(now).unwrap();
    assert_eq!(late(floats(database.head())), 0);
    assert!(samples(&database) == all);
}

/// A process that is killed before all blocks of late samples are written has left some of them.
#[test]
fn blocks_of_late_samples_that_were_not_all_written_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let window = Duration::from_secs(2 * 3_600);
    let options = DatabaseOptions { out_of_order_window: window, ..DatabaseOptions::default() };
    let (database, _) = Database::open(dir.path(), options).unwrap();
    let mut all = Floats::new();
    append(database.head(), 0..600, &mut all);
    let cut = database.head().begin_late_cut().unwrap();
    let mut number = 0;
    let new_id = || {
        number += 1;
        tsdb::Ulid::from_parts(number, 1)
    };
    let blocks = database.head().cut_late_blocks(dir.path(), &cut, new_id).unwrap();
    assert!(blocks.len() > 1);
    let state = dir.path().join("wbl/cut");
    assert!(fs::read_to_string(&state).unwrap().starts_with("written\n"));
    let ids: String = blocks.iter().map(|block| format!("{}\n", block.ulid)).collect();
    fs::write(&state, format!("writing\n{ids}")).unwrap();
    fs::remove_dir_all(dir.path().join(blocks[1].ulid.to_string())).unwrap();
    drop((cut, database));
    let (database, _) = Database::open(dir.path(), options).unwrap();
    assert_eq!((database.blocks(TimeRange::ALL).len(), state.exists()), (0, false));
    assert!(!dir.path().join(blocks[0].ulid.to_string()).exists());
    assert!(samples(&database) == all);
}

fn since(all: &Floats, begin: i64) -> Floats {
    all.iter().map(|(series, samples)| (series.clone(), samples.clone().split_off(&begin))).collect()
}

#[test]
fn prometheus_reads_our_late_samples() {
    if !is_installed("promtool") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (head, _) = open_late(dir.path(), i64::MIN, HOUR);
    let mut all = Floats::new();
    append(&head, 0..300, &mut all);
    drop(head);
    assert!(fs::metadata(dir.path().join("chunks_head/000001")).is_ok());
    assert!(dumped(dir.path()) == all);
}

/// The value of a series in the answer to an instant query.
fn value(answer: &str) -> Option<f64> {
    answer.split("\"value\":[").nth(1)?.split('"').nth(1)?.parse().ok()
}

#[test]
fn late_samples_of_a_prometheus_that_was_killed_are_read() {
    if !is_installed("prometheus") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let begin = now - HOUR;
    // One series goes back by 61 steps and forward by 100, so that most of its samples are out of order.
    let time = move |number: usize| begin + (number as i64 * 39 % 3_000) * 1_000;
    let target = serve("text/plain; version=0.0.4", move |number| {
        format!("late {number} {}\nother{{n=\"1\"}} {number} {}\n", time(number), begin + number as i64)
    });
    let config = "storage: {tsdb: {out_of_order_time_window: 2h}}\n";
    let prometheus = Prometheus::start_with(dir.path(), &data, config, Some(&target), &[]);
    let seconds = now / 1_000 + 3_600;
    let count = format!("/api/v1/query?query=count_over_time(late[1d])&time={seconds}");
    wait_for("a hundred samples", || value(&prometheus.get(&count)).is_some_and(|count| count >= 140.0));
    let theirs = value(&prometheus.get(&count)).unwrap();
    prometheus.kill();
    assert!(fs::metadata(data.join("chunks_head/000001")).is_ok(), "no chunk was written");
    let (head, replay) = open_late(&data, i64::MIN, 2 * HOUR);
    assert_eq!((replay.damaged_records, replay.without_series, replay.damaged.len()), (0, 0, 0));
    assert!(replay.late > 40, "{replay:?}");
    let found = floats(&head);
    let late = found.iter().find(|(series, _)| series.starts_with("late")).unwrap().1;
    assert!(late.len() as f64 >= theirs, "{} and {theirs}", late.len());
    let number = |bits: u64| f64::from_bits(bits) as usize;
    assert!(late.iter().all(|(at, bits)| time(number(*bits)) == *at));
    let numbers: std::collections::BTreeSet<usize> = late.values().map(|bits| number(*bits)).collect();
    assert!(numbers.iter().copied().eq(0..late.len()), "{numbers:?}");
    // It goes on with ours.
    let before = late.len();
    let labels = head.select(&[model::Matcher::equal("__name__", "late")], TimeRange::ALL);
    let labels = labels.map(|series| series.unwrap().labels).next().unwrap();
    let mut appender = head.appender();
    appender.append_float(&head.series(&labels), at(begin + 500), at(0), 5.0).unwrap();
    assert_eq!(appender.commit().unwrap().late, 1);
    drop(head);
    let prometheus = Prometheus::start_with(dir.path(), &data, config, None, &[]);
    wait_for("an answer", || value(&prometheus.get(&count)).is_some());
    assert_eq!(value(&prometheus.get(&count)), Some(before as f64 + 1.0));
}

/// The samples of a chunk file that was lost in a crash are in the log.
#[test]
fn a_mark_for_a_chunk_that_was_lost_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let (head, _) = open_late(dir.path(), i64::MIN, HOUR);
    let mut all = Floats::new();
    append(&head, 0..100, &mut all);
    drop(head);
    lose_chunks(dir.path());
    let (head, _) = open_late(dir.path(), i64::MIN, HOUR);
    assert!(floats(&head) == all);
    append(&head, 100..200, &mut all);
    drop(head);
    let (head, _) = open_late(dir.path(), i64::MIN, HOUR);
    assert!(floats(&head) == all);
}

fn lose_chunks(dir: &Path) {
    let path = dir.join("chunks_head/000001");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
}
