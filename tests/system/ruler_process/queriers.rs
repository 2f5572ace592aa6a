//! The querier of the ruler hangs, has partial answers, and is gone.

use std::time::SystemTime;

use rustix::process::{Pid, Signal, kill_process};
use tests::{Notifications, alertmanager};

use super::*;

/// Alertmanager resolves an alert that is not sent again in four times the resend delay, which is a second.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(4);

const RULES: &str = "groups:\n- name: g\n  interval: 500ms\n  rules:\n\
    \x20 - {record: recorded, expr: vector(1)}\n\
    \x20 - {alert: Fires, expr: sum(recorded) > 0, annotations: {summary: 'of {{ $value }}'}}\n";

/// Rulers `a` and `b`, a querier over both, which answers their rules, and the Alertmanager of `a`.
struct FaultWorld {
    querier: Role,
    rulers: [Role; 2],
    notified: Notifications,
    alertmanager: SocketAddr,
}

impl FaultWorld {
    fn new(dir: &Path) -> Self {
        let own = ["--query.replica-label=replica".to_owned(), "--endpoint.info-timeout=300ms".to_owned()];
        let mut querier = Role::new(dir, "querier", "query", &own);
        let (notified, at) = (Notifications::start(), free_port());
        let file = write(dir, "rules.yaml", RULES);
        let ruler = |name: &str, own: &[String]| {
            let mut args = vec![
                format!("--query=http://{}", querier.http),
                format!("--rule-file={file}"),
                format!("--data-dir={}", dir.join(name).display()),
                format!("--label=replica=\"{name}\""),
                "--alert.label-drop=replica".to_owned(),
                "--resend-delay=1s".to_owned(),
            ];
            args.extend_from_slice(own);
            Role::new(dir, name, "rule", &args)
        };
        let rulers = [ruler("a", &[format!("--alertmanagers.url=http://{at}")]), ruler("b", &[])];
        querier.args.extend(rulers.iter().map(|ruler| format!("--endpoint={}", ruler.grpc)));
        Self { querier, rulers, notified, alertmanager: at }
    }

    /// Waits until the rule fails, and until Alertmanager has the alert for longer than it would have it without being told again. Only
    /// the first notification was sent.
    fn stays_active(&self, why: &str) {
        println!("{why}: the rule fails, and its alert is still active");
        self.rulers[0].until_health("Fires", "err");
        let forgotten = SystemTime::now() + FORGOTTEN_AFTER + Duration::from_secs(1);
        let forgotten = forgotten.duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_secs();
        wait_for("an alert that is sent again", PATIENCE, || {
            let (_, body) = get(self.alertmanager, "/api/v2/alerts")?;
            let alerts: Value = serde_json::from_str(&body).map_err(|why| format!("{why}: {body}"))?;
            let ends_at = alerts[0]["endsAt"].as_str().ok_or("no alert is active")?;
            if seconds(ends_at) > forgotten { Ok(()) } else { Err(body) }
        });
        assert_eq!(self.notified.counts().into_values().collect::<Vec<_>>(), [[1, 0]], "{why}");
    }
}

/// Seconds since the epoch of a time in UTC, such as `2026-11-30T15:00:00.000Z`.
fn seconds(text: &str) -> u64 {
    let output = std::process::Command::new("date").args(["-u", "-d", text, "+%s"]).output().expect("date");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("seconds")
}

fn signal(process: &Process, signal: Signal) {
    let id = i32::try_from(process.id()).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(id, signal).expect("a signal");
}

#[test]
fn an_alert_is_neither_resolved_nor_repeated_while_the_querier_fails() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = FaultWorld::new(dir.path());
    let Some(_alertmanager) = alertmanager(dir.path(), world.alertmanager, Some(&world.notified)) else {
        return;
    };
    let mut querier = world.querier.launch();
    let [mut a, mut b] = [&world.rulers[0], &world.rulers[1]].map(Role::start);
    wait_for("a notification", PATIENCE, || {
        let counts = world.notified.counts();
        if counts.values().eq(&[[1, 0]]) { Ok(()) } else { Err(format!("{counts:?}")) }
    });
    // Its samples were there while both rulers could be reached.
    world.rulers[0].until_health("Fires", "ok");

    signal(&querier, Signal::STOP);
    world.stays_active("the querier hangs");
    signal(&querier, Signal::CONT);
    world.rulers[0].until_health("Fires", "ok");

    b.kill();
    world.stays_active("a store is gone, and answers are partial");
    b = world.rulers[1].start();
    world.rulers[0].until_health("Fires", "ok");

    querier.kill();
    world.stays_active("the querier is gone");
    let _querier = world.querier.start();
    world.rulers[0].until_health("Fires", "ok");

    println!("the alert ends, which is notified once");
    fs::write(dir.path().join("rules.yaml"), RULES.replace("> 0", "> 9")).expect("rules");
    assert_eq!(tests::post_form(world.rulers[0].http, "/-/reload", ""), Ok((200, String::new())));
    wait_for("its resolution", PATIENCE, || {
        let counts = world.notified.counts();
        if counts.values().eq(&[[1, 1]]) { Ok(()) } else { Err(format!("{counts:?}")) }
    });
    assert_eq!([a.terminate(), b.terminate()], [Some(0); 2]);
}
