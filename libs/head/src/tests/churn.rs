//! Series that vanish give their memory back.

use std::path::Path;
use std::process::Command;

use crate::tests::{at, labels, open};
use crate::{Exemplar, Metadata};

/// The folder of the child process.
const FOLDER: &str = "ISTHMUS_CHURN_FOLDER";

const SERIES: i64 = 10_000;
const HOUR: i64 = 3_600_000;
const BEGIN: i64 = 1_699_992_000_000;

/// Kilobytes of memory that the process has now.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Every two hours, all series are new ones. Prints the memory after each generation.
#[test]
#[ignore = "the child process of the test below"]
fn series_come_and_go() {
    let Some(dir) = std::env::var_os(FOLDER) else { return };
    let (head, _) = open(Path::new(&dir), i64::MIN);
    for generation in 0..16i64 {
        for scrape in 0..12 {
            let time = BEGIN + generation * 2 * HOUR + scrape * HOUR / 6;
            for target in 0..SERIES / 100 {
                let mut appender = head.appender();
                for n in 0..100 {
                    let pod = format!("app-{generation}-{target}");
                    let series = labels(&[("__name__", "m"), ("n", &n.to_string()), ("pod", &pod)]);
                    let series = head.series(&series);
                    appender.append_float(&series, at(time), at(0), (scrape * n) as f64).unwrap();
                    let help = format!("Of {pod}.").into();
                    appender.set_metadata(&series, &Metadata { help, ..Metadata::default() });
                    let labels = labels(&[("trace_id", &format!("{time}"))]);
                    let exemplar = Exemplar { labels, value: 1.0, time: at(time), has_own_time: true };
                    appender.append_exemplar(&series, exemplar).unwrap();
                }
                assert_eq!(appender.commit().unwrap().added, 100);
            }
        }
        head.store_chunks().unwrap();
        head.truncate(at(BEGIN + generation * 2 * HOUR)).unwrap();
        assert_eq!(head.stats().series as i64, SERIES, "generation {generation}");
        println!("resident {}", resident());
    }
}

#[test]
fn series_that_vanish_give_their_memory_back() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::churn::series_come_and_go", "--ignored", "--nocapture"])
        .env(FOLDER, dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let resident: Vec<u64> =
        text.lines().filter_map(|line| line.strip_prefix("resident ")?.parse().ok()).collect();
    assert_eq!(resident.len(), 16, "{text}");
    println!("kilobytes after each generation of {SERIES} series: {resident:?}");
    // The third one has the buffer of exemplars full, and the maps as large as they get.
    assert!(resident[15] < resident[3] * 5 / 4, "{resident:?}");
    // Nothing old is left in the folder, either.
    let files = std::fs::read_dir(dir.path().join("chunks_head")).unwrap().count();
    let segments = std::fs::read_dir(dir.path().join("wal")).unwrap().count();
    assert!(files <= 3 && segments <= 6, "{files} files, {segments} segments");
}
