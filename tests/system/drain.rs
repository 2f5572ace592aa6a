//! Signals: a role that was asked to stop serves on for the drain delay, and one that starts is not ended by a reload.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use tests::{Process, create_token, create_trust_domain, free_port, get, isthmus, wait_for};

#[test]
fn a_role_serves_on_and_is_not_ready_while_traffic_is_led_away() {
    let http = free_port();
    let mut role = Command::new(isthmus())
        .args(["query", "--drain-delay=1h", &format!("--http-address={http}")])
        .arg(format!("--grpc-address={}", free_port()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let id = rustix::process::Pid::from_child(&role);
    let status = |path: &str| get(http, path).map(|answer| answer.0);
    let until = |path: &str, wanted: u16| {
        wait_for(path, Duration::from_secs(30), || match status(path) {
            Ok(found) if found == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    until("/-/ready", 200);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("a signal");
    until("/-/ready", 503);
    assert_eq!(status("/api/v1/query?query=1").ok(), Some(200), "new connections are served");
    assert_eq!(status("/-/healthy").ok(), Some(200));
    rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("a signal");
    assert_eq!(role.wait().expect("its end").code(), Some(130), "a second signal ends it at once");
}

/// A program that reloads its configuration files on a schedule does not look first whether the role is ready.
#[test]
fn a_signal_to_reload_does_not_end_a_role_that_is_starting() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    // Accepts connections and says nothing, so that the gateway waits for it.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let token = dir.join("token");
    create_token(&create_trust_domain(dir), "eu-1", address, &token);
    fs::write(
        dir.join("eu-1.yaml"),
        "role: cluster\ndata_dir: eu-1\ntargets: [{name: a, address: 'localhost:1'}]\n",
    )
    .expect("a file");
    let args = [
        "gateway".to_owned(),
        format!("--config={}", dir.join("eu-1.yaml").display()),
        format!("--join-file={}", token.display()),
        format!("--http-address={}", free_port()),
        format!("--grpc-address={}", free_port()),
    ];
    let mut process = Process::start(&isthmus(), &args, &dir.join("log"));
    wait_for("the signal handlers", Duration::from_secs(30), || {
        let status =
            fs::read_to_string(format!("/proc/{}/status", process.id())).map_err(|e| e.to_string())?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).map(str::trim);
        let caught = u64::from_str_radix(caught.unwrap_or_default(), 16).map_err(|e| e.to_string())?;
        // The lowest bits are SIGHUP and SIGINT.
        if caught & 0b11 == 0b11 { Ok(()) } else { Err(format!("{caught:x}")) }
    });
    let id = i32::try_from(process.id()).ok().and_then(rustix::process::Pid::from_raw).expect("an id");
    rustix::process::kill_process(id, rustix::process::Signal::HUP).expect("a signal");
    assert_eq!(process.terminate(), Some(0), "{}", process.output());
}
