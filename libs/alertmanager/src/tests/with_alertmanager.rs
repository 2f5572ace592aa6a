//! With a real Alertmanager. Without it, a line says that the test was skipped.

use std::path::Path;

use model::Labels;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::tests::real::{RealAlertmanager, Webhook};
use crate::tests::servers::{World, config, firing, group, until};
use crate::{Alert, AlertmanagerGroup};

/// The resolution of an alert that fires.
fn end_of(alert: &Alert) -> Alert {
    Alert { ends_at: crate::tests::servers::now(), ..alert.clone() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_alertmanager_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (webhook, url) = Webhook::start().await;
    let Some(mut alertmanager) = RealAlertmanager::start(folder.path(), &url) else { return };
    let world = World::start(config(vec![group(&[&alertmanager.url()])]), Some(folder.path()));
    let old = firing("old");
    world.send(vec![old.clone()]);
    until("the receiver knows the alert", || webhook.of("old") == [1, 0]).await;
    assert_eq!(alertmanager.names(), ["old"]);
    alertmanager.stop();
    // Alerts come, go, and are sent again while Alertmanager is away.
    let again = Alert { annotations: Labels::empty(), ..old.clone() };
    world.send(vec![again, firing("new")]);
    world.send(vec![end_of(&old)]);
    until("it was tried", || world.failures() > 2.0).await;
    assert_eq!(world.notifier.waiting(), 3);
    alertmanager.start_again();
    world.is_sent().await;
    until("the receiver knows all", || webhook.of("old") == [1, 1] && webhook.of("new") == [1, 0]).await;
    assert_eq!(alertmanager.names(), ["new"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resolution_that_was_not_sent_before_our_restart_is_sent_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let (webhook, url) = Webhook::start().await;
    let Some(mut alertmanager) = RealAlertmanager::start(folder.path(), &url) else { return };
    let alertmanager_url = alertmanager.url();
    let start = || start_at(&alertmanager_url, folder.path());
    let world = start();
    let alert = firing("a");
    world.send(vec![alert.clone()]);
    until("the receiver knows the alert", || webhook.of("a") == [1, 0]).await;
    alertmanager.stop();
    world.send(vec![end_of(&alert)]);
    world.notifier.saved().await;
    world.kill().await;
    // It does not matter that the rules do not know the alert any more.
    let world = start();
    alertmanager.start_again();
    world.is_sent().await;
    until("the receiver knows the resolution", || webhook.of("a") == [1, 1]).await;
    assert!(alertmanager.names().is_empty());
    world.stop().await;
}

fn start_at(url: &str, data_dir: &Path) -> World {
    World::start(config(vec![group(&[url])]), Some(data_dir))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_and_two_alertmanagers_make_one_alert() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (webhook, url) = Webhook::start().await;
    let Some(one) = RealAlertmanager::start(folders[0].path(), &url) else { return };
    let Some(two) = RealAlertmanager::start(folders[1].path(), "http://127.0.0.1:1/") else { return };
    let replicas = [(); 2].map(|()| World::start(config(vec![group(&[&one.url(), &two.url()])]), None));
    let alert = firing("a");
    for (world, delay) in replicas.iter().zip([0, 7]) {
        // Replicas evaluate at different times.
        let starts_at = alert.starts_at.offset_millis(delay);
        world.send(vec![Alert { starts_at, ..alert.clone() }]);
        world.is_sent().await;
    }
    for alertmanager in [&one, &two] {
        let active = alertmanager.active();
        assert_eq!((active.len(), active[0]["cluster"].as_str()), (1, "eu-1"));
    }
    until("the receiver knows the alert", || webhook.of("a") == [1, 0]).await;
    // It is still one after both have sent it again, and resolved it.
    for world in &replicas {
        world.send(vec![Alert { annotations: Labels::empty(), ..alert.clone() }]);
        world.is_sent().await;
    }
    for world in &replicas {
        world.send(vec![end_of(&alert)]);
    }
    until("the receiver knows the resolution", || webhook.of("a") == [1, 1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_that_alertmanager_refuses_do_not_take_others_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let (_webhook, url) = Webhook::start().await;
    let Some(alertmanager) = RealAlertmanager::start(folder.path(), &url) else { return };
    let world = World::start(config(vec![group(&[&alertmanager.url()])]), None);
    let mut alerts: Vec<Alert> = (10..40).map(|number| firing(&format!("a{number}"))).collect();
    alerts[7].labels = Labels::from_pairs([("alertname", "a17"), ("not a name", "x")]).unwrap();
    alerts[20].generator_url = "::".to_owned();
    world.send(alerts);
    world.is_sent().await;
    let expected: Vec<String> =
        (10..40).filter(|number| ![17, 30].contains(number)).map(|number| format!("a{number}")).collect();
    assert_eq!(alertmanager.names(), expected);
    assert_eq!(world.metric("thanos_alert_sender_alerts_dropped_total"), 2.0);
}

/// Writes a CA, a certificate for 127.0.0.1, and the `web.yml` of Alertmanager with a user.
fn write_tls(folder: &Path) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    std::fs::write(folder.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    std::fs::write(folder.join("own.pem"), own.pem()).unwrap();
    std::fs::write(folder.join("own.key"), key.serialize_pem()).unwrap();
    // The hash of "fakepassword", from the tests of Prometheus' exporter toolkit.
    let web = "tls_server_config: {cert_file: own.pem, key_file: own.key}\n\
               basic_auth_users: {me: '$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi'}\n";
    std::fs::write(folder.join("web.yml"), web).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_are_sent_with_tls_and_credentials_and_wait_while_they_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_tls(folder.path());
    let (webhook, url) = Webhook::start().await;
    let Some(alertmanager) = RealAlertmanager::start(folder.path(), &url) else { return };
    let password = folder.path().join("password");
    std::fs::write(&password, "wrong").unwrap();
    let yaml = format!(
        "alertmanagers:\n- scheme: https\n  static_configs: ['127.0.0.1:{}']\n  http_config:\n    \
         basic_auth: {{username: me, password_file: password}}\n    tls_config: {{ca_file: ca.pem}}\n",
        alertmanager.port
    );
    let groups = AlertmanagerGroup::parse_all(&yaml, folder.path()).unwrap();
    let world = World::start(config(groups), None);
    world.send(vec![firing("a")]);
    until("it was tried", || world.failures() > 1.0).await;
    assert_eq!((world.notifier.waiting(), webhook.of("a")), (1, [0, 0]));
    std::fs::write(&password, "fakepassword\n").unwrap();
    world.is_sent().await;
    until("the receiver knows the alert", || webhook.of("a") == [1, 0]).await;
}
