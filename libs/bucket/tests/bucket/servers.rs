//! The servers that the suite uses. Each listens on a free port of 127.0.0.1 and is terminated when its value is dropped.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use object_store::ClientOptions;
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::{HttpClient, HttpConnector, HttpRequest, ReqwestConnector};
use tempfile::TempDir;

/// Timeout for the start of a server.
const START: Duration = Duration::from_secs(60);

/// The default account and key of azurite, from its documentation.
pub(crate) const AZURE_ACCOUNT: &str = "devstoreaccount1";
pub(crate) const AZURE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A server process.
pub(crate) struct Server {
    child: Child,
    /// Host and port.
    pub(crate) address: String,
    _folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have exited already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The path of a program that `tests/run` installs. Prints a line and returns `None` if it is not installed.
fn installed(program: &str, what: &str) -> Option<PathBuf> {
    let folder = match std::env::var_os("ISTHMUS_EMULATORS") {
        Some(folder) => PathBuf::from(folder),
        None => match std::env::var_os("XDG_CACHE_HOME") {
            Some(cache) => PathBuf::from(cache).join("isthmus-tests"),
            None => PathBuf::from(std::env::var_os("HOME")?).join(".cache/isthmus-tests"),
        },
    };
    let path = folder.join(program);
    if path.is_file() {
        return Some(path);
    }
    println!("skipped: {what} is not installed at {} (tests/run installs it)", path.display());
    None
}

fn start(mut command: Command, mark: &str) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let output = File::create(&log).unwrap();
    command.current_dir(folder.path()).stdin(Stdio::null());
    let mut child = command.stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(&log).unwrap();
        let line = text.lines().find(|line| line.contains(mark));
        if let Some((_, address)) = line.and_then(|line| line.split_once("http://")) {
            let address: String =
                address.chars().take_while(|c| c.is_ascii_digit() || *c == '.' || *c == ':').collect();
            return Server { child, address, _folder: folder };
        }
        assert!(child.try_wait().unwrap().is_none(), "{command:?} ended:\n{text}");
        assert!(begun.elapsed() < START, "{command:?} does not listen:\n{text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn http_client() -> HttpClient {
    ReqwestConnector::default().connect(&ClientOptions::new().with_allow_http(true)).unwrap()
}

/// moto with a bucket `blocks`. With `checks_keys` it rejects every key, because it has none.
pub(crate) async fn s3(checks_keys: bool) -> Option<Server> {
    let mut command = Command::new(installed("moto/bin/moto_server", "moto (S3)")?);
    command.args(["-H", "127.0.0.1", "-p", "0"]);
    if checks_keys {
        // Only the first request is accepted without a key; it creates the bucket.
        command.env("INITIAL_NO_AUTH_ACTION_COUNT", "1");
    }
    let server = start(command, "Running on");
    let request = http::Request::put(format!("http://{}/blocks", server.address))
        // moto selects the service by the scope of the signature.
        .header("authorization", "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request")
        .header("content-length", "0")
        .body(Vec::<u8>::new().into())
        .unwrap();
    let answer = http_client().execute(request).await.unwrap();
    assert!(answer.status().is_success(), "make a bucket: {}", answer.status());
    Some(server)
}

/// azurite with a container `blocks`.
pub(crate) async fn azure() -> Option<Server> {
    let mut command = Command::new(installed("azurite/node_modules/.bin/azurite-blob", "azurite (Azure)")?);
    command.args(["--blobHost", "127.0.0.1", "--blobPort", "0", "--inMemoryPersistence"]);
    command.args(["--skipApiVersionCheck", "--disableTelemetry"]);
    let server = start(command, "successfully listens");
    let url = format!("http://{}/{AZURE_ACCOUNT}/blocks?restype=container", server.address);
    let mut request: HttpRequest =
        http::Request::put(url).header("content-length", "0").body(Vec::<u8>::new().into()).unwrap();
    let credential = AzureCredential::AccessKey(AzureAccessKey::try_new(AZURE_KEY).unwrap());
    AzureAuthorizer::new(&credential, AZURE_ACCOUNT).try_authorize(&mut request).unwrap();
    let answer = http_client().execute(request).await.unwrap();
    assert!(answer.status().is_success(), "make a container: {}", answer.status());
    Some(server)
}
