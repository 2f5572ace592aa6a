//! A real Prometheus as the receiver, Debian package `prometheus`. Without it, a line says that the test was skipped.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::tests::receivers::{Samples, World, config, now, until};

/// A Prometheus that receives, on this port. It is killed in the end.
struct Prometheus(Child);

impl Prometheus {
    fn start(dir: &Path, port: u16) -> Option<Self> {
        let config = "storage: {tsdb: {out_of_order_time_window: 1h}}\n";
        std::fs::write(dir.join("prometheus.yml"), config).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("theirs").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(["--web.enable-remote-write-receiver", "--log.level=warn"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        child.ok().map(Self)
    }

    /// Ends it. It has what it committed.
    fn stop(&mut self) {
        let term = Command::new("kill").arg(self.0.id().to_string()).status();
        assert!(term.is_ok_and(|status| status.success()));
        self.0.wait().unwrap();
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The samples of a data folder by `promtool`, which prints staleness markers as NaN.
fn dumped(dir: &Path) -> Samples {
    let out = Command::new("promtool").args(["tsdb", "dump"]).arg(dir).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut samples = Samples::new();
    for line in String::from_utf8(out.stdout).unwrap().lines() {
        let (series, rest) = line.rsplit_once("} ").unwrap();
        let (value, time) = rest.split_once(' ').unwrap();
        samples.entry(format!("{series}}}")).or_default().insert(time.parse().unwrap(), value.to_owned());
    }
    samples
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prometheus_has_the_same_samples_after_it_was_away_and_we_were_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let Some(mut prometheus) = Prometheus::start(dir.path(), port) else {
        println!("skipped: prometheus is not installed");
        return;
    };
    let mut config = config(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
    config.url = format!("http://127.0.0.1:{port}/api/v1/write");
    config.queue.max_samples_per_send = 100;
    config.queue.min_shards = 2;
    let ours = dir.path().join("ours");
    let (begin, mut expected) = (now() - 600_000, Samples::new());
    let mut scrape = |world: &World, number: i64| {
        let time = begin + number * 1_000;
        let names: Vec<String> = (0..50).map(|n| format!("metric_{n}")).collect();
        let value = |n: usize| match (number as usize + n).is_multiple_of(17) {
            true => model::stale_nan(),
            false => number as f64 + n as f64,
        };
        let samples: Vec<(&str, f64)> =
            names.iter().enumerate().map(|(n, name)| (name.as_str(), value(n))).collect();
        world.append(&samples, time);
        for (name, value) in samples {
            let series = format!("{{__name__=\"{name}\", cluster=\"eu-1\"}}");
            expected.entry(series).or_default().insert(time, value.to_string());
        }
        // A sample that is half a minute late.
        if number % 10 == 9 {
            let late = time - 30_500;
            world.append(&[("metric_7", -1.0)], late);
            let series = "{__name__=\"metric_7\", cluster=\"eu-1\"}".to_owned();
            expected.entry(series).or_default().insert(late, "-1".to_owned());
        }
    };
    let mut world = World::start(&ours, &config);
    world.begun(&ours).await;
    let sent_until = async |world: &World, number: i64| {
        let metric = "prometheus_remote_storage_queue_highest_sent_timestamp_seconds{";
        let last = (begin + number * 1_000) as f64 / 1_000.0;
        until("all was sent", || world.metric(metric) >= last).await;
    };
    for number in 0..300 {
        scrape(&world, number);
        match number {
            60 => {
                // It ends without answers to what it has just taken.
                sent_until(&world, number).await;
                prometheus.stop();
            }
            120 | 240 => {
                world.stop().await;
                world = World::start(&ours, &config);
            }
            // It was away for half of the time.
            180 => prometheus = Prometheus::start(dir.path(), port).unwrap(),
            _ => {}
        }
        tokio::task::yield_now().await;
    }
    sent_until(&world, 299).await;
    assert_eq!(world.metric("prometheus_remote_storage_samples_failed_total{"), 0.0, "nothing was refused");
    world.stop().await;
    prometheus.stop();
    let theirs = dumped(&dir.path().join("theirs"));
    assert_eq!(theirs.len(), 50);
    assert_eq!(theirs, expected);
}
