//! Network namespaces of the pods, each connected to one router.
//!
//! A namespace exists as long as a process that sleeps in it, as the pause container of a pod does. That process ends with the
//! thread that started it, so that nothing is left even if the test is killed.

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::AsyncReadExt;

use crate::cluster::state::{DNS_ADDRESS, ROUTER_ADDRESS};

/// A network namespace, with a host name. It is removed when dropped.
pub(crate) struct Namespace {
    pid: u32,
    /// It is killed when dropped.
    _pause: tokio::process::Child,
}

impl Namespace {
    /// A namespace without connections.
    pub(crate) async fn create(hostname: &str) -> Result<Self, String> {
        let failed = |cause: std::io::Error| format!("network namespace of {hostname}: {cause}");
        let mut pause = tokio::process::Command::new("setpriv")
            .args(["--pdeathsig=KILL", "unshare", "--net", "--uts", "/bin/sh", "-c"])
            .args(["hostname \"$0\" && ip link set lo up && echo && exec sleep infinity", hostname])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let mut output = pause.stdout.take().ok_or("a pipe is missing")?;
        output.read_u8().await.map_err(failed)?;
        let pid = pause.id().ok_or("it has ended")?;
        Ok(Self { pid, _pause: pause })
    }

    /// Connects it to the router in `router`, with this address.
    pub(crate) fn connect(&self, router: &Self, address: Ipv4Addr, device: &str) -> Result<(), String> {
        let (pid, ours, theirs) = (self.pid, router.enter(), self.enter());
        let world = format!(
            "link add {device} type veth peer name eth0 netns {pid}\n\
             addr add {ROUTER_ADDRESS}/32 dev {device}\n\
             link set {device} up\n\
             route add {address} dev {device}\n"
        );
        run("nsenter", &[&ours, "ip", "-batch", "-"], &world)?;
        let pod = format!(
            "addr add {address}/32 dev eth0\n\
             link set eth0 up\n\
             route add {ROUTER_ADDRESS} dev eth0\n\
             route add default via {ROUTER_ADDRESS}\n"
        );
        run("nsenter", &[&theirs, "ip", "-batch", "-"], &pod)
    }

    /// Makes this namespace the router.
    pub(crate) fn route(&self) -> Result<(), String> {
        let script = "echo 1 > /proc/sys/net/ipv4/ip_forward && ip addr add \"$0/32\" dev lo";
        run("nsenter", &[&self.enter(), "/bin/sh", "-c", script, &DNS_ADDRESS.to_string()], "")
    }

    /// Replaces the rules of the router.
    pub(crate) fn apply_rules(&self, rules: &str) -> Result<(), String> {
        run("nsenter", &[&self.enter(), "nft", "-f", "-"], rules)
            .map_err(|error| format!("{error}; the rules were:\n{rules}"))
    }

    /// The argument of `nsenter` for its network.
    pub(crate) fn enter(&self) -> String {
        format!("--net=/proc/{}/ns/net", self.pid)
    }

    /// The argument of `nsenter` for its host name.
    pub(crate) fn enter_hostname(&self) -> String {
        format!("--uts=/proc/{}/ns/uts", self.pid)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }
}

/// Moves the calling thread into the network namespace of a process.
pub(crate) fn enter(pid: u32) -> Result<(), String> {
    let path = format!("/proc/{pid}/ns/net");
    let file = File::open(&path).map_err(|cause| format!("{path}: {cause}"))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|cause| format!("{path}: {cause}"))
}

/// Runs a program that ends at once.
///
/// # Errors
/// If it fails, with its output.
pub(crate) fn run(program: &str, args: &[&str], input: &str) -> Result<(), String> {
    let failed = |cause: std::io::Error| format!("{program} {args:?}: {cause}");
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // Closing it marks the end of the input.
    let mut stdin = child.stdin.take().ok_or("a pipe is missing")?;
    stdin.write_all(input.as_bytes()).map_err(failed)?;
    drop(stdin);
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {args:?}: {}: {}", output.status, said.trim()))
}
