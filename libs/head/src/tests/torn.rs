//! Damage of the log and of the chunk files.

use std::fs;

use model::TimeRange;

use crate::tests::{Random, at, labels, open, samples_of};

/// A log that is cut or flipped anywhere costs samples behind that place, and what is kept is right.
#[test]
fn damage_costs_what_lies_behind_it_and_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let (head, _) = open(dir.path(), i64::MIN);
    let series: Vec<_> =
        (0..20).map(|n| head.series(&labels(&[("__name__", "m"), ("n", &n.to_string())]))).collect();
    for scrape in 0..200 {
        let mut appender = head.appender();
        for (n, series) in series.iter().enumerate() {
            let value = f64::from(scrape) * 1.7 + n as f64;
            appender.append_float(series, at(1_000_000 + i64::from(scrape) * 15_000), at(0), value).unwrap();
        }
        appender.commit().unwrap();
        if scrape == 150 {
            head.store_chunks().unwrap();
        }
    }
    let all = samples_of(&head, TimeRange::ALL);
    drop(head);
    let files = ["wal/00000000", "chunks_head/000001"];
    let original = files.map(|file| fs::read(dir.path().join(file)).unwrap());
    let random = &mut Random::seeded(7);
    for round in 0..120 {
        for (file, bytes) in files.iter().zip(&original) {
            fs::write(dir.path().join(file), bytes).unwrap();
        }
        for segment in fs::read_dir(dir.path().join("wal")).unwrap().map(|entry| entry.unwrap().path()) {
            if !segment.ends_with("00000000") {
                fs::remove_file(segment).unwrap();
            }
        }
        let damaged = round % 2;
        let mut bytes = original[damaged].clone();
        let place = random.below(bytes.len());
        match random.below(2) {
            0 => bytes.truncate(place),
            _ => bytes[place] ^= 1 << random.below(8),
        }
        fs::write(dir.path().join(files[damaged]), &bytes).unwrap();
        let (head, replay) = open(dir.path(), i64::MIN);
        let found = samples_of(&head, TimeRange::ALL);
        if damaged == 1 {
            // The log has the samples of the chunk files.
            assert!(found == all, "round {round}: byte {place} of the chunks");
            continue;
        }
        for (series, samples) in &found {
            let whole = &all[series];
            // Chunks in files may continue behind the damage.
            assert!(
                samples.iter().all(|(time, sample)| whole.get(time) == Some(sample)),
                "round {round}: {series}"
            );
        }
        let is_whole = found == all;
        assert!(is_whole || !replay.damaged.is_empty() || bytes.len() < original[0].len(), "round {round}");
        let before: usize = found.values().map(|samples| samples.len()).sum();
        drop(head);
        // The damaged part was set aside, so that the next start finds none.
        let (head, replay) = open(dir.path(), i64::MIN);
        assert_eq!(replay.damaged, [], "round {round}");
        let after: usize = samples_of(&head, TimeRange::ALL).values().map(|samples| samples.len()).sum();
        assert_eq!(before, after, "round {round}");
    }
}
