//! Rulers that end again after one or two evaluations.

use super::alerts::receiver;
use super::querier::{Behaviour, FakeQuerier};
use super::*;

/// A sample of the expression of each rule.
fn samples() -> Vec<(&'static str, f64)> {
    vec![("a", 1.0)]
}

/// Whether an alert was received, by its name.
fn has(received: &std::sync::Mutex<Vec<Value>>, name: &str) -> bool {
    received.lock().unwrap().iter().any(|alert| alert["labels"]["alertname"] == name)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_that_fired_is_sent_by_a_ruler_that_lives_for_one_evaluation() {
    let dir = TempDir::new().unwrap();
    let fired = "{alert: Fired, expr: up, for: 1s}";
    write_rules(dir.path(), &format!("groups: [{{name: g, interval: 500ms, rules: [{fired}]}}]"));
    let querier = FakeQuerier::start(Behaviour::Answers(samples(), vec![])).await;
    querier.set_restoring(Behaviour::Answers(vec![], vec![]));
    let (address, received) = receiver().await;
    let flags = [&querier.flag(), &format!("--alertmanagers.url=http://{address}")];
    let role = start(dir.path(), &flags.map(String::as_str)).await;
    until("the alert fires", async || has(&received, "Fired")).await;
    until("it was stored as firing", async || {
        !stored(role.http_address(), "ALERTS{alertstate='firing'}").await.is_empty()
    })
    .await;
    stop(role).await;

    println!("an alert that is new comes before it, and what other rulers know of that one is not answered");
    let rules = format!(
        "groups: [{{name: g, interval: 500ms, rules: [{{alert: New, expr: up, for: 1h}}, {fired}]}}]"
    );
    write_rules(dir.path(), &rules);
    querier.set_restoring(Behaviour::Hangs);
    for _ in 0..3 {
        received.lock().unwrap().clear();
        // Two rules, so one evaluation.
        querier.set(Behaviour::AnswersFirst(2, samples()));
        let began = crate::now::now();
        let role = start(dir.path(), &flags.map(String::as_str)).await;
        until("the alert is sent", async || has(&received, "Fired")).await;
        until("its state is stored", async || {
            let at = stored(role.http_address(), "timestamp(ALERTS_FOR_STATE{alertname='Fired'})").await;
            at.iter().any(|(_, at)| at.parse::<f64>().unwrap() * 1000.0 >= began.as_millis() as f64)
        })
        .await;
        stop(role).await;
        assert!(!has(&received, "New"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_with_for_fires_in_rulers_that_live_for_two_evaluations() {
    let dir = TempDir::new().unwrap();
    write_rules(dir.path(), "groups: [{name: g, interval: 300ms, rules: [{alert: A, expr: up, for: 2s}]}]");
    let querier = FakeQuerier::start(Behaviour::Hangs).await;
    querier.set_restoring(Behaviour::Answers(vec![], vec![]));
    let (address, received) = receiver().await;
    let alertmanager = format!("--alertmanagers.url=http://{address}");
    let flags = [&querier.flag(), alertmanager.as_str(), "--for-grace-period=0s"];
    let mut lives = 0;
    while !has(&received, "A") {
        lives += 1;
        assert!(lives <= 10, "after {lives} lives of two evaluations, an alert with for: 2s does not fire");
        querier.requests();
        querier.set(Behaviour::AnswersFirst(2, samples()));
        let role = start(dir.path(), &flags).await;
        let mut asked = 0;
        until("a third evaluation hangs", async || {
            let is_rule = |form: &Vec<(String, String)>| form.iter().any(|(_, value)| value == "up");
            asked += querier.requests().iter().filter(|form| is_rule(form)).count();
            asked > 2
        })
        .await;
        stop(role).await;
    }
    println!("it fired in life {lives}");
    assert!(lives > 1, "one life is too short for the alert");
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_for_stored_states_that_hang_miss_no_evaluation() {
    let dir = TempDir::new().unwrap();
    write_rules(dir.path(), "groups: [{name: g, interval: 500ms, rules: [{alert: A, expr: up, for: 1h}]}]");
    let querier = FakeQuerier::start(Behaviour::Answers(samples(), vec![])).await;
    querier.set_restoring(Behaviour::Hangs);
    let role = start(dir.path(), &[&querier.flag()]).await;
    let http = role.http_address();
    let group = format!("rule_group=\"{};g\",strategy=\"abort\"", dir.path().join("rules.yaml").display());
    let count = async |name: &str| metric(http, &format!("{name}{{{group}}}")).await.unwrap_or_default();
    until("five evaluations", async || count("prometheus_rule_group_iterations_total").await >= 5.0).await;
    let missed = count("prometheus_rule_group_iterations_missed_total").await;
    let iterations = count("prometheus_rule_group_iterations_total").await;
    // The query after a rule may end half an interval after the next evaluation is due.
    assert!(missed <= iterations / 2.0, "{missed} of {iterations} were missed");
    stop(role).await;
}
