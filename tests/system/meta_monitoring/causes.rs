//! Causes of alerts that are made at once: damage, load, and a server that is not an Alertmanager.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use tests::{get, percent_encode, post_form, wait_for};

use crate::meta_monitoring::files::{exchange, generate_blocks, quick_rules, replaced};
use crate::meta_monitoring::world::{PATIENCE, World};

/// Damage in a bucket, a disk that is not mounted, and a mistake in a configuration, all at once.
pub(crate) fn check_damage(world: &World) {
    println!(
        "a block has no valid meta.json, one cannot be read, a bucket is gone, and a configuration is wrong"
    );
    let bucket = world.dir.join("bucket");
    let garbage = bucket.join("01M8J9KY000DAS4Q7VMQ5HWWTY");
    fs::create_dir(&garbage).expect("a folder");
    fs::write(garbage.join("meta.json"), "garbage").expect("a file");
    let (archive, unmounted) = (world.dir.join("archive-bucket"), world.dir.join("unmounted"));
    fs::rename(&archive, &unmounted).expect("a folder");
    let config = world.dir.join("scraper.yml");
    let good = fs::read(&config).expect("a file");
    fs::write(&config, "scrape_configs: 1\n").expect("a file");
    let (status, _) = post_form(world.scraper.http, "/-/reload", "").expect("an answer");
    assert_eq!(status, 500);
    world.wait_for_alerts(&[
        "StoreBlocksUnreadable",
        "CompactorNeedsHelp",
        "StoreOutOfSync",
        "BucketOperationsFail",
        "ScraperReloadFailed",
    ]);
    assert!(!archive.exists(), "the bucket that is gone was created again");

    println!("all of that is repaired, and the other bucket is a folder on which no disk is mounted");
    fs::remove_dir_all(&garbage).expect("a folder");
    fs::write(&config, good).expect("a file");
    let (status, body) = post_form(world.scraper.http, "/-/reload", "").expect("an answer");
    assert_eq!(status, 200, "{body}");
    fs::create_dir(&archive).expect("a folder");
    world.wait_for_alerts(&["BucketEmpty"]);
    exchange(&archive, &unmounted);
    world.wait_for_alerts(&[]);
}

/// Rules that take longer than their interval, and queries that take longer than they may.
pub(crate) fn check_load(world: &World) {
    println!("a group is slower than its interval, and queries take too long");
    let query = "sum(sum_over_time(up[5m:1ms]))";
    let begun = Instant::now();
    world.ask(&format!("/api/v1/query?query={}", percent_encode(query))).expect("an answer");
    // Seven seconds, where the group may take 2 + 1.
    let rules = (7_000 / begun.elapsed().as_millis().max(10)).clamp(4, 500);
    println!("{rules} rules of {:?}", begun.elapsed());
    let rules = format!("{{record: slow, expr: \"{query}\"}},").repeat(rules as usize);
    let slow = world.dir.join("rules/slow.yaml");
    fs::write(&slow, format!("groups: [{{name: slow, interval: 2s, rules: [{rules}]}}]\n")).expect("a file");
    // Three intervals would make the test long.
    let late = ("> 3 * prometheus_rule_group_interval_seconds", "> prometheus_rule_group_interval_seconds");
    world.reload(&replaced(&quick_rules(), &[late]));
    let expected = BTreeSet::from(["RulerGroupLate", "QueriesFail"].map(|name| format!("Isthmus{name}")));
    wait_for(&format!("{expected:?} to fire"), PATIENCE, || {
        for _ in 0..50 {
            let (status, _) = get(
                world.querier.http,
                &format!("/api/v1/query?timeout=1ms&query={}", percent_encode(query)),
            )?;
            assert_eq!(status, 503);
        }
        let firing = world.firing()?;
        if firing.is_superset(&expected) { Ok(()) } else { Err(format!("{firing:?}")) }
    });
    fs::remove_file(&slow).expect("a file");
    world.reload(&quick_rules());
    world.wait_for_alerts(&[]);
}

/// A compactor that is stopped in the middle of a job holds the lease of a group, so that the other one leaves its blocks.
pub(crate) fn check_slow_compaction(world: &World) {
    println!(
        "blocks wait for a merge, because another compactor has the lease of their group and does nothing"
    );
    let leases = world.dir.join("bucket/isthmus/lease");
    let locks = || -> BTreeSet<PathBuf> {
        let entries =
            fs::read_dir(&leases).into_iter().flatten().map(|entry| entry.expect("an entry").path());
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "lock")).collect()
    };
    let before = locks();
    add_blocks(world, "2025-01-01T00:00:00Z");
    let lock = wait_for("a merge", PATIENCE, || {
        locks().difference(&before).next().cloned().ok_or_else(|| "no lease".to_owned())
    });
    let file = File::options().append(true).open(&lock).expect("the lock of the lease");
    // The compactor has it until the first merge is done.
    file.lock().expect("the lock");
    add_blocks(world, "2025-03-01T00:00:00Z");
    world.wait_for_alerts(&["CompactorBehind"]);
    drop(file);
    world.wait_for_alerts(&[]);
}

/// Adds two blocks to the bucket that are to be merged, each at once.
fn add_blocks(world: &World, start: &str) {
    let made = world.dir.join("made");
    generate_blocks(&made, &["--blocks=2", "--label=cluster=\"busy\"", "--start", start]);
    for entry in fs::read_dir(&made).expect("a folder") {
        let from = entry.expect("an entry").path();
        let name = from.file_name().expect("a name");
        fs::rename(&from, world.dir.join("bucket").join(name)).expect("a block");
    }
}

/// An HTTP server that answers every request with status 400, as a server that is not an Alertmanager may do.
pub(crate) struct Refusing {
    at: SocketAddr,
    is_stopped: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Refusing {
    pub(crate) fn start(at: SocketAddr) -> Self {
        let listener = TcpListener::bind(at).expect("the port of Alertmanager");
        let is_stopped = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&is_stopped);
        let thread = std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept()
                && !stopped.load(Ordering::Relaxed)
            {
                // What of the request has arrived is read, so that the answer is not lost by a reset.
                drop(stream.read(&mut vec![0; 64 << 10]));
                drop(stream.write_all(
                    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
                ));
            }
        });
        Self { at, is_stopped, thread }
    }

    pub(crate) fn stop(self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        // The thread waits for a connection.
        drop(TcpStream::connect(self.at));
        self.thread.join().expect("the thread");
    }
}
