//! Alertmanagers that fail, hang, refuse and come back.

use crate::AlertmanagerGroup;
use crate::tests::servers::{Answer, TestAlertmanager, World, config, firing, group, resolved, until};

#[tokio::test]
async fn alerts_reach_all_alertmanagers_of_all_groups_in_batches() {
    let (a, url_a) = TestAlertmanager::start().await;
    let (b, url_b) = TestAlertmanager::start().await;
    let (c, url_c) = TestAlertmanager::start().await;
    let url_b = url_b.replace("http://", "http://me:p%40ss@");
    let world = World::start(config(vec![group(&[&url_a, &url_b]), group(&[&url_c])]), None);
    world.send((0..150).map(|number| firing(&format!("a{number}"))).collect());
    let all = [&a, &b, &c];
    until("all have all alerts", || all.iter().all(|own| own.count() == 150)).await;
    for own in all {
        own.with(|received| {
            assert_eq!(received.batches, [64, 64, 22]);
            let alert = &received.alerts[149];
            assert_eq!(
                (alert.labels["alertname"].as_str(), alert.labels["cluster"].as_str()),
                ("a149", "eu-1")
            );
            assert_eq!(alert.annotations["summary"], "text");
            assert_eq!(alert.generator_url.as_deref(), Some("http://querier/graph"));
            assert!(alert.starts_at.ends_with('Z') && alert.starts_at < alert.ends_at, "{alert:?}");
        });
    }
    assert_eq!(b.with(|received| received.authorization.clone()).as_deref(), Some("Basic bWU6cEBzcw=="));
    assert_eq!(a.with(|received| received.authorization.clone()), None);
    world.is_sent().await;
    let url = format!("{url_a}/api/v2/alerts");
    let host = url.split('/').nth(2).unwrap();
    for (metric, expected) in [
        ("thanos_alert_queue_alerts_pushed_total", 150.0),
        ("thanos_alert_queue_alerts_popped_total", 150.0),
        ("thanos_alert_queue_alerts_dropped_total", 0.0),
        ("prometheus_notifications_dropped_total", 0.0),
        ("prometheus_notifications_queue_length", 0.0),
        ("thanos_alert_queue_capacity", 10_000.0),
        ("prometheus_notifications_alertmanagers_discovered", 3.0),
        (&format!("thanos_alert_sender_alerts_sent_total{{alertmanager=\"{host}\"}}"), 150.0),
        (&format!("prometheus_notifications_sent_total{{alertmanager=\"{url}\"}}"), 150.0),
        (&format!("prometheus_notifications_errors_total{{alertmanager=\"{url}\"}}"), 0.0),
        (&format!("thanos_alert_sender_latency_seconds_count{{alertmanager=\"{host}\"}}"), 3.0),
    ] {
        assert_eq!(world.metric(metric), expected, "{metric}");
    }
}

#[tokio::test]
async fn one_that_hangs_or_fails_delays_no_other_one_and_gets_all_when_it_is_back() {
    let (good, url_good) = TestAlertmanager::start().await;
    let (hanging, url_hanging) = TestAlertmanager::start().await;
    let (failing, url_failing) = TestAlertmanager::start().await;
    hanging.answers(Answer::Hang);
    failing.answers(Answer::Fail(500));
    let timeout = std::time::Duration::from_millis(200);
    let patient = AlertmanagerGroup { timeout, ..group(&[&url_good, &url_hanging, &url_failing]) };
    let world = World::start(config(vec![patient]), None);
    for number in 0..10 {
        world.send(vec![firing(&format!("a{number}"))]);
        until("the good one has the alert", || good.count() == number + 1).await;
    }
    world.is_sent().await;
    until("the others were asked again", || hanging.requests() > 1 && failing.requests() > 2).await;
    assert_eq!((hanging.count(), failing.count()), (0, 0));
    world.send(vec![resolved("a0")]);
    hanging.answers(Answer::Take);
    failing.answers(Answer::Take);
    until("the others have all", || hanging.count() == 11 && failing.count() == 11).await;
    for own in [hanging, failing] {
        own.with(|received| assert_eq!((received.names()[0], received.names()[10]), ("a0", "a0")));
    }
}

#[tokio::test]
async fn an_alert_that_is_refused_is_dropped_alone() {
    let (own, url) = TestAlertmanager::start().await;
    own.answers(Answer::Refuse("a40"));
    let world = World::start(config(vec![group(&[&url])]), None);
    world.send((0..100).map(|number| firing(&format!("a{number}"))).collect());
    world.is_sent().await;
    own.with(|received| {
        let mut names = received.names();
        names.sort_unstable();
        let mut expected: Vec<String> =
            (0..100).filter(|number| *number != 40).map(|number| format!("a{number}")).collect();
        expected.sort_unstable();
        assert_eq!(names, expected);
        assert!(received.requests < 30, "{} requests", received.requests);
    });
    assert_eq!(world.metric("thanos_alert_sender_alerts_dropped_total"), 1.0);
    assert_eq!(world.metric("prometheus_notifications_dropped_total"), 1.0);
    assert_eq!(world.metric("thanos_alert_queue_alerts_popped_total"), 99.0);
}

#[tokio::test]
async fn an_html_page_is_not_an_answer() {
    let (own, url) = TestAlertmanager::start().await;
    own.answers(Answer::Html);
    let world = World::start(config(vec![group(&[&url])]), None);
    world.send(vec![firing("a")]);
    until("it was asked again", || own.requests() > 1).await;
    assert_eq!(world.notifier.waiting(), 1);
    own.answers(Answer::Take);
    world.is_sent().await;
    assert_eq!(own.count(), 1);
}

#[tokio::test]
async fn the_oldest_are_dropped_while_nothing_can_be_sent() {
    let (own, url) = TestAlertmanager::start().await;
    own.answers(Answer::Fail(503));
    let mut config = config(vec![group(&[&url])]);
    config.capacity = 10;
    let world = World::start(config, None);
    world.send((0..25).map(|number| firing(&format!("a{number}"))).collect());
    assert_eq!(world.metric("thanos_alert_queue_alerts_dropped_total"), 15.0);
    assert_eq!(world.metric("prometheus_notifications_dropped_total"), 15.0);
    own.answers(Answer::Take);
    world.is_sent().await;
    own.with(|received| assert_eq!((received.names().len(), received.names()[0]), (10, "a15")));
}

#[tokio::test]
async fn alertmanagers_in_a_file_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("am.yml");
    std::fs::write(&file, "[]").unwrap();
    let yaml = format!(
        "alertmanagers: [{{file_sd_configs: [{{files: ['{}']}}], path_prefix: prefix}}]",
        file.display()
    );
    let world = World::start(config(AlertmanagerGroup::parse_all(&yaml, "".as_ref()).unwrap()), None);
    world.send(vec![firing("a")]);
    let (one, url_one) = TestAlertmanager::start().await;
    let (two, url_two) = TestAlertmanager::start().await;
    let replace = |url: &str| {
        let host = url.split('/').nth(2).unwrap();
        std::fs::write(folder.path().join("new"), format!("- targets: ['{host}']")).unwrap();
        std::fs::rename(folder.path().join("new"), &file).unwrap();
    };
    replace(&url_one);
    until("the first one has the alert", || one.count() == 1).await;
    world.is_sent().await;
    replace(&url_two);
    until("the second one is known", || world.notifier.alertmanagers()[..] == [url_two.clone()]).await;
    let gauge = "prometheus_notifications_alertmanagers_discovered";
    until("the first one is forgotten", || world.metric(gauge) == 1.0).await;
    world.send(vec![firing("b")]);
    until("the second one has the alert", || two.with(|received| received.names().contains(&"b"))).await;
    assert_eq!(one.count(), 1);
}
