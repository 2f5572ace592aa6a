//! A PKI, an observability gateway and the gateway of a cluster in their folders.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::free_port;

use crate::earlier_release::folders::Age;
use crate::earlier_release::role::{Role, run};

/// Flags of the commands that need the roots.
fn roots(dir: &Path) -> [String; 4] {
    let text = |name: &str| dir.join(name).display().to_string();
    ["--root-out".to_owned(), text("roots"), "--root-passphrase-file".to_owned(), text("passphrase")]
}

fn pki(program: &Path, dir: &Path, command: &[&str], more: &[String]) -> String {
    let state = dir.join("pki").display().to_string();
    let mut args = vec!["pki"];
    args.extend_from_slice(command);
    args.extend(["--state", &state]);
    args.extend(more.iter().map(String::as_str));
    run(program, &args)
}

/// Creates the PKI.
pub(crate) fn create(program: &Path, dir: &Path) {
    fs::write(dir.join("passphrase"), "only a test\n").expect("a file");
    let domain = ["--trust-domain".to_owned(), "test.example".to_owned()];
    pki(program, dir, &["init"], &[&roots(dir)[..], &domain].concat());
}

/// The files of the PKI are understood: the log of what was done is whole, and the cluster has joined.
pub(crate) fn is_read(program: &Path, dir: &Path) {
    pki(program, dir, &["audit", "verify"], &[]);
    let clusters = pki(program, dir, &["cluster", "list"], &["--json".to_owned()]);
    let clusters: Value = serde_json::from_str(&clusters).expect("JSON");
    let cluster = &clusters["clusters"][0];
    assert_eq!((&cluster["cluster"], &cluster["state"]), (&"eu-1".into(), &"joined".into()), "{clusters}");
}

/// Gateways of both sides. The cluster has the store `scraper-0`.
pub(crate) struct Gateways {
    pub(crate) observability: Role,
    cluster: Role,
    age: Age,
}

/// What a gateway reports until it has received a denylist in place of the one in its folder.
const OLD_DENYLIST: &str = "the denylist is older than 24 h, nothing is served before a new one arrives";

impl Gateways {
    /// Starts them in their folders. Expired certificates are replaced with a new issuing CA and a token.
    pub(crate) fn start(program: &Path, dir: &Path, store: SocketAddr, age: Age) -> Self {
        let is_new = !dir.join("gateway").exists();
        if age == Age::Expired {
            pki(program, dir, &["issuer", "renew"], &roots(dir));
        }
        let mesh = free_port();
        let config = |name: &str, text: String| {
            let file = dir.join(format!("{name}.yaml"));
            fs::write(&file, text).expect("a file");
            format!("--config={}", file.display())
        };
        let observability = config(
            "observability",
            format!("role: observability\ndata_dir: observability\npki: {{state: pki}}\nlisten: {mesh}\n"),
        );
        let observability =
            Role::start(program, dir, "gateway of the observability cluster", &[observability]);
        let cluster = config(
            "gateway",
            format!(
                "role: cluster\ndata_dir: gateway\ndial: ['{mesh}']\ntargets: [{{name: scraper-0, address: '{store}'}}]\n"
            ),
        );
        let mut flags = vec![cluster];
        if is_new || age == Age::Expired {
            flags.push(format!("--join-file={}", token(program, dir, mesh).display()));
        }
        let cluster = Role::start(program, dir, "gateway of a cluster", &flags);
        Self { observability, cluster, age }
    }

    pub(crate) fn end(self) {
        self.cluster.end_beside((self.age == Age::Expired).then_some(OLD_DENYLIST));
        self.observability.end();
    }
}

fn token(program: &Path, dir: &Path, mesh: SocketAddr) -> PathBuf {
    let file = dir.join("token");
    let about = ["--cluster", "eu-1", "--environment", "testing", "--address", &mesh.to_string()];
    let about = about.map(str::to_owned);
    let text = pki(program, dir, &["token", "create"], &about);
    fs::write(&file, text).expect("a file");
    file
}
