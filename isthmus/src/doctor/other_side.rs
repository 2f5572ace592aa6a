//! What the other side sees of a gateway that runs: whether it is connected, and which of its stores are read.

use std::path::Path;

use gateway::component::ask_running;
use serde_json::Value;

use crate::doctor::finding::Finding;
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
    let mut findings = vec![match status["connections"].as_u64() {
        Some(0) | None if role == "cluster" => Finding::critical(
            CHECK,
            "this gateway is not connected; `isthmus gateway connect-test` shows why, and its log names the reason",
        ),
        count => Finding::ok(CHECK, format!("{} connections", count.unwrap_or_default())),
    }];
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
    use crate::doctor::finding::Severity;

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
