//! Restarts of ours.

use crate::tests::servers::{Answer, TestAlertmanager, World, config, firing, group, resolved, until};

#[tokio::test]
async fn alerts_that_were_not_sent_before_a_restart_are_sent_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let (own, url) = TestAlertmanager::start().await;
    own.answers(Answer::Fail(500));
    let start = || World::start(config(vec![group(&[&url])]), Some(folder.path()));
    let world = start();
    world.send(vec![firing("a"), firing("b")]);
    world.send(vec![resolved("a")]);
    until("it was asked", || own.requests() > 0).await;
    world.stop().await;
    let world = start();
    assert_eq!(world.notifier.waiting(), 3);
    world.send(vec![firing("c")]);
    world.notifier.saved().await;
    world.kill().await;
    own.answers(Answer::Take);
    let world = start();
    world.is_sent().await;
    own.with(|received| assert_eq!(received.names(), ["a", "b", "a", "c"]));
    world.stop().await;
    let world = start();
    assert_eq!(world.notifier.waiting(), 0);
    world.stop().await;
    assert_eq!(own.count(), 4);
}

#[tokio::test]
async fn a_shutdown_sends_what_is_left() {
    let (own, url) = TestAlertmanager::start().await;
    let world = World::start(config(vec![group(&[&url])]), None);
    world.send((0..200).map(|number| firing(&format!("a{number}"))).collect());
    world.stop().await;
    assert_eq!(own.count(), 200);
}
