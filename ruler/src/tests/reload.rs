//! Rule files that change.

use super::querier::{Behaviour, FakeQuerier};
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_state_and_wrong_files_change_nothing() {
    let dir = TempDir::new().unwrap();
    let group = |name: &str, rules: &str| format!("- name: {name}\n  interval: 300ms\n  rules: [{rules}]\n");
    let alert = "{alert: A, expr: up, for: 1h}";
    let stays = group("stays", alert);
    let changes = group("changes", &format!("{{record: old, expr: up}}, {}", alert.replace("A,", "B,")));
    let goes = group("goes", "{record: gone, expr: up}");
    write_rules(dir.path(), &format!("groups:\n{stays}{changes}{goes}"));
    let querier = FakeQuerier::start(Behaviour::Answers(vec![("a", 1.0)], vec![])).await;
    let role = start(dir.path(), &[&querier.flag()]).await;
    let http = role.http_address();
    for name in ["A", "B", "old", "gone"] {
        until_health(http, name, "ok").await;
    }
    let since = async |name: &str| rule(http, name).await["alerts"][0]["activeAt"].clone();
    let before = (since("A").await, since("B").await);
    assert!(before.0.is_string() && before.1.is_string(), "{before:?}");

    println!("a file with mistakes changes nothing, and all mistakes are listed");
    write_rules(dir.path(), "groups:\n- name: stays\n  rules: [{record: r}, {alert: X, expr: 'up +'}]\n");
    let (status, text) = ask(http, "POST", "/-/reload").await;
    assert_eq!(status, 500, "{text}");
    assert!(text.contains("rule 1 \"r\"") && text.contains("rule 2 \"X\""), "{text}");
    assert_eq!(metric(http, "thanos_rule_config_last_reload_successful").await, Some(0.0));
    assert_eq!(rule(http, "gone").await["health"], "ok");

    let changed = changes.replace("record: old", "record: new");
    write_rules(dir.path(), &format!("groups:\n{stays}{changed}"));
    let (status, text) = ask(http, "POST", "/-/reload").await;
    assert_eq!((status, text.as_str()), (200, ""));
    assert_eq!(metric(http, "thanos_rule_config_last_reload_successful").await, Some(1.0));
    assert_eq!((since("A").await, since("B").await), before, "the state is kept");
    assert_eq!(rule(http, "gone").await, Value::Null);
    until_health(http, "new", "ok").await;
    until("series of rules that are gone have ended", async || {
        stored(http, "{__name__=~'old|gone'}").await.is_empty()
    })
    .await;
    assert_eq!(stored(http, "new").await.len(), 1);
    let groups = metric(http, "thanos_rule_loaded_rules").await;
    assert_eq!(groups, None, "a metric with labels");
    let (_, metrics) = get(http, "/metrics").await;
    assert!(!metrics.contains(";goes\""), "metrics of groups that are gone are gone");
    stop(role).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_flags_and_files_are_refused_with_all_mistakes() {
    let dir = TempDir::new().unwrap();
    write_rules(dir.path(), "groups: [{name: g, rules: [{record: r}]}]");
    let check = async |flags: &[&str], expected: &[&str]| {
        let error = try_start(dir.path(), flags).await.map(drop).unwrap_err();
        for expected in expected {
            assert!(error.contains(expected), "{flags:?}: {error}");
        }
    };
    check(
        &[
            "--eval-interval=0s",
            "--query=ftp://x",
            "--alert.query-template={{.X}}",
            "--alert.relabel-config=- action: x",
            "--remote-write.config=remote_write: [{}]",
            "--web.prefix-header=a b",
            "--label=a=\"1\"",
            "--label=a=\"2\"",
        ],
        &[
            "rule 1 \"r\"",
            "--eval-interval=0s",
            "--query=ftp://x",
            "--alert.query-template",
            "--alert.relabel-config: line 1",
            "--remote-write.config: line 1",
            "--web.prefix-header",
            "--label: ",
        ],
    )
    .await;
    check(&["--label=replica=a"], &["is not of the form NAME=\"VALUE\""]).await;
    write_rules(dir.path(), "groups: []");
    check(&[], &["no source of data is given"]).await;
    check(&["--query=http://a", "--endpoint=a:1"], &["--query and --endpoint or --gateway are both given"])
        .await;
    check(&["--query=http://a", "--query.config=- static_configs: [b]"], &["are both given"]).await;
    check(
        &["--query=http://a", "--objstore.config={type: FILESYSTEM, config: {directory: /tmp/x}}"],
        &["--label: none is given, but blocks are uploaded"],
    )
    .await;
}
