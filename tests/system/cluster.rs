//! The runner of Kubernetes objects, with a small manifest: what a chart relies on is as in a cluster.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tests::{Deletion, ObjectId, PodView, Programs, Prometheus, World, isthmus, percent_encode};

const MANIFEST: &str = include_str!("cluster/manifest.yaml");

/// How long the pods of the manifest may take. They need some seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// The devices of this machine's own network.
fn devices() -> BTreeSet<String> {
    let all = std::fs::read_dir("/sys/class/net").expect("the devices");
    all.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

fn pod(world: &World, name: &str) -> PodView {
    let found = world.pods("one").into_iter().find(|pod| pod.name.starts_with(name) && !pod.is_terminating);
    found.unwrap_or_else(|| panic!("no pod {name}: {}", world.describe("one")))
}

/// The replicas in the answer to `up`, at a time.
fn replicas(world: &World, at: SocketAddr, time: f64) -> Result<BTreeSet<String>, String> {
    let path = format!("/api/v1/query?dedup=false&query={}&time={time}", percent_encode("up"));
    let (status, body) = world.get("one", at, &path)?;
    let answer: Value = serde_json::from_str(&body).map_err(|cause| format!("{status}: {cause}: {body}"))?;
    let series = answer["data"]["result"].as_array().ok_or_else(|| format!("{status}: {body}"))?;
    Ok(series.iter().filter_map(|series| series["metric"]["replica"].as_str().map(str::to_owned)).collect())
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs_f64()
}

/// The output of a command in the container of Prometheus.
fn shell(world: &World, pod: u32, command: &str) -> String {
    let output = world.exec(pod, "prometheus", &["/bin/sh", "-c", command]).expect("the command runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn manifest_runs_as_in_a_cluster() {
    if !Prometheus::is_installed("objects of Kubernetes") {
        return;
    }
    let before = devices();
    let programs = Programs { isthmus: isthmus(), previous: None };
    let Some(world) = World::create("objects of Kubernetes", programs) else { return };
    let not_run = world.apply("one", "monitoring", "all", MANIFEST).expect("the manifest is understood");
    assert_eq!(not_run, ["PodDisruptionBudget query"]);
    world.wait_settled("one", LIMIT);

    let (inner, outer) = world.service("one", "monitoring", "query").expect("the service");
    let query = SocketAddr::from((inner, 80));
    let both = BTreeSet::from(["prometheus-0".to_owned(), "prometheus-1".to_owned()]);
    let early = world.wait("one", "samples of both replicas", LIMIT, || {
        let time = now();
        match replicas(&world, query, time)? {
            found if found == both => Ok(time),
            found => Err(format!("{found:?}")),
        }
    });
    names_and_files(&world);
    clusters_are_apart(&world, query, SocketAddr::from((outer.expect("a load balancer"), 80)));

    // A container that is killed is started again in its pod; a pod that is lost is replaced and has its claim.
    let first = pod(&world, "prometheus-0");
    assert!(world.kill_container(first.number, "sidecar"));
    world.wait("one", "the restart", LIMIT, || {
        let now = pod(&world, "prometheus-0");
        if now.restarts == 1 && now.is_ready { Ok(()) } else { Err(now.state) }
    });
    assert_eq!(pod(&world, "prometheus-0").number, first.number);
    assert!(world.delete_pod("one", first.number, Deletion::Sudden));
    world.wait("one", "the end of the pod", LIMIT, || {
        let numbers: Vec<u32> = world.pods("one").iter().map(|pod| pod.number).collect();
        if numbers.contains(&first.number) { Err(format!("{numbers:?}")) } else { Ok(()) }
    });
    world.wait_settled("one", LIMIT);
    world.wait("one", "the samples from before", LIMIT, || match replicas(&world, query, early)? {
        found if found == both => Ok(()),
        found => Err(format!("{found:?}")),
    });
    changes(&world);
    drop(world);
    assert_eq!(devices(), before, "nothing is left");
}

/// Names of services and pods, mounts, users and the environment.
fn names_and_files(world: &World) {
    let (first, second) = (pod(world, "prometheus-0"), pod(world, "prometheus-1"));
    let check = |command: &str, expected: &str| {
        assert_eq!(shell(world, first.number, command), expected, "{command}")
    };
    check("getent ahostsv4 prometheus-1.sidecars | head -1 | cut -d' ' -f1", &second.address.to_string());
    check("getent ahostsv4 sidecars.monitoring.svc.cluster.local | cut -d' ' -f1 | sort -u | wc -l", "2");
    check("getent hosts absent || echo absent", "absent");
    check("hostname; id -u; id -G", "prometheus-0\n1234\n1234");
    check("echo $QUERY_SERVICE_HOST:$QUERY_SERVICE_PORT_HTTP", &{
        let (inner, _) = world.service("one", "monitoring", "query").expect("the service");
        format!("{inner}:80")
    });
    check("touch /x /config/x 2>&1 | grep -c 'Read-only'", "2");
    check("stat -c %g /prometheus", "1234");
    check("grep CapEff /proc/1/status | cut -f2", "0000000000000000");
    check("ls /proc | grep -cx 1; readlink /proc/1/exe", "1\n/usr/bin/prometheus");
    let connects =
        |to: &str| format!("timeout 5 bash -c '</dev/tcp/{to}' 2>/dev/null && echo yes || echo no");
    check(&connects("prometheus-1.sidecars/10902"), "yes");
    check(&connects("query/80"), "no");
    let query = pod(world, "query");
    let shell = world.exec(query.number, "query", &["/bin/sh", "-c", "true"]).expect("nsenter runs");
    assert!(!shell.status.success(), "the image of Isthmus has no shell");
    let logs = world.logs("one").join(format!("monitoring_{}_query.log", query.name));
    let log = std::fs::read_to_string(logs).expect("a log");
    assert!(log.lines().all(|line| line.starts_with('{')), "--log.format=json: {log}");
}

/// Another cluster reaches the load balancer, and neither pods nor the addresses of services.
fn clusters_are_apart(world: &World, inner: SocketAddr, outer: SocketAddr) {
    let pod = SocketAddr::from((pod(world, "query").address, 10_902));
    let connects = |kube: &str, at: SocketAddr| {
        world.within(kube, || TcpStream::connect_timeout(&at, Duration::from_secs(5)).is_ok())
    };
    for (at, from_other) in [(outer, true), (inner, false), (pod, false)] {
        assert!(connects("one", at), "{at}");
        assert_eq!(connects("two", at), from_other, "{at} from another cluster");
    }
    assert!(!connects("one", SocketAddr::from((inner.ip(), 10_902))), "the service has another port");
}

/// A changed ConfigMap reaches running pods, a changed template replaces them, and what cannot be changed is refused.
fn changes(world: &World) {
    let numbers = |name: &str| -> BTreeSet<u32> {
        world.pods("one").iter().filter(|pod| pod.name.starts_with(name)).map(|pod| pod.number).collect()
    };
    let (prometheus, query) = (numbers("prometheus"), numbers("query"));
    let changed = MANIFEST
        .replace("scrape_interval: 1s", "scrape_interval: 2s")
        .replace("query.replica-label=replica", "query.replica-label=none");
    world.apply("one", "monitoring", "all", &changed).expect("the change is accepted");
    let first = pod(world, "prometheus-0");
    world.wait("one", "the changed file", LIMIT, || {
        let text = shell(world, first.number, "cat /template/prometheus.yml");
        if text.contains("interval: 2s") { Ok(()) } else { Err(text) }
    });
    world.wait_settled("one", LIMIT);
    assert_eq!(numbers("prometheus"), prometheus);
    assert!(numbers("query").is_disjoint(&query), "{query:?} were replaced");

    for (from, to, expected) in [
        (
            "name: data}\n      spec:",
            "name: other}\n      spec:",
            "StatefulSet prometheus: a field that cannot be changed",
        ),
        (
            "terminationGracePeriodSeconds",
            "terminationGrace",
            "StatefulSet prometheus: unknown field `terminationGrace`",
        ),
        (
            "selector: {matchLabels: {app: query}}\n  template",
            "selector: {matchLabels: {app: q}}\n  template",
            "Deployment query: the selector",
        ),
        (
            "kind: PodDisruptionBudget",
            "kind: CronJob",
            "CronJob query: is of a kind that the runner does not know",
        ),
    ] {
        let bad = MANIFEST.replace(from, to);
        assert_ne!(bad, MANIFEST, "{from}");
        let error = world.apply("one", "monitoring", "all", &bad).expect_err(to);
        assert!(error.contains(expected), "{error}");
    }
    let (kind, namespace, name) = ("Deployment".to_owned(), "monitoring".to_owned(), "query".to_owned());
    assert!(world.remove("one", &ObjectId { kind, namespace, name }));
    world.wait("one", "the end of the pods", LIMIT, || {
        let left = numbers("query");
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}
