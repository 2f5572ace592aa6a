//! Queries that hang.

use super::querier::{Behaviour, FakeQuerier};
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_hangs_ends_and_the_next_evaluation_is_not_missed() {
    let dir = TempDir::new().unwrap();
    let rules: Vec<String> = (0..20).map(|n| format!("  - {{record: r{n}, expr: up}}\n")).collect();
    write_rules(dir.path(), &format!("groups:\n- name: g\n  interval: 1s\n  rules:\n{}", rules.concat()));
    let querier = FakeQuerier::start(Behaviour::Hangs).await;
    let role = start(dir.path(), &[&querier.flag()]).await;
    let http = role.http_address();
    let failed = until_health(http, "r0", "err").await;
    assert!(failed["lastError"].as_str().unwrap().contains("no answer within"), "{failed}");
    let left_out = until_health(http, "r19", "err").await;
    let expected = "not evaluated: an earlier query of the group did not end in time";
    assert_eq!(left_out["lastError"], expected);
    // 20 rules that each wait for a second would miss 19 of 20 evaluations.
    let group = format!("rule_group=\"{};g\",strategy=\"abort\"", dir.path().join("rules.yaml").display());
    let count = async |name: &str| metric(http, &format!("{name}{{{group}}}")).await.unwrap();
    until("five evaluations", async || count("prometheus_rule_group_iterations_total").await >= 5.0).await;
    let missed = count("prometheus_rule_group_iterations_missed_total").await;
    let iterations = count("prometheus_rule_group_iterations_total").await;
    assert!(missed <= iterations / 2.0, "{missed} of {iterations} were missed");

    println!("the ruler recovers, and stops at once while a query hangs");
    querier.set(Behaviour::Answers(vec![("a", 1.0)], vec![]));
    until_health(http, "r19", "ok").await;
    querier.set(Behaviour::Hangs);
    until_health(http, "r0", "err").await;
    let stopping = tokio::time::timeout(Duration::from_secs(30), stop(role));
    stopping.await.expect("the ruler stops although a query hangs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_querier_that_hangs_does_not_keep_another_one_from_being_asked() {
    let dir = TempDir::new().unwrap();
    write_rules(dir.path(), "groups: [{name: g, interval: 1s, rules: [{record: r, expr: up}]}]");
    let hanging = FakeQuerier::start(Behaviour::Hangs).await;
    let good = FakeQuerier::start(Behaviour::Answers(vec![("a", 1.0)], vec![])).await;
    let role = start(dir.path(), &[&hanging.flag(), &good.flag()]).await;
    let http = role.http_address();
    until("a request hangs", async || !hanging.requests().is_empty()).await;
    until_health(http, "r", "ok").await;
    assert_eq!(rule(http, "r").await["health"], "ok");
    let failures = format!(
        "prometheus_rule_evaluation_failures_total{{rule_group=\"{};g\",strategy=\"abort\"}}",
        dir.path().join("rules.yaml").display()
    );
    assert_eq!(metric(http, &failures).await, Some(0.0));
    stop(role).await;
}
