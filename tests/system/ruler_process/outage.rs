//! Without storage of its own, the ruler sends what it records to a real Prometheus, which is away for many evaluations.

use tests::Prometheus;

use super::*;

/// Rules that are evaluated five times in a second.
const RULES: usize = 20;
/// Evaluations during the outage.
const MISSED: usize = 30;

/// Starts a Prometheus that receives samples.
fn receiver(dir: &Path, at: SocketAddr) -> Process {
    let args = [
        format!("--config.file={}", write(dir, "prometheus.yml", "global: {scrape_interval: 1h}\n")),
        format!("--storage.tsdb.path={}", dir.join("receiver").display()),
        format!("--web.listen-address={at}"),
        "--web.enable-remote-write-receiver".to_owned(),
    ];
    let mut process = Process::start(Path::new("prometheus"), &args, &dir.join("receiver.log"));
    process.wait_ready("prometheus", at);
    process
}

fn rules() -> String {
    let rule = |rule| format!("  - {{record: 'sent:{rule}', expr: vector(time())}}\n");
    let rules: String = (0..RULES).map(rule).collect();
    format!("groups:\n- name: g\n  interval: 200ms\n  rules:\n{rules}")
}

const SENT: &str = "{__name__=~\"sent:.*\"}[1h]";

#[test]
fn an_outage_of_the_receiver_loses_no_sample_also_over_restarts() {
    if !Prometheus::is_installed("the receiver of remote write") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let at = free_port();
    // It only has to be named: no rule reads a series.
    let querier = Role::new(dir, "querier", "query", &[]);
    let queue = "{batch_send_deadline: 100ms, max_samples_per_send: 100, max_backoff: 500ms}";
    let target = format!("remote_write: [{{url: 'http://{at}/api/v1/write', queue_config: {queue}}}]\n");
    let own = [
        format!("--query=http://{}", querier.http),
        format!("--rule-file={}", write(dir, "rules.yaml", &rules())),
        format!("--data-dir={}", dir.join("data").display()),
        format!("--remote-write.config-file={}", write(dir, "remote.yaml", &target)),
        "--label=replica=\"a\"".to_owned(),
    ];
    let ruler = Role::new(dir, "ruler", "rule", &own);
    let mut prometheus = receiver(dir, at);
    let mut answering = querier.start();
    let mut process = ruler.start();
    let asked = Role { http: at, ..Role::new(dir, "asked", "none", &[]) };
    // The last rule of an evaluation: the ruler may be killed as soon as it is seen, and those before it are recorded then.
    let last = format!("sent:{}[1h]", RULES - 1);
    let count = |role: &Role| role.samples(&last).map(|samples| samples.len());
    let more_than = |least: usize| {
        wait_for(&format!("{least} recorded samples of a rule"), PATIENCE, || match count(&ruler)? {
            found if found >= least => Ok(found),
            found => Err(found.to_string()),
        })
    };
    wait_for("the receiver to have samples", PATIENCE, || match count(&asked)? {
        0 => Err("none".to_owned()),
        _ => Ok(()),
    });

    println!("the receiver is gone, and the ruler is killed and then restarted meanwhile");
    prometheus.kill();
    let begun = more_than(1);
    more_than(begun + MISSED / 3);
    process.kill();
    process = ruler.start();
    more_than(begun + MISSED * 2 / 3);
    assert_eq!(process.terminate(), Some(0), "{}", process.output());
    process = ruler.start();
    more_than(begun + MISSED);

    println!("it is back, and nothing more is recorded");
    let _prometheus = receiver(dir, at);
    answering.kill();
    ruler.until_health("sent:0", "err");
    let recorded = ruler.samples(SENT).expect("samples");
    assert!(recorded.len() >= RULES * MISSED, "{} samples", recorded.len());
    let with_label = |((series, time), value): (&(String, String), &String)| {
        let mut series: Value = serde_json::from_str(series).expect("labels");
        series["replica"] = "a".into();
        ((series.to_string(), time.clone()), value.clone())
    };
    let recorded: BTreeMap<_, _> = recorded.iter().map(with_label).collect();
    wait_for("the receiver to have all samples", PATIENCE, || {
        let received = asked.samples(SENT)?;
        if received == recorded {
            return Ok(());
        }
        let missing: Vec<_> = recorded.keys().filter(|sample| !received.contains_key(*sample)).collect();
        Err(format!("{} of {}; {missing:?} are missing", received.len(), recorded.len()))
    });
    println!("{} samples were recorded and received", recorded.len());
    let (_, metrics) = get(at, "/metrics").expect("metrics");
    let refused: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("prometheus_tsdb_out_of") && !line.ends_with(" 0"))
        .collect();
    assert!(refused.is_empty(), "samples were not sent in their order: {refused:?}");
    assert_eq!(process.terminate(), Some(0), "{}", process.output());
}
