//! Gateways and commands of the PKI that are killed at any time during joins, renewals, revocations and changes of the trust
//! bundle: what they leave is whole, and nothing is repaired by hand.
//!
//! `ISTHMUS_KILLS` sets how often something is killed, `ISTHMUS_SEED` the seed.

mod commands;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tests::{GatewayCommand, PkiCommands, Process, Seeded, free_port, get, number, wait_for};

const PATIENCE: Duration = Duration::from_secs(30);
/// How often something is killed without `ISTHMUS_KILLS`.
const KILLS: u64 = 6;

/// A gateway that is started again and again.
struct Gateway {
    command: GatewayCommand,
    process: Option<Process>,
}

impl Gateway {
    fn new(dir: &Path, name: &str, yaml: &str, token: Option<&Path>) -> Self {
        Self { command: GatewayCommand::new(dir, name, yaml, token), process: None }
    }

    fn start(&mut self) {
        self.process = Some(self.command.start());
    }

    /// Kills it, and starts it again at once.
    fn kill(&mut self) {
        self.process = None;
        self.start();
    }

    /// Whether it is ready.
    fn ready(&mut self) -> Result<(), String> {
        let (name, process) = (self.command.name(), self.process.as_mut().expect("a process"));
        if !process.is_running() {
            return Err(format!("{name} has ended:\n{}", process.output()));
        }
        match get(self.command.http, "/-/ready")? {
            (200, _) => Ok(()),
            (status, body) => Err(format!("{name}: {status} {body}:\n{}", process.output())),
        }
    }
}

/// A trust domain with an observability gateway and a cluster.
struct World {
    dir: PathBuf,
    address: SocketAddr,
    pki: PkiCommands,
    observability: Gateway,
    cluster: Gateway,
    random: Seeded,
}

impl World {
    fn start(dir: &Path, transport: &str) -> Self {
        let address = free_port();
        let observability = format!(
            "role: observability\ndata_dir: observability\npki: {{state: state, leaf_lifetime: 8s}}\nlisten: {address}\n"
        );
        let cluster = format!(
            "role: cluster\ndata_dir: eu-1\ntransport: {transport}\ntargets: [{{name: x, address: '{}'}}]\n",
            free_port()
        );
        let mut world = Self {
            dir: dir.to_owned(),
            address,
            pki: PkiCommands::new(dir),
            observability: Gateway::new(dir, "observability", &observability, None),
            cluster: Gateway::new(dir, "eu-1", &cluster, Some(&dir.join("token"))),
            random: Seeded::from_environment(2026),
        };
        world.pki.must("init --trust-domain test.isthmus ROOTS STATE");
        world.pki.must("root create --label extra --trust-domain test.isthmus ROOTS");
        world.pki.must("cluster add us-1 --environment test STATE");
        world.new_token();
        world.observability.start();
        world.wait("the observability gateway starts", |world| world.observability.ready());
        world.cluster.start();
        world.settle("the first join");
        world
    }

    fn new_token(&self) {
        self.pki.must(&format!(
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
        self.pki.must_be_healthy(after);
    }

    /// Kills one of the two gateways.
    fn kill_a_gateway(&mut self) -> &'static str {
        let (gateway, name) = match self.random.below(2) {
            0 => (&mut self.observability, "observability"),
            _ => (&mut self.cluster, "eu-1"),
        };
        gateway.kill();
        name
    }

    /// Waits until the moment at which something is killed.
    fn pause(&mut self, millis: u64) {
        std::thread::sleep(Duration::from_millis(self.random.below(millis)));
    }

    /// Runs a command beside the gateways; something is killed before it has ended, the command or a gateway. It is run again
    /// to its end.
    fn change(&mut self, line: &str, millis: u64) -> &'static str {
        let mut child = self.pki.command(line).spawn().expect("isthmus runs");
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
        self.pki.must(line);
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

fn killed_at_any_time(transport: &str) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let kills = number("ISTHMUS_KILLS", KILLS);
    let mut world = World::start(dir.path(), transport);
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
                world.pki.must(&format!(
                    "bundle sign --trust-domain test.isthmus --bundle DIR/state/bundle.pem --out DIR/next.pem {change} ROOTS"
                ));
                world.change("bundle install STATE DIR/next.pem", 100)
            }),
        };
        world.settle(&format!("round {round}, {what}, {killed} was killed"));
        *counts.entry((what, killed)).or_default() += 1;
    }
    println!("{transport}: {kills} kills: {counts:?}");
    // The gateways have what the last commands changed, and the commands work as before.
    world.pki.must("denylist push --wait 20s STATE");
    world.pki.must("audit verify STATE");
    world.pki.must("cluster add last --environment test STATE");
}

impl World {
    fn extra_pin(&self) -> String {
        let (_, printed) =
            self.pki.run("bundle show --bundle DIR/roots/root-extra.pem --trust-domain test.isthmus --json");
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
