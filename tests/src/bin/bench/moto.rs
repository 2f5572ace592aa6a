//! The S3 server of moto, which `tests/run` installs, with a bucket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The running server. It is killed when dropped.
pub(crate) struct Moto {
    child: Child,
    address: String,
}

impl Moto {
    /// Starts it with an empty bucket; `None` if it is not installed, which is printed.
    pub(crate) fn start() -> Option<Self> {
        let folder = std::env::var_os("ISTHMUS_EMULATORS").map(PathBuf::from);
        let cache = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/isthmus-tests"));
        let program = folder.or_else(cache)?.join("moto/bin/moto_server");
        if !program.is_file() {
            eprintln!("skipped: moto is not installed at {} (tests/run installs it)", program.display());
            return None;
        }
        let mut child = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("moto starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, address) = line.split_once("http://")?;
            Some(address.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect::<String>())
        });
        // Keep reading, because the server blocks when the pipe is full.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let moto = Self { child, address: address.expect("moto listens") };
        let mut connection = TcpStream::connect(&moto.address).expect("a connection");
        let request = format!(
            "PUT /blocks HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\nconnection: close\r\nauthorization: \
             AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request\r\n\r\n",
            moto.address
        );
        connection.write_all(request.as_bytes()).expect("a request");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Some(moto)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address.parse().expect("an address")
    }

    /// The configuration of its bucket, reached at `endpoint`.
    pub(crate) fn yaml(&self, endpoint: SocketAddr) -> String {
        format!(
            "type: S3\nconfig: {{bucket: blocks, endpoint: '{endpoint}', insecure: true, access_key: key, \
             secret_key: secret, region: us-east-1}}"
        )
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // Both fail only if the process has already exited.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
