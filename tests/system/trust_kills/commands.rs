//! Commands of the PKI that are killed at any time, without a gateway: the next command works.

use std::fs;
use std::time::{Duration, Instant};

use tests::{PkiCommands, Seeded, number};

/// How often a command is killed without `ISTHMUS_KILLS`.
const KILLS: u64 = 200;

/// Signs a bundle with another root.
const BUNDLE: &str = "bundle sign --trust-domain test.example --bundle DIR/state/bundle.pem --out DIR/next.pem \
                      --add DIR/state/extra.pem ROOTS";

/// A command that changes something. `round` makes its names new, `random` chooses among them.
fn change(round: u64, random: &mut Seeded) -> String {
    let some = random.below(round + 1);
    match random.below(10) {
        0 | 1 => format!("cluster add c{round} --environment test STATE"),
        2 | 3 => {
            format!("token create --cluster c{some} --environment test --address gw:1 --out DIR/token STATE")
        }
        4 => format!("cert revoke --cluster c{some} --yes STATE"),
        5 => format!("cluster pause c{some} --yes STATE"),
        6 => format!("cluster remove c{some} --yes STATE"),
        7 => "denylist push --wait 0s STATE".to_owned(),
        8 => "issuer renew ROOTS STATE".to_owned(),
        _ => BUNDLE.to_owned(),
    }
}

#[test]
fn a_killed_command_leaves_nothing_to_repair() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let pki = PkiCommands::new(dir.path());
    let (kills, mut random) = (number("ISTHMUS_KILLS", KILLS), Seeded::from_environment(2026));
    let init = "init --trust-domain test.example ROOTS STATE";

    // The creation itself, killed until it has once completed.
    let mut running = 0;
    for _ in 0..kills / 20 {
        running += u64::from(pki.kill(init, Duration::from_millis(random.below(1000))));
    }
    pki.must(init);
    pki.must_be_healthy("init");
    // How long commands take on this machine, so that kills hit all of them. Those with a root take longer, because guessing a
    // passphrase is expensive.
    let began = Instant::now();
    pki.must("root create --label extra --trust-domain test.example ROOTS");
    let slow = began.elapsed();
    let began = Instant::now();
    pki.must("cluster add first --environment test STATE");
    let quick = began.elapsed();
    fs::copy(dir.path().join("roots/root-extra.pem"), dir.path().join("state/extra.pem")).expect("a root");

    for round in 0..kills {
        let line = change(round, &mut random);
        let bound = if line.contains("ROOTS") { slow } else { quick };
        let after = random.below(bound.as_micros().try_into().unwrap_or(u64::MAX));
        running += u64::from(pki.kill(&line, Duration::from_micros(after)));
        if round % 8 == 0 {
            pki.must_be_healthy(&line);
        }
    }
    println!("{kills} kills, {running} of them in the middle of a command");
    assert!(running > kills / 4, "most commands had ended: {running} of {kills}");
    pki.must_be_healthy("all of it");
    for line in [
        "audit verify STATE",
        "cluster add last --environment test STATE",
        "token create --cluster last --environment test --address gw:1 STATE",
        "denylist push --wait 0s STATE",
        "bundle sign --trust-domain test.example --bundle DIR/state/bundle.pem --out DIR/next.pem --add DIR/state/extra.pem ROOTS",
        "bundle install STATE DIR/next.pem",
    ] {
        pki.must(line);
    }
}
