//! Small calls made by `h2load` (nghttp2): a client that takes little processor time beside the proxies that it measures.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// A gRPC message of no bytes: the request for all label names.
const EMPTY_MESSAGE: [u8; 5] = [0; 5];

/// What `h2load` measured.
pub(crate) struct Calls {
    pub(crate) seconds: f64,
    /// Time of each call, sorted.
    pub(crate) micros: Vec<f64>,
}

/// Whether the program is installed (Debian: `nghttp2-client`).
pub(crate) fn is_installed() -> bool {
    Command::new("h2load").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Asks `authority` for its label names through the proxy at `address`: `calls` times, `concurrency` at once, on one connection.
/// Each answer must have `answer_bytes` of data, so that an error is not taken for a fast answer.
pub(crate) fn label_names(
    dir: &Path,
    address: SocketAddr,
    authority: &str,
    (concurrency, calls): (usize, usize),
    answer_bytes: usize,
) -> Calls {
    let (body, log) = (dir.join("h2load.body"), dir.join("h2load.log"));
    fs::write(&body, EMPTY_MESSAGE).expect("a file");
    // The program adds to a log that exists.
    let _ = fs::remove_file(&log);
    let output = Command::new("h2load")
        .args(["--clients=1", "--threads=1", "--header=content-type: application/grpc"])
        .args(["--header=te: trailers", &format!("--header=:authority: {authority}")])
        .args([format!("--requests={calls}"), format!("--max-concurrent-streams={concurrency}")])
        .args([format!("--data={}", body.display()), format!("--log-file={}", log.display())])
        .arg(format!("http://{address}/thanos.Store/LabelNames"))
        .output()
        .expect("h2load runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&format!("{calls} succeeded")), "h2load: {text}");
    assert_eq!(data_bytes(&text), Some(calls * answer_bytes), "bytes of all answers, h2load: {text}");
    let times = fs::read_to_string(&log).expect("the log of h2load");
    read_log(&times)
}

/// The bytes of bodies, in a line such as `traffic: 1.2KB (1234) total, 0.1KB (80) headers (space savings 92%), 35B (35) data`.
fn data_bytes(text: &str) -> Option<usize> {
    let line = text.lines().find(|line| line.starts_with("traffic:"))?;
    line.strip_suffix(") data")?.rsplit_once('(')?.1.parse().ok()
}

/// Each line has the time at which a request began, in microseconds since the epoch, its status, and the microseconds to the end
/// of its answer.
fn read_log(text: &str) -> Calls {
    let lines = text.lines().map(|line| {
        let fields: Vec<f64> = line.split('\t').map(|field| field.parse().expect("a number")).collect();
        (fields[0], fields[2])
    });
    let (mut begin, mut end, mut micros) = (f64::INFINITY, 0_f64, Vec::new());
    for (start, took) in lines {
        begin = begin.min(start);
        end = end.max(start + took);
        micros.push(took);
    }
    micros.sort_by(f64::total_cmp);
    Calls { seconds: (end - begin) / 1e6, micros }
}
