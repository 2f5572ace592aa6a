//! Pod security `restricted`, and what goes beyond it: a numeric user, a root that cannot be written, no token of the account.

use serde_json::{Value, json};

use crate::charts::objects::{at, containers, list, pod, text, title, workloads};

/// Volumes that `restricted` permits and the charts use.
const VOLUMES: [&str; 4] = ["configMap", "secret", "emptyDir", "persistentVolumeClaim"];

pub(super) fn check(objects: &[Value]) -> Vec<String> {
    let mut faults = Vec::new();
    for workload in workloads(objects) {
        let pod = pod(workload);
        let mut expect = |what: &str, is_so: bool| {
            if !is_so {
                faults.push(format!("{}: {what}", title(workload)));
            }
        };
        expect("runAsNonRoot is not true", at(pod, "securityContext.runAsNonRoot") == true);
        expect(
            "the user is not a number above 0",
            at(pod, "securityContext.runAsUser").as_u64().is_some_and(|user| user > 0),
        );
        expect(
            "seccompProfile is not RuntimeDefault",
            text(pod, "securityContext.seccompProfile.type") == "RuntimeDefault",
        );
        expect(
            "permissions of volumes are set at each start",
            text(pod, "securityContext.fsGroupChangePolicy") == "OnRootMismatch",
        );
        expect("enableServiceLinks is not false", pod["enableServiceLinks"] == false);
        for host in ["hostNetwork", "hostPID", "hostIPC"] {
            expect(&format!("{host} is set"), pod.get(host).is_none());
        }
        for volume in list(pod, "volumes") {
            let kinds = volume.as_object().into_iter().flatten().filter(|(field, _)| *field != "name");
            let unknown: Vec<_> = kinds.filter(|(field, _)| !VOLUMES.contains(&field.as_str())).collect();
            expect(&format!("volume {unknown:?} is not permitted"), unknown.is_empty());
        }
        for container in containers(workload) {
            let context = &container["securityContext"];
            expect("allowPrivilegeEscalation is not false", context["allowPrivilegeEscalation"] == false);
            expect("the root file system can be written", context["readOnlyRootFilesystem"] == true);
            expect("capabilities are not dropped", context["capabilities"] == json!({"drop": ["ALL"]}));
            expect("privileged is set", context.get("privileged").is_none());
            expect(
                "a port of the host is used",
                list(container, "ports").iter().all(|port| port.get("hostPort").is_none()),
            );
        }
    }
    // The token of an account is given only to what asks the API of Kubernetes.
    for workload in workloads(objects) {
        let asks = objects.iter().any(|object| {
            let subjects = list(object, "subjects").iter();
            subjects.clone().any(|subject| subject["name"] == pod(workload)["serviceAccountName"])
        });
        if pod(workload)["automountServiceAccountToken"] != asks {
            faults.push(format!("{}: automountServiceAccountToken must be {asks}", title(workload)));
        }
    }
    faults
}
