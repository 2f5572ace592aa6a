//! Quantities, and what must fit together: requests and limits, the memory that a role may use, the time to stop.

use serde_json::Value;

use crate::charts::objects::{at, containers, list, pod, text, title, workloads};

pub(super) fn check(objects: &[Value]) -> Vec<String> {
    let mut faults = Vec::new();
    for workload in workloads(objects) {
        for container in containers(workload) {
            let what = format!("{}: {}", title(workload), text(container, "name"));
            for (kind, values) in container["resources"].as_object().into_iter().flatten() {
                for (name, value) in values.as_object().into_iter().flatten() {
                    if bytes(value).is_none() {
                        faults.push(format!("{what}: resources.{kind}.{name}: {value} is not a quantity"));
                    }
                }
            }
            let memory = |kind: &str| bytes(at(container, &format!("resources.{kind}.memory")));
            let (request, limit) = (memory("requests"), memory("limits"));
            if request.is_none() || limit.is_none() || request > limit {
                faults.push(format!("{what}: memory: requests {request:?}, limit {limit:?}"));
            }
            if let Some(budget) = argument(container, "--store.max-memory=")
                && bytes(&Value::String(budget.trim_end_matches('B').to_owned()))
                    .zip(limit)
                    .is_none_or(|(budget, limit)| budget * 1.1 > limit)
            {
                faults.push(format!(
                    "{what}: --store.max-memory={budget} and a tenth more do not fit into its memory"
                ));
            }
            faults.extend(time_to_stop(workload, container).map(|fault| format!("{what}: {fault}")));
        }
        for claim in list(workload, "spec.volumeClaimTemplates") {
            let size = at(claim, "spec.resources.requests.storage");
            if bytes(size).is_none_or(|size| size < 1e6) {
                faults.push(format!("{}: a claim of {size}", title(workload)));
            }
        }
    }
    faults
}

/// Kubernetes must not end a pod before its role has stopped by itself.
fn time_to_stop(workload: &Value, container: &Value) -> Option<String> {
    let seconds = |flag: &str| {
        argument(container, flag).and_then(|value| value.trim_end_matches('s').parse::<u64>().ok())
    };
    let delay = seconds("--drain-delay=")?;
    let grace = seconds("--grpc-grace-period=")?.max(seconds("--http-grace-period=")?);
    let given = at(pod(workload), "terminationGracePeriodSeconds").as_u64().unwrap_or(30);
    (given < delay + grace + 5)
        .then(|| format!("is ended after {given} s, but may take {delay} s and {grace} s to stop"))
}

fn argument<'a>(container: &'a Value, flag: &str) -> Option<&'a str> {
    list(container, "args").iter().filter_map(Value::as_str).find_map(|arg| arg.strip_prefix(flag))
}

/// The value of a quantity such as `100m`, `12Gi` or `2`; `None` if it is not one.
fn bytes(value: &Value) -> Option<f64> {
    let text =
        value.as_str().map(str::to_owned).or_else(|| value.as_f64().map(|number| number.to_string()))?;
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}
