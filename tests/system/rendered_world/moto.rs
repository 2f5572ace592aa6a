//! The S3 server of moto on a machine outside of the clusters, with one bucket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tests::{Process, World, wait_for};

/// The program in the folder of the tools; `None` if it is not installed, which is printed.
pub(crate) fn program(tools: &Path) -> Option<PathBuf> {
    let program = tools.join("moto/bin/moto_server");
    if !program.is_file() {
        println!(
            "skipped: the rendered charts (moto is not at {}; tests/run installs it)",
            program.display()
        );
        return None;
    }
    Some(program)
}

/// Starts it, and returns the configuration of its bucket.
pub(crate) fn start(world: &World, program: &Path, log: &Path) -> (Process, String) {
    let args = ["-H", "0.0.0.0", "-p", "5000"].map(str::to_owned);
    let (mut process, address) = world.start_outside(program, &args, log);
    let at = SocketAddr::from((address, 5000));
    wait_for("moto", Duration::from_secs(60), || {
        assert!(process.is_running(), "{}", process.output());
        world.within("observability", || create_bucket(at))
    });
    let yaml = format!(
        "type: S3\nconfig: {{bucket: blocks, endpoint: '{at}', insecure: true, access_key: key, secret_key: secret, \
         region: us-east-1}}\n"
    );
    (process, yaml)
}

fn create_bucket(at: SocketAddr) -> Result<(), String> {
    let failed = |cause: std::io::Error| cause.to_string();
    let mut connection = TcpStream::connect(at).map_err(failed)?;
    let request = format!(
        "PUT /blocks HTTP/1.1\r\nhost: {at}\r\ncontent-length: 0\r\nconnection: close\r\nauthorization: \
         AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request\r\n\r\n"
    );
    connection.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).map_err(failed)?;
    if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(answer) }
}
