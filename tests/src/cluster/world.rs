//! The world as a test sees it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::cluster::container::exec;
use crate::cluster::controller::is_settled;
use crate::cluster::image::Programs;
use crate::cluster::network::enter;
use crate::cluster::objects::{Object, ObjectId, check_change, parse};
use crate::cluster::pod_view::{Deletion, PodView, view};
use crate::cluster::runner::{self, end, owned};
use crate::cluster::state::{Applied, Shared};
use crate::process::{Process, wait_for};

/// Lines of each log that a failed test prints.
const LOG_LINES: usize = 15;

/// How often a condition is looked at.
const WAIT: Duration = Duration::from_millis(50);

/// Programs that the runner needs.
const PROGRAMS: [&str; 8] = ["ip", "nft", "nsenter", "unshare", "setpriv", "chroot", "mount", "hostname"];

/// Clusters of Kubernetes on one network. All of it is removed when dropped.
pub struct World {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    folder: TempDir,
}

impl World {
    /// An empty world. Where it cannot exist, prints that `what` is skipped.
    pub fn create(what: &str, programs: Programs) -> Option<Self> {
        let found = |program: &&str| Command::new(program).arg("--version").output().is_err();
        let missing: Vec<&str> = PROGRAMS.into_iter().filter(found).collect();
        if !rustix::process::geteuid().is_root() || !missing.is_empty() {
            println!("skipped: {what} (needs root and the programs {PROGRAMS:?}; missing: {missing:?})");
            return None;
        }
        let folder = tempfile::tempdir().ok()?;
        let shared = Arc::new(Shared::default());
        let (sender, begun) = mpsc::channel();
        let thread = std::thread::spawn({
            let (shared, folder) = (shared.clone(), folder.path().to_owned());
            move || runner::run(shared, programs, folder, &sender)
        });
        let world = Self { shared, thread: Some(thread), folder };
        match begun.recv() {
            Ok(Ok(())) => Some(world),
            Ok(Err(error)) => {
                println!("skipped: {what} (network namespaces cannot be used here: {error})");
                None
            }
            Err(_) => None,
        }
    }

    /// Creates and changes objects in a cluster, as `helm upgrade --install RELEASE` does: objects that the release had before and
    /// that `yaml` does not have are removed. Returns what was accepted and starts nothing, as `KIND NAME`.
    ///
    /// # Errors
    /// If an object is not understood, or changes what cannot be changed. Nothing is applied then.
    pub fn apply(
        &self,
        kube: &str,
        namespace: &str,
        release: &str,
        yaml: &str,
    ) -> Result<Vec<String>, String> {
        let objects = parse(yaml, namespace)?;
        let not_run = objects.iter().filter(|(_, object)| matches!(object, Object::NotRun));
        let not_run = not_run.map(|(id, _)| format!("{} {}", id.kind, id.name)).collect();
        let ids: BTreeSet<ObjectId> = objects.iter().map(|(id, _)| id.clone()).collect();
        if ids.len() < objects.len() {
            return Err(format!("{} documents have only {} different names", objects.len(), ids.len()));
        }
        self.shared.change(|state| {
            let kube = state.kube_mut(kube);
            for (id, object) in &objects {
                check_change(id, kube.objects.get(id).map(|applied| &applied.object), object)?;
            }
            kube.objects.retain(|id, applied| applied.release != release || ids.contains(id));
            for (id, object) in objects {
                kube.objects.insert(id, Applied { release: release.to_owned(), object });
            }
            Ok::<(), String>(())
        })?;
        self.shared.applied.send_modify(|version| *version += 1);
        Ok(not_run)
    }

    /// Removes an object. Returns whether it existed.
    pub fn remove(&self, kube: &str, id: &ObjectId) -> bool {
        let existed = self.shared.change(|state| state.kube_mut(kube).objects.remove(id).is_some());
        self.shared.applied.send_modify(|version| *version += 1);
        existed
    }

    /// Gives an address a name that all clusters can resolve.
    pub fn publish(&self, name: &str, address: Ipv4Addr) {
        self.shared.change(|state| state.public_names.insert(name.to_lowercase(), address));
    }

    /// The pods of a cluster.
    pub fn pods(&self, kube: &str) -> Vec<PodView> {
        let state = self.shared.read();
        state.kube(kube).map(|kube| kube.pods.iter().map(view).collect()).unwrap_or_default()
    }

    /// Waits until every Deployment and StatefulSet of the cluster has all its replicas, from its present template and ready.
    ///
    /// # Panics
    /// If that takes longer than `limit`, with the state of all pods and the ends of their logs.
    pub fn wait_settled(&self, kube: &str, limit: Duration) {
        self.wait(kube, "its pods", limit, || {
            let state = self.shared.read();
            let found = state.kube(kube).ok_or("it does not exist")?;
            let mut unsettled =
                found.workloads().filter(|(id, workload)| !is_settled(workload, &owned(found, id, workload)));
            unsettled.next().map_or(Ok(()), |(id, _)| Err(format!("{} {}", id.kind, id.name)))
        });
    }

    /// Calls `probe` until it succeeds.
    ///
    /// # Panics
    /// If it does not succeed within `limit`, with the last error, the state of all pods of the cluster and the ends of their logs.
    pub fn wait<T>(
        &self,
        kube: &str,
        what: &str,
        limit: Duration,
        mut probe: impl FnMut() -> Result<T, String>,
    ) -> T {
        let begun = Instant::now();
        loop {
            let fault = self.shared.read().fault.clone();
            assert!(fault.is_none(), "the runner failed: {fault:?}");
            match probe() {
                Ok(value) => return value,
                Err(error) if begun.elapsed() >= limit => {
                    panic!("{kube}: waited {limit:?} for {what}: {error}\n{}", self.describe(kube))
                }
                Err(_) => std::thread::sleep(WAIT),
            }
        }
    }

    /// The address of a service within its cluster, and the address for the outside if it has one.
    pub fn service(&self, kube: &str, namespace: &str, name: &str) -> Option<(Ipv4Addr, Option<Ipv4Addr>)> {
        let state = self.shared.read();
        let kind = "Service".to_owned();
        let id = ObjectId { kind, namespace: namespace.to_owned(), name: name.to_owned() };
        let addresses = state.kube(kube)?.addresses.get(&id)?;
        Some((addresses.cluster, addresses.balancer))
    }

    /// The names of the services of a cluster.
    pub fn services(&self, kube: &str) -> Vec<String> {
        let state = self.shared.read();
        let ids =
            state.kube(kube).into_iter().flat_map(|kube| kube.services().map(|(id, _)| id.name.clone()));
        ids.collect()
    }

    /// The words before a command that is run in the network of a cluster by hand.
    pub fn enter(&self, kube: &str) -> String {
        format!("nsenter --net=/proc/{}/ns/net", self.machine(Some(kube)).0)
    }

    /// Ends a pod. Its controller creates another one. Returns whether it existed.
    pub fn delete_pod(&self, kube: &str, number: u32, how: Deletion) -> bool {
        let grace = (how == Deletion::Sudden).then_some(Duration::ZERO);
        self.shared.change(|state| {
            let pods = &mut state.kube_mut(kube).pods;
            pods.iter_mut().find(|pod| pod.number == number).map(|pod| end(pod, grace)).is_some()
        })
    }

    /// Kills a container. The pod starts it again. Returns whether it was running.
    pub fn kill_container(&self, number: u32, container: &str) -> bool {
        let pid =
            self.process(number, container).and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        pid.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
    }

    /// Runs a command in a container. The program must be in its image.
    ///
    /// # Errors
    /// If the container does not run, or if the command cannot be started.
    pub fn exec(&self, number: u32, container: &str, command: &[&str]) -> Result<Output, String> {
        let pid =
            self.process(number, container).ok_or_else(|| format!("container {container} does not run"))?;
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        exec(pid, &command).output().map_err(|cause| cause.to_string())
    }

    fn process(&self, number: u32, container: &str) -> Option<u32> {
        self.shared.read().pod(number)?.processes.get(container).copied()
    }

    /// Runs `work` on a machine of its own within the network of the cluster.
    ///
    /// # Panics
    /// If `work` does.
    pub fn within<T: Send>(&self, kube: &str, work: impl FnOnce() -> T + Send) -> T {
        let (pid, _) = self.machine(Some(kube));
        let result = std::thread::scope(|scope| {
            let entered = scope.spawn(move || {
                enter(pid).expect("the network of the cluster");
                work()
            });
            entered.join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts a program on a machine outside of the clusters, which all pods can reach. Returns it with its address.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start_outside(&self, program: &Path, args: &[String], log: &Path) -> (Process, Ipv4Addr) {
        let (pid, address) = self.machine(None);
        let network = format!("--net=/proc/{pid}/ns/net");
        // It ends with the thread of the test, also if that is killed.
        let mut all = ["--pdeathsig=KILL", "nsenter", &network, &program.display().to_string()]
            .map(str::to_owned)
            .to_vec();
        all.extend_from_slice(args);
        (Process::start(Path::new("setpriv"), &all, log), address)
    }

    fn machine(&self, kube: Option<&str>) -> (u32, Ipv4Addr) {
        wait_for("a machine", Duration::from_secs(10), || {
            self.shared.change(|state| state.machine(kube)).ok_or_else(|| "it does not exist yet".to_owned())
        })
    }

    /// Sends a GET request to a port of a service, from within the cluster. Returns status and body.
    ///
    /// # Errors
    /// If there is no response, or if it is not HTTP.
    pub fn get(&self, kube: &str, at: SocketAddr, path: &str) -> Result<(u16, String), String> {
        self.within(kube, || crate::http::get(at, path))
    }

    /// The folder with the logs of a cluster, one for each container.
    pub fn logs(&self, kube: &str) -> PathBuf {
        self.folder.path().join("logs").join(kube)
    }

    /// The state of the pods of a cluster, and the last lines of the logs of those that are not ready.
    pub fn describe(&self, kube: &str) -> String {
        let mut text = String::new();
        for pod in self.pods(kube) {
            let _ = writeln!(text, "\n{}: {}, {} restarts", pod.name, pod.state, pod.restarts);
            if pod.is_ready {
                continue;
            }
            let logs = fs::read_dir(self.logs(kube)).into_iter().flatten().flatten();
            let prefix = format!("{}_{}_", pod.namespace, pod.name);
            for log in logs.filter(|log| log.file_name().to_string_lossy().starts_with(&prefix)) {
                let lines = fs::read_to_string(log.path()).unwrap_or_default();
                let lines: Vec<&str> = lines.lines().collect();
                let _ = writeln!(text, "  {}:", log.file_name().to_string_lossy());
                for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                    let _ = writeln!(text, "    {line}");
                }
            }
        }
        text
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shared.change(|state| state.is_stopping = true);
        if let Some(thread) = self.thread.take() {
            // Its panic was printed.
            drop(thread.join());
        }
    }
}
