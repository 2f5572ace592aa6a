//! Commands that are killed at any time leave a whole state directory: the next command works, and nothing is repaired by hand.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// How often a command is killed; `ISTHMUS_KILLS` sets another number.
const KILLS: u64 = 200;

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

struct Pki {
    dir: PathBuf,
}

impl Pki {
    fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isthmus-pki"));
        let folder = self.dir.display().to_string();
        command.args(args.split_whitespace().map(|word| word.replace("DIR", &folder)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end, and returns its exit code and what it printed.
    fn run(&self, args: &str) -> (i32, String) {
        let output = self.command(args).output().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8_lossy(&printed).into_owned())
    }

    /// Kills a command after a time, and returns whether it was still running.
    fn kill(&self, args: &str, after: Duration) -> bool {
        let mut child = self.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(after);
        let running = child.try_wait().unwrap().is_none();
        // Fails if it has ended.
        let _ = child.kill();
        child.wait().unwrap();
        running
    }
}

/// A command that changes something. `round` makes its names new, `seed` chooses among them.
fn change(round: u64, random: &mut Seeded) -> String {
    let some = random.below(round + 1);
    let roots = "--root-out DIR/roots --root-passphrase-file DIR/passphrase";
    let state = "--state DIR/state";
    match random.below(10) {
        0 | 1 => format!("cluster add c{round} --environment test {state}"),
        2 | 3 => format!(
            "token create --cluster c{some} --environment test --address gw:1 --out DIR/token {state}"
        ),
        4 => format!("cert revoke --cluster c{some} --yes {state}"),
        5 => format!("cluster pause c{some} --yes {state}"),
        6 => format!("cluster remove c{some} --yes {state}"),
        7 => format!("denylist push --wait 0s {state}"),
        8 => format!("issuer renew {roots} {state}"),
        _ => format!(
            "bundle sign --trust-domain test.example --bundle DIR/state/bundle.pem --out DIR/next.pem \
             --add DIR/state/extra.pem {roots}"
        ),
    }
}

fn healthy(pki: &Pki, what: &str) {
    let (code, printed) = pki.run("doctor --state DIR/state");
    assert!(code == 0 || code == 10, "after {what}: {code} {printed}");
}

#[test]
fn a_killed_command_leaves_nothing_to_repair() {
    let dir = tempfile_dir();
    let pki = Pki { dir: dir.clone() };
    std::fs::write(dir.join("passphrase"), "a long passphrase\n").unwrap();
    let init = "init --trust-domain test.example --root-out DIR/roots --root-passphrase-file DIR/passphrase --state DIR/state";
    let seed = std::env::var("ISTHMUS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(2026);
    let kills = std::env::var("ISTHMUS_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let mut random = Seeded(seed | 1);

    // The creation itself, killed until it has once completed.
    let mut running = 0;
    for _ in 0..kills / 20 {
        running += u64::from(pki.kill(init, Duration::from_millis(random.below(1000))));
    }
    let (code, printed) = pki.run(init);
    assert_eq!(code, 0, "{printed}");
    healthy(&pki, "init");
    let roots = "--trust-domain test.example --root-out DIR/roots --root-passphrase-file DIR/passphrase";
    // How long commands take on this machine, so that kills hit all of them. Those with a root take longer, because guessing a
    // passphrase is expensive.
    let began = Instant::now();
    assert_eq!(pki.run(&format!("root create --label extra {roots}")).0, 0);
    let slow = began.elapsed();
    let began = Instant::now();
    assert_eq!(pki.run("cluster add first --environment test --state DIR/state").0, 0);
    let quick = began.elapsed();
    std::fs::copy(dir.join("roots/root-extra.pem"), dir.join("state/extra.pem")).unwrap();

    for round in 0..kills {
        let line = change(round, &mut random);
        let bound = if line.contains("root-passphrase") { slow } else { quick };
        let after = random.below(bound.as_micros().try_into().unwrap_or(u64::MAX));
        running += u64::from(pki.kill(&line, Duration::from_micros(after)));
        if round % 8 == 0 {
            healthy(&pki, &line);
        }
    }
    println!("seed {seed}: {kills} kills, {running} of them in the middle of a command");
    assert!(running > kills / 4, "most commands had ended: {running} of {kills}");
    healthy(&pki, "all of it");
    for line in [
        "audit verify --state DIR/state",
        "cluster add last --environment test --state DIR/state",
        "token create --cluster last --environment test --address gw:1 --state DIR/state",
        "denylist push --wait 0s --state DIR/state",
    ] {
        let (code, printed) = pki.run(line);
        assert_eq!(code, 0, "{line}: {printed}");
    }
    let bundle = "bundle sign --bundle DIR/state/bundle.pem --out DIR/next.pem --add DIR/state/extra.pem";
    assert_eq!(pki.run(&format!("{bundle} {roots}")).0, 0);
    let (code, printed) = pki.run("bundle install --state DIR/state DIR/next.pem");
    assert_eq!(code, 0, "{printed}");
    std::fs::remove_dir_all(&dir).unwrap();
}

/// A folder of this process.
fn tempfile_dir() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kills-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}
