//! Loops: targets that come and go, reloads, slow targets, clocks that jump.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use runtime::Shutdown;

use crate::tests::target::{Answer, TestTarget, text};
use crate::tests::world::{World, job, of};
use crate::{Clock, ScrapeOptions};

/// Samples of a series without staleness markers.
fn real(values: &[String]) -> usize {
    values.iter().filter(|value| *value != "stale").count()
}

#[tokio::test]
async fn a_target_that_is_gone_becomes_stale_after_two_intervals() {
    let world = World::new();
    let target = TestTarget::start(|_| text("a 1\n")).await;
    let address = target.address;
    let list = |targets: &str| {
        std::fs::write(world.path().join("t.json"), format!("[{{\"targets\": [{targets}]}}]")).unwrap()
    };
    list(&format!("\"{address}\""));
    world.apply(
        "scrape_configs: [{job_name: t, scrape_interval: 200ms, file_sd_configs: [{files: [t.json]}]}]",
    );
    world.until_samples(&of("a", address), 2).await;
    list("");
    world
        .until("staleness", || world.values(&of("a", address)).last().is_some_and(|last| last == "stale"))
        .await;
    let samples = world.samples(&of("a", address));
    let times: Vec<i64> = samples.keys().copied().collect();
    // The marker has the time of the scrape that there would have been, and is written more than an interval later.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    let marker = u128::try_from(times[times.len() - 1]).unwrap();
    assert!(now - marker >= 200, "{now} {samples:?}");
    for name in ["up", "scrape_duration_seconds", "scrape_samples_scraped", "scrape_series_added"] {
        world
            .until(name, || world.values(&of(name, address)).last().is_some_and(|last| last == "stale"))
            .await;
    }
    assert!(world.targets().is_empty());
    let count = samples.len();
    // It comes back, and goes on.
    list(&format!("\"{address}\""));
    let values = world.until_samples(&of("a", address), count + 2).await;
    assert_eq!(values.last().unwrap(), "1");
}

#[tokio::test]
async fn a_target_that_comes_back_at_once_has_no_markers() {
    let world = World::new();
    let target = TestTarget::start(|_| text("a 1\n")).await;
    let config = job(&[target.address.to_string()], "");
    world.apply(&config);
    let series = of("a", target.address);
    world.until_samples(&series, 3).await;
    // The targets are other ones with each interval, and the series are the same.
    world.apply(&config.replace("400ms", "410ms"));
    let count = world.values(&series).len();
    let values = world.until_samples(&series, count + 4).await;
    assert!(values.iter().all(|value| value == "1"), "{values:?}");
}

#[tokio::test]
async fn a_shutdown_leaves_series_as_they_are() {
    let world = World::new();
    let target = TestTarget::start(|_| text("a 1\n")).await;
    world.apply(&job(&[target.address.to_string()], ""));
    world.until_samples(&of("a", target.address), 2).await;
    let shutdown = Shutdown::new();
    shutdown.trigger();
    world.manager.run(shutdown).await;
    let values = world.values(&of("a", target.address));
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(world.values(&of("a", target.address)), values);
    assert!(values.iter().all(|value| value == "1"));
}

#[tokio::test]
async fn unchanged_jobs_go_on_without_a_break_when_others_change() {
    let world = World::new();
    let (one, two) =
        (TestTarget::start(|_| text("a 1\n")).await, TestTarget::start(|_| text("b 1\nc 1\n")).await);
    let config = |lines: &str| {
        format!(
            "scrape_configs:\n- {{job_name: one, scrape_interval: 400ms, static_configs: [{{targets: ['{}']}}]}}\n- {{job_name: two, \
             scrape_interval: 400ms, static_configs: [{{targets: ['{}']}}]{lines}}}",
            one.address, two.address
        )
    };
    let series = |name: &str, job: &str, address| format!("{name}{{instance=\"{address}\", job=\"{job}\"}}");
    let (a, b, c) =
        (series("a", "one", one.address), series("b", "two", two.address), series("c", "two", two.address));
    world.apply(&config(""));
    world.until_samples(&a, 3).await;
    world.until_samples(&b, 3).await;
    world.apply(&config(", metric_relabel_configs: [{action: drop, source_labels: [__name__], regex: c}]"));
    world.until("staleness of c", || world.values(&c).last().is_some_and(|last| last == "stale")).await;
    let count = world.values(&b).len();
    let values = world.until_samples(&b, count + 3).await;
    assert!(values.iter().all(|value| value == "1"), "{values:?}");
    // The loop of the job that did not change still knows its series.
    let added = world.values(&series("scrape_series_added", "one", one.address));
    assert_eq!(
        (added[0].as_str(), added.iter().filter(|added| *added == "0").count()),
        ("1", added.len() - 1)
    );
    world.apply(&config("").lines().take(2).collect::<Vec<_>>().join("\n"));
    world.until("staleness of b", || world.values(&b).last().is_some_and(|last| last == "stale")).await;
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_changes_nothing() {
    let world = World::new();
    let target = TestTarget::start(|_| text("a 1\n")).await;
    let config = job(&[target.address.to_string()], "");
    world.apply(&config);
    world.until_samples(&of("a", target.address), 2).await;
    let wrong = format!("{config}- {{job_name: new, tls_config: {{ca_file: none.pem}}}}\n");
    let mistakes = world.try_apply(&wrong).unwrap_err();
    assert!(
        mistakes.contains("scrape_configs: new: ") && mistakes.contains("none.pem: cannot be read"),
        "{mistakes}"
    );
    let count = world.values(&of("a", target.address)).len();
    world.until_samples(&of("a", target.address), count + 2).await;
    assert_eq!(world.targets().len(), 1);
}

#[tokio::test]
async fn targets_over_the_limit_are_not_scraped() {
    let world = World::new();
    let target = TestTarget::start(|_| text("a 1\n")).await;
    let both = [target.address.to_string(), "127.0.0.2:1".to_owned()];
    world.apply(&job(&both, "target_limit: 1"));
    world.until_samples(&of("up", target.address), 1).await;
    assert_eq!(world.values(&of("up", target.address))[0], "0");
    assert_eq!(world.last_error().await, "target_limit exceeded (number of targets: 2, limit: 1)");
    assert!(target.asked().is_empty() && world.values(&of("a", target.address)).is_empty());
    world.apply(&job(&both, "target_limit: 2"));
    world.until_samples(&of("a", target.address), 1).await;
}

#[tokio::test]
async fn equal_targets_are_scraped_once_and_dropped_ones_are_shown() {
    let world = World::new();
    let target = TestTarget::start(|_| text("a 1\n")).await;
    let address = target.address.to_string();
    let lines = "relabel_configs:\n- {action: drop, source_labels: [__address__], regex: 'drop.*'}";
    world.apply(&job(&[address.clone(), address.clone(), "drop1:1".to_owned(), "drop2:1".to_owned()], lines));
    world.until_samples(&of("a", &address), 2).await;
    let targets = world.manager.targets();
    assert_eq!((targets.active_targets.len(), targets.dropped_targets.len()), (1, 2));
    assert_eq!(targets.active_targets[0].scrape_interval, "400ms");
    assert_eq!(targets.dropped_targets[0].discovered_labels.value("__address__"), "drop1:1");
    let lines = format!("{lines}\nkeep_dropped_targets: 1");
    world.apply(&job(&[address, "drop1:1".to_owned(), "drop2:1".to_owned()], &lines));
    world.until("one dropped target", || world.manager.targets().dropped_targets.len() == 1).await;
}

#[tokio::test]
async fn targets_of_a_server_are_scraped() {
    let world = World::new();
    let target = TestTarget::start(|_| text("a 1\n")).await;
    let body = format!(r#"[{{"targets": ["{}"], "labels": {{"from": "list"}}}}]"#, target.address);
    let is_broken = Arc::new(AtomicUsize::new(0));
    let broken = Arc::clone(&is_broken);
    let server = TestTarget::start(move |_| match broken.load(Ordering::SeqCst) {
        0 => Answer::Whole {
            head: "200 OK\r\nContent-Type: application/json".to_owned(),
            body: body.clone().into(),
        },
        _ => text(&body),
    })
    .await;
    world.apply(&format!(
        "scrape_configs: [{{job_name: t, scrape_interval: 400ms, http_sd_configs: [{{url: 'http://{}/list', refresh_interval: 1s}}]}}]",
        server.address
    ));
    let series = format!("a{{from=\"list\", instance=\"{}\", job=\"t\"}}", target.address);
    world.until_samples(&series, 2).await;
    assert_eq!(server.asked()[0].line, "GET /list HTTP/1.1");
    assert_eq!(server.asked()[0].headers["x-prometheus-refresh-interval-seconds"], "1");
    assert_eq!(
        world.targets()[0].discovered_labels.value("__meta_url"),
        format!("http://{}/list", server.address)
    );
    // A list of another kind is refused, and the targets stay.
    is_broken.store(1, Ordering::SeqCst);
    let asked = server.asked().len();
    world.until("new questions", || server.asked().len() >= asked + 2).await;
    let count = world.values(&series).len();
    world.until_samples(&series, count + 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_targets_that_hang_do_not_delay_the_others() {
    let world = World::new();
    let good = TestTarget::start(|_| text("a 1\n")).await;
    // One server with many addresses.
    let server = TestTarget::start_at("0.0.0.0:0", |_| Answer::Nothing).await;
    let address = |at: usize| format!("127.1.{}.{}:{}", at / 250, at % 250 + 1, server.address.port());
    let mut targets: Vec<String> = (0..1_000).map(address).collect();
    targets.push(good.address.to_string());
    world.apply(&job(&targets, "scrape_interval: 1s"));
    world.until("requests of hanging targets", || server.asked().len() >= 1_000).await;
    let values = world.until_samples(&of("a", good.address), 5).await;
    assert!(values.iter().all(|value| value == "1"), "{values:?}");
    // One after the other, or a few at once, the timeouts of the others would have taken many minutes.
    let is_down = |at: usize| world.values(&of("up", address(at))).contains(&"0".to_owned());
    world.until("failures of hanging targets", || is_down(0) && is_down(999)).await;
}

#[tokio::test]
async fn a_clock_that_jumps_forward_and_back_stops_no_scrape() {
    let offset = Arc::new(AtomicI64::new(0));
    let moved = Arc::clone(&offset);
    let clock = Clock::new(move || {
        let seconds = moved.load(Ordering::SeqCst);
        SystemTime::now() + Duration::from_secs(seconds.unsigned_abs())
    });
    let world = World::with(ScrapeOptions { clock, ..ScrapeOptions::default() });
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let target =
        TestTarget::start(move |_| text(&format!("a {}\n", counter.fetch_add(1, Ordering::SeqCst)))).await;
    world.apply(&job(&[target.address.to_string()], ""));
    let series = of("a", target.address);
    world.until_samples(&series, 3).await;
    offset.store(3_600, Ordering::SeqCst);
    let before = world.samples(&series);
    let until = *before.keys().next_back().unwrap() + 3_000_000;
    world.until("samples an hour later", || world.samples(&series).range(until..).count() >= 3).await;
    // Back again: earlier samples are refused, and nothing else happens.
    offset.store(0, Ordering::SeqCst);
    let asked = count.load(Ordering::SeqCst);
    world.until("scrapes after the jump back", || count.load(Ordering::SeqCst) >= asked + 5).await;
    let last = *world.samples(&series).keys().next_back().unwrap();
    offset.store(3_700, Ordering::SeqCst);
    world.until("samples later than all", || world.samples(&series).range(last + 1..).count() >= 3).await;
    let values = world.values(&series);
    assert_eq!(real(&values), values.len(), "no markers: {values:?}");
}
