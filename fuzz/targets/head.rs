//! The logs of a head: any bytes of their segments and of a chunk file are read, cut before the damage, and read again without damage.

#![no_main]

use head::{Head, HeadError, HeadOptions};
use libfuzzer_sys::fuzz_target;
use model::TimeRange;

fuzz_target!(|input: &[u8]| {
    let [split, second, rest @ ..] = input else { return };
    let (log, rest) = rest.split_at(rest.len() * usize::from(*split) / 256);
    let (late, chunks) = rest.split_at(rest.len() * usize::from(*second) / 256);
    let dir = std::env::temp_dir().join(format!("isthmus-fuzz-head-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    for folder in ["wal", "wbl", "chunks_head"] {
        std::fs::create_dir_all(dir.join(folder)).expect("a folder");
    }
    std::fs::write(dir.join("wal/00000000"), log).expect("a segment");
    std::fs::write(dir.join("wbl/00000000"), late).expect("a segment");
    std::fs::write(dir.join("chunks_head/000001"), chunks).expect("a chunk file");
    let read = || {
        let (head, replay) = match Head::open(&dir, HeadOptions::default()) {
            Err(HeadError::Newer { .. }) => return None,
            opened => opened.expect("the files can be read"),
        };
        let series = head.select(&[], TimeRange::ALL).filter(|series| series.is_ok()).count();
        Some((series, replay.damaged.len()))
    };
    // What a later version may have written is refused each time.
    assert_eq!(read().map(|(series, _)| (series, 0)), read());
});
