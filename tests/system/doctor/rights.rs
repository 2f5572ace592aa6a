//! Rights on a bucket, each alone.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::{Process, free_port, wait_for};

use crate::doctor::{PATIENCE, doctor, words};

/// An S3 server, moto, with a user who may list and read, and nothing else.
struct Moto {
    process: Process,
    address: SocketAddr,
    key: String,
    secret: String,
}

impl Moto {
    fn start(dir: &Path) -> Option<Self> {
        let cache = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
        let folder = std::env::var_os("ISTHMUS_EMULATORS").map(PathBuf::from);
        let xdg = || {
            Some(std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(cache)?.join("isthmus-tests"))
        };
        let program = folder.or_else(xdg)?.join("moto/bin/moto_server");
        if !program.is_file() {
            println!("skipped: rights on a bucket (moto is not installed at {})", program.display());
            return None;
        }
        let address = free_port();
        // The four requests below need no rights, all others do.
        let script = "INITIAL_NO_AUTH_ACTION_COUNT=4 exec \"$0\" -H 127.0.0.1 -p \"$1\"".to_owned();
        let args = ["-c".to_owned(), script, program.display().to_string(), address.port().to_string()];
        let process = Process::start(Path::new("sh"), &args, &dir.join("moto.log"));
        let mut moto = Self { process, address, key: String::new(), secret: String::new() };
        wait_for("moto", PATIENCE, || {
            TcpStream::connect(address).map(drop).map_err(|error| error.to_string())
        });
        moto.send("s3", "PUT /blocks", "");
        moto.send("iam", "POST /", "Action=CreateUser&UserName=u&Version=2010-05-08");
        let policy = "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect%22%3A%22Allow%22%2C%22Action%22%3A%5B%22s3%3AListBucket%22%2C%22s3%3AGetObject%22%5D%2C%22Resource%22%3A%22%2A%22%7D%5D%7D";
        let put = format!(
            "Action=PutUserPolicy&UserName=u&PolicyName=p&PolicyDocument={policy}&Version=2010-05-08"
        );
        moto.send("iam", "POST /", &put);
        let key = moto.send("iam", "POST /", "Action=CreateAccessKey&UserName=u&Version=2010-05-08");
        let between = |tag: &str| {
            let (_, rest) = key.split_once(&format!("<{tag}>")).expect("a key");
            rest.split('<').next().expect("a value").to_owned()
        };
        (moto.key, moto.secret) = (between("AccessKeyId"), between("SecretAccessKey"));
        Some(moto)
    }

    fn send(&mut self, service: &str, request: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.address).expect("moto");
        let length = body.len();
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/{service}/aws4_request\r\n\
             Content-Length: {length}\r\n\r\n{body}",
            self.address
        )
        .expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.contains(" 200 OK"), "{answer} {}", self.process.output());
        answer
    }

    fn config(&self) -> String {
        format!(
            "type: S3\nconfig: {{bucket: blocks, endpoint: '{}', insecure: true, region: us-east-1, access_key: {}, secret_key: {}}}\n",
            self.address, self.key, self.secret
        )
    }
}

#[test]
fn each_right_on_a_bucket_is_tried() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("bucket");
    fs::create_dir(&folder).expect("a folder");
    let config = |text: &str| {
        fs::write(dir.path().join("bucket.yaml"), text).expect("a file");
        format!("--objstore.config-file={}", dir.path().join("bucket.yaml").display())
    };
    let ports = ["--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0"];
    let role = |name: &str, config: &str| doctor(&words(&[&[name, config][..], &ports].concat()));

    println!("a folder permits everything, and nothing is left in it");
    let all = config(&format!("type: FILESYSTEM\nconfig: {{directory: {}}}\n", folder.display()));
    let found = role("compact", &all);
    for verb in ["list", "put", "get", "attributes", "delete"] {
        found.has("ok", "bucket", &format!("{verb} is permitted"));
    }
    found.has("ok", "bucket", "conditional put is honoured");
    let left = Command::new("find").arg(&folder).args(["-type", "f"]).output().expect("find runs");
    assert!(left.stdout.is_empty(), "{}", String::from_utf8_lossy(&left.stdout));
    let found = role("store", &all);
    found.has("ok", "bucket", "get was not tried, because no object is listed");

    println!("a bucket that does not exist, and one that denies put");
    let missing = config("type: FILESYSTEM\nconfig: {directory: /no/such/folder}\n");
    assert_eq!(role("compact", &missing).code, Some(11));
    let Some(moto) = Moto::start(dir.path()) else { return };
    let denied = config(&moto.config());
    let found = role("compact", &denied);
    found.has("ok", "bucket", "blocks: list is permitted");
    found.has("critical", "bucket", "grant s3:PutObject");
    found.has("warning", "bucket", "were not tried, because put failed");
    let found = role("store", &denied);
    found.has("ok", "bucket", "blocks: list is permitted");
}
