//! What prometheus-operator passes to a ThanosRuler.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_arguments_of_prometheus_operator_are_accepted() {
    let dir = TempDir::new().unwrap();
    write_rules(dir.path(), "groups: [{name: g, interval: 300ms, rules: [{record: r, expr: vector(1)}]}]");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let querier =
        super::querier::FakeQuerier::start(super::querier::Behaviour::Answers(vec![("a", 1.0)], vec![]))
            .await;
    let queriers = format!(
        "- static_configs: ['{}']\n  scheme: http\n  http_config: {{basic_auth: {{username: u, password: p}}}}\n",
        querier.address
    );
    let bucket =
        format!("type: FILESYSTEM\nconfig: {{directory: {}}}\n", dir.path().join("bucket").display());
    std::fs::create_dir(dir.path().join("bucket")).unwrap();
    let flags = [
        "--eval-interval=15s".to_owned(),
        "--tsdb.retention=24h".to_owned(),
        "--rule-query-offset=1s".to_owned(),
        "--rule-concurrent-evaluation=4".to_owned(),
        "--for-outage-tolerance=1h".to_owned(),
        "--for-grace-period=10m".to_owned(),
        "--resend-delay=1m".to_owned(),
        "--enable-feature=promql-experimental-functions".to_owned(),
        // Thanos ignores features that it does not know, and so do operators that pass them on.
        "--enable-feature=promql-at-modifier,xor2-encoding,none-such".to_owned(),
        "--label=thanos_ruler_replica=\"pod-0\"".to_owned(),
        "--alert.label-drop=thanos_ruler_replica".to_owned(),
        "--log.level=info".to_owned(),
        "--log.format=logfmt".to_owned(),
        format!("--query.config-file={}", file("query.yaml", &queriers)),
        format!(
            "--alertmanagers.config-file={}",
            file("am.yaml", "alertmanagers: [{static_configs: ['127.0.0.1:1'], api_version: v2}]\n")
        ),
        format!("--objstore.config-file={}", file("bucket.yaml", &bucket)),
        format!(
            "--alert.relabel-config-file={}",
            file("relabel.yaml", "- {regex: prometheus_replica, action: labeldrop}\n")
        ),
        "--web.external-prefix=/ruler".to_owned(),
        "--web.route-prefix=/".to_owned(),
        "--alert.query-url=https://q.example".to_owned(),
        "--tsdb.wal-compression".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let role = start(dir.path(), &flags).await;
    let http = role.http_address();
    until_health(http, "r", "ok").await;
    assert_eq!(ask(http, "POST", "/-/reload").await.0, 200);
    stop(role).await;
}
