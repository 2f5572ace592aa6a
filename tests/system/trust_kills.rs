//! Gateways and commands of the PKI that are killed at any time during joins, renewals, revocations and changes of the trust
//! bundle: what they leave is whole, and nothing is repaired by hand.
//!
//! `ISTHMUS_KILLS` sets how often something is killed, `ISTHMUS_SEED` the seed.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tests::{Process, free_port, get, isthmus, wait_for};

const PATIENCE: Duration = Duration::from_secs(30);
/// How often something is killed without `ISTHMUS_KILLS`.
const KILLS: u64 = 6;

/// Numbers that depend on the seed only.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}

/// A gateway that is started again and again.
struct Gateway {
    name: &'static str,
    args: Vec<String>,
    log: PathBuf,
    http: SocketAddr,
    process: Option<Process>,
}

impl Gateway {
    fn new(dir: &Path, name: &'static str, yaml: &str, more: &[String]) -> Self {
        let config = dir.join(format!("{name}.yaml"));
        fs::write(&config, yaml).expect("a file");
        let http = free_port();
        let mut args = vec![
            "gateway".to_owned(),
            format!("--config={}", config.display()),
            format!("--http-address={http}"),
            format!("--grpc-address={}", free_port()),
        ];
        args.extend_from_slice(more);
        Self { name, args, log: dir.join(format!("{name}.log")), http, process: None }
    }

    fn start(&mut self) {
        self.process = Some(Process::start(&isthmus(), &self.args, &self.log));
    }

    /// Kills it, and starts it again at once.
    fn kill(&mut self) {
        self.process = None;
        self.start();
    }

    /// Whether it is ready.
    fn ready(&mut self) -> Result<(), String> {
        let process = self.process.as_mut().expect("a process");
        if !process.is_running() {
            return Err(format!("{} has ended:\n{}", self.name, process.output()));
        }
        match get(self.http, "/-/ready")? {
            (200, _) => Ok(()),
            (status, body) => Err(format!("{}: {status} {body}:\n{}", self.name, process.output())),
        }
    }
}

/// A trust domain with an observability gateway and a cluster.
struct World {
    dir: PathBuf,
    address: SocketAddr,
    observability: Gateway,
    cluster: Gateway,
    random: Seeded,
}

impl World {
    fn start(dir: &Path, transport: &str, seed: u64) -> Self {
        fs::write(dir.join("passphrase"), "a long passphrase\n").expect("a file");
        let address = free_port();
        let observability = format!(
            "role: observability\ndata_dir: observability\npki: {{state: state, leaf_lifetime: 8s}}\nlisten: {address}\n"
        );
        let cluster = format!(
            "role: cluster\ndata_dir: eu-1\ntransport: {transport}\ntargets: [{{name: x, address: '{}'}}]\n",
            free_port()
        );
        let join = format!("--join-file={}", dir.join("token").display());
        let mut world = Self {
            dir: dir.to_owned(),
            address,
            observability: Gateway::new(dir, "observability", &observability, &[]),
            cluster: Gateway::new(dir, "eu-1", &cluster, &[join]),
            random: Seeded(seed | 1),
        };
        world.must("init --trust-domain test.isthmus --root-out DIR/roots --root-passphrase-file DIR/passphrase STATE");
        world.must("root create --label extra --trust-domain test.isthmus ROOTS");
        world.must("cluster add us-1 --environment test STATE");
        world.new_token();
        world.observability.start();
        world.wait("the observability gateway starts", |world| world.observability.ready());
        world.cluster.start();
        world.settle("the first join");
        world
    }

    fn command(&self, line: &str) -> Command {
        let line = line
            .replace("ROOTS", "--root-out DIR/roots --root-passphrase-file DIR/passphrase")
            .replace("STATE", "--state DIR/state")
            .replace("DIR", &self.dir.display().to_string());
        let mut command = Command::new(isthmus());
        command.arg("pki").args(line.split_whitespace()).stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> (i32, String) {
        let output = self.command(line).output().expect("isthmus runs");
        let printed = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&printed).into_owned())
    }

    fn must(&self, line: &str) {
        let (code, printed) = self.run(line);
        assert_eq!(code, 0, "{line}: {printed}");
    }

    fn new_token(&self) {
        self.must(&format!(
            "token create --cluster eu-1 --environment test --address {} --out DIR/token STATE",
            self.address
        ));
    }

    fn wait(&mut self, what: &str, condition: impl Fn(&mut Self) -> Result<(), String>) {
        wait_for(what, PATIENCE, || condition(self));
    }

    /// Waits until both gateways work, and checks the state.
    fn settle(&mut self, after: &str) {
        self.wait(&format!("the observability gateway works after {after}"), |world| {
            world.observability.ready()
        });
        self.wait(&format!("the cluster is connected after {after}"), |world| world.cluster.ready());
        let (code, printed) = self.run("doctor STATE");
        assert!(code == 0 || code == 10, "after {after}: {code} {printed}");
    }

    /// Kills one of the two gateways.
    fn kill_a_gateway(&mut self) -> &'static str {
        let gateway = match self.random.below(2) {
            0 => &mut self.observability,
            _ => &mut self.cluster,
        };
        gateway.kill();
        gateway.name
    }

    /// Waits until the moment at which something is killed.
    fn pause(&mut self, millis: u64) {
        std::thread::sleep(Duration::from_millis(self.random.below(millis)));
    }

    /// Runs a command beside the gateways; something is killed before it has ended, the command or a gateway. It is run again
    /// to its end.
    fn change(&mut self, line: &str, millis: u64) -> &'static str {
        let mut child =
            self.command(line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("isthmus runs");
        self.pause(millis);
        let killed = match self.random.below(2) {
            0 => {
                // Fails if it has ended.
                drop(child.kill());
                "the command"
            }
            _ => self.kill_a_gateway(),
        };
        drop(child.wait());
        self.must(line);
        killed
    }

    /// The data directory is lost, and the cluster joins with a new token, which is killed in between.
    fn join(&mut self) -> &'static str {
        self.cluster.process = None;
        fs::remove_dir_all(self.dir.join("eu-1")).expect("a folder");
        self.new_token();
        self.cluster.start();
        self.pause(500);
        let killed = self.kill_a_gateway();
        // A join that was interrupted may have used its token. A gateway that cannot join ends, or was killed with its token used:
        // then its owner gets a new one, and starts it again.
        for _ in 0..2 {
            let began = std::time::Instant::now();
            while began.elapsed() < PATIENCE {
                let process = self.cluster.process.as_mut().expect("a process");
                if !process.is_running() {
                    break;
                }
                if self.cluster.ready().is_ok() {
                    return killed;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            self.wait("the observability gateway works", |world| world.observability.ready());
            self.new_token();
            self.cluster.kill();
        }
        killed
    }
}

/// Sizes that the environment sets.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn killed_at_any_time(transport: &str) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (seed, kills) = (number("ISTHMUS_SEED", 2026), number("ISTHMUS_KILLS", KILLS));
    let mut world = World::start(dir.path(), transport, seed);
    let mut counts = std::collections::BTreeMap::<(&str, &str), u64>::new();
    let mut extra = false;
    for round in 0..kills {
        // Each kind in turn, so that a few kills hit all of them.
        let (what, killed) = match round % 4 {
            0 => ("join", world.join()),
            1 => {
                // A certificate lives for 8 s and is renewed after 4 s.
                world.pause(2500);
                ("renewal", world.kill_a_gateway())
            }
            2 => ("revocation", {
                let pause = world.random.below(2) == 0;
                let line = if pause {
                    "cert revoke --cluster us-1 --yes STATE"
                } else {
                    "denylist push --wait 0s STATE"
                };
                world.change(line, 100)
            }),
            _ => ("bundle", {
                // The extra root comes and goes.
                let change = match extra {
                    false => "--add DIR/roots/root-extra.pem".to_owned(),
                    true => format!("--remove {}", world.extra_pin()),
                };
                extra = !extra;
                world.must(&format!(
                    "bundle sign --trust-domain test.isthmus --bundle DIR/state/bundle.pem --out DIR/next.pem {change} ROOTS"
                ));
                world.change("bundle install STATE DIR/next.pem", 100)
            }),
        };
        world.settle(&format!("round {round}, {what}, {killed} was killed"));
        *counts.entry((what, killed)).or_default() += 1;
    }
    println!("{transport}: seed {seed}, {kills} kills: {counts:?}");
    // The gateways have what the last commands changed, and the commands work as before.
    world.must("denylist push --wait 20s STATE");
    world.must("audit verify STATE");
    world.must("cluster add last --environment test STATE");
}

impl World {
    fn extra_pin(&self) -> String {
        let (_, printed) =
            self.run("bundle show --bundle DIR/roots/root-extra.pem --trust-domain test.isthmus --json");
        let shown: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
        shown["roots"][0]["pin"].as_str().expect("a pin").to_owned()
    }
}

#[test]
fn gateways_and_commands_that_are_killed_over_tcp_leave_nothing_to_repair() {
    killed_at_any_time("tcp");
}

#[test]
fn gateways_and_commands_that_are_killed_over_quic_leave_nothing_to_repair() {
    killed_at_any_time("quic");
}
