//! What the other side sees of a gateway that runs: whether it is connected, which of its stores are read, and how far the clocks are
//! apart.

use std::path::Path;
use std::time::{Duration, SystemTime};

use gateway::component::ask_running;
use serde_json::Value;

use crate::doctor::clocks;
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::subject::Subject;

const CHECK: &str = "other side";

pub(super) async fn check(subject: &Subject) -> Vec<Finding> {
    let Some(data_dir) = &subject.data_dir else { return Vec::new() };
    if !data_dir.join("admin.sock").exists() {
        return vec![Finding::ok(
            CHECK,
            "no gateway runs with this data directory; run this again after its start",
        )];
    }
    match look(data_dir).await {
        Ok(findings) => findings,
        Err(error) => vec![Finding::warning(CHECK, error)],
    }
}

async fn look(data_dir: &Path) -> Result<Vec<Finding>, String> {
    let status = ask_running(data_dir, "status").await?;
    let role = status["role"].as_str().unwrap_or_default();
    let mut findings = match status["connections"].as_u64() {
        Some(0) | None if role == "cluster" => attempts(&ask_running(data_dir, "connect-test").await?),
        count => vec![Finding::ok(CHECK, format!("{} connections", count.unwrap_or_default()))],
    };
    findings.extend(clocks_of(&ask_running(data_dir, "peers").await?, SystemTime::now()));
    if let Some(serving) = status["serving"].as_str().filter(|serving| *serving != "serving") {
        findings.push(Finding::warning(
            CHECK,
            format!("this gateway is {serving}, so that its stores are not read; `isthmus gateway resume` changes that"),
        ));
    }
    let targets = ask_running(data_dir, "targets").await?;
    findings.extend(targets.as_array().into_iter().flatten().map(of_target));
    Ok(findings)
}

/// Why a gateway is not connected: what each attempt to connect said.
fn attempts(test: &Value) -> Vec<Finding> {
    let text = |attempt: &Value, field: &str| attempt[field].as_str().unwrap_or_default().to_owned();
    let line = |attempt: &Value| {
        let to = format!("{} {}", text(attempt, "dial"), text(attempt, "transport"));
        match text(attempt, "error").as_str() {
            "" => format!(
                "{}: a handshake succeeds, and the session does not; see the log of both gateways",
                to.trim()
            ),
            error => format!("{}: {error}", to.trim()),
        }
    };
    let lines = test.as_array().into_iter().flatten().map(line);
    let not_connected =
        |why: String| Finding::critical(CHECK, format!("this gateway is not connected: {why}"));
    let findings: Vec<Finding> = lines.map(not_connected).collect();
    if findings.is_empty() {
        return vec![not_connected(
            "it dials no address, and no gateway of the other side has dialled it".to_owned(),
        )];
    }
    findings
}

/// The clocks of the connected gateways, at the time when they connected; one line if all of them agree.
fn clocks_of(peers: &Value, now: SystemTime) -> Vec<Finding> {
    let mut findings = Vec::new();
    for peer in peers.as_array().into_iter().flatten() {
        let Some(ahead) = peer["clock_ahead_seconds"].as_f64() else { continue };
        let Ok(apart) = Duration::try_from_secs_f64(ahead.abs()) else { continue };
        let theirs = if ahead < 0.0 { now.checked_sub(apart) } else { now.checked_add(apart) };
        let name = format!("the one of {} when it connected", peer["peer"].as_str().unwrap_or_default());
        findings.extend(theirs.map(|theirs| clocks::judge(&name, theirs, now)));
    }
    let wrong: Vec<Finding> =
        findings.iter().filter(|finding| finding.severity != Severity::Ok).cloned().collect();
    match (wrong.is_empty(), findings.len()) {
        (true, many @ 2..) => {
            vec![Finding::ok(clocks::CHECK, format!("agrees with those of {many} gateways"))]
        }
        (true, _) => findings,
        (false, _) => wrong,
    }
}

fn of_target(target: &Value) -> Finding {
    let text = |field: &str| target[field].as_str().unwrap_or_default();
    let name = text("name");
    match (target["healthy"].as_bool(), text("refused")) {
        (Some(true), "") => Finding::ok(CHECK, format!("store {name} is read")),
        (Some(true), refused) => Finding::critical(CHECK, format!("store {name} is not read: {refused}")),
        _ => Finding::critical(CHECK, format!("store {name} does not answer: {}", text("error"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn attempts_to_connect_say_why_a_gateway_is_not_connected() {
        let refused = json!([
            {"dial": "gw:1", "transport": "quic", "error": "no answer"},
            {"dial": "gw:1", "transport": "tcp", "error": ""},
        ]);
        let texts: Vec<String> = attempts(&refused).into_iter().map(|finding| finding.text).collect();
        assert!(texts[0].ends_with("not connected: gw:1 quic: no answer"), "{texts:?}");
        assert!(texts[1].contains("gw:1 tcp: a handshake succeeds"), "{texts:?}");
        assert!(attempts(&json!([]))[0].text.contains("dials no address"));
    }

    #[test]
    fn clocks_of_gateways_that_differ_are_named_and_those_that_agree_are_counted() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let peers = |clocks: &[f64]| -> Value {
            clocks.iter().map(|ahead| json!({"peer": "spiffe://a/x", "clock_ahead_seconds": ahead})).collect()
        };
        let check = |ahead: &[f64], severity: Severity, expected: &str| {
            let findings = clocks_of(&peers(ahead), now);
            let [finding] = &findings[..] else { panic!("{findings:?}") };
            assert!(finding.severity == severity && finding.text.contains(expected), "{finding:?}");
        };
        check(&[0.2], Severity::Ok, "spiffe://a/x");
        check(&[0.2, -1.0, 3.0], Severity::Ok, "those of 3 gateways");
        check(&[0.2, 40.0], Severity::Warning, "40 s behind the one of spiffe://a/x");
        check(&[-90.0], Severity::Critical, "90 s ahead of the one of spiffe://a/x");
        assert!(clocks_of(&json!([{"peer": "an earlier version"}]), now).is_empty());
        assert!(clocks_of(&peers(&[f64::MAX]), now).is_empty());
    }

    #[test]
    fn a_store_that_is_not_read_is_critical_with_the_reason() {
        let check = |target: Value, severity: Severity, expected: &str| {
            let finding = of_target(&target);
            assert!(finding.severity == severity && finding.text.contains(expected), "{finding:?}");
        };
        check(json!({"name": "a", "healthy": true, "error": ""}), Severity::Ok, "a is read");
        check(
            json!({"name": "a", "healthy": true, "refused": "labels"}),
            Severity::Critical,
            "not read: labels",
        );
        check(
            json!({"name": "a", "healthy": false, "error": "refused"}),
            Severity::Critical,
            "answer: refused",
        );
        check(json!({}), Severity::Critical, "does not answer");
    }
}
