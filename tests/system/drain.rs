//! A role that was asked to stop serves on for the drain delay.

use std::process::{Command, Stdio};
use std::time::Duration;

use tests::{free_port, get, isthmus, wait_for};

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
