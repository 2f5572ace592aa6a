//! Causes of alerts about the trust domain: what a thief does, and what looks like it.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tests::{GatewayCommand, PkiCommands, create_token, free_port, wait_for};

use crate::meta_monitoring::files::exchange;
use crate::meta_monitoring::world::{PATIENCE, World};

/// A thief has the state of the issuer, and lets it offer a root of his own.
pub(crate) fn check_planted_root(world: &World) {
    println!("a root that no root in use has signed is planted in the state of the issuer");
    let dir = world.dir.join("planter");
    fs::create_dir(&dir).expect("a folder");
    let theirs = world.dir.join("mesh/pki");
    let own = PkiCommands::new(&dir);
    own.must("init --trust-domain test.isthmus ROOTS STATE");
    let added = ["active", "standby"]
        .map(|label| format!("--add {}", theirs.join(format!("roots/root-{label}.pem")).display()));
    own.must(&format!(
        "bundle sign --trust-domain test.isthmus --bundle DIR/state/bundle.pem --out DIR/planted.pem {} ROOTS",
        added.join(" ")
    ));
    let (bundle, planted) = (theirs.join("state/bundle.pem"), dir.join("planted.pem"));
    exchange(&bundle, &planted);
    world.wait_for_alerts(&["TrustBundleRefused"]);
    exchange(&bundle, &planted);
    world.wait_for_alerts(&[]);
}

/// A thief has the state of the issuer, and with it the key of the issuing CA: he signs a certificate, and connects with it.
pub(crate) fn check_stolen_ca(world: &World) {
    println!("the key of the issuing CA is stolen and used");
    let dir = world.dir.join("thief");
    let state = dir.join("state");
    fs::create_dir(&dir).expect("a folder");
    copy_folder(&world.mesh.pki_state(), &state);
    let own = free_port();
    let token = dir.join("token");
    create_token(&state, "eu-1", own, &token);
    let issuer = format!("role: observability\ndata_dir: issuer\npki: {{state: state}}\nlisten: {own}\n");
    let issuer = GatewayCommand::new(&dir, "issuer", &issuer, None).start_ready();
    let member = format!("role: cluster\ndata_dir: member\ntargets: [{{name: x, address: '{own}'}}]\n");
    drop(GatewayCommand::new(&dir, "member", &member, Some(&token)).start_ready());
    drop(issuer);
    let member = format!("{member}dial: ['{}']\n", world.mesh.address());
    let member = GatewayCommand::new(&dir, "member", &member, None).start();
    world.wait_for_alerts(&["IssuingCaStolen"]);
    drop(member);
    world.wait_for_alerts(&[]);
}

/// A thief has the data directory of a gateway, and starts a gateway of his own with it.
pub(crate) fn check_copied_certificate(world: &World) {
    println!("the data directory of a gateway is copied, and the copy is used beside it");
    let (dir, owner) = (world.dir.join("copy"), world.dir.join("mesh/eu-1"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir.join("eu-1")).expect("a folder");
    for file in ["credentials.pem", "bundle.pem", "membership.json", "instance"] {
        fs::copy(owner.join(file), dir.join("eu-1").join(file)).expect("a file");
    }
    let yaml = format!("role: cluster\ndata_dir: eu-1\ntargets: [{{name: x, address: '{}'}}]\n", free_port());
    let copy = GatewayCommand::new(&dir, "copy", &yaml, None).start();
    world.wait_for_alerts(&["CertificateCopied"]);
    drop(copy);
    world.wait_for_alerts(&[]);
}

/// The machine of the issuer is lost, and comes back from a backup whose audit log lacks an entry that a cluster has a head of.
pub(crate) fn check_altered_log(world: &mut World) {
    println!("the issuer is restored from a backup");
    let (pki, state) = (world.mesh.pki(), world.mesh.pki_state());
    pki.must("backup --out DIR/backup --passphrase-file DIR/passphrase STATE");
    pki.must("cluster add later --environment testing STATE");
    let (_, tail) = pki.run("audit tail -n 1 --json STATE");
    let tail: Value = serde_json::from_str(&tail).unwrap_or_else(|why| panic!("{why}: {tail}"));
    let newest = tail["entries"][0]["number"].as_u64().expect("a number");
    let heads = world.dir.join("mesh/eu-1/audit-heads.json");
    // A head is signed at most every 30 s.
    wait_for("the cluster to keep a head with the last entry", PATIENCE, || {
        let text = fs::read_to_string(&heads).map_err(|why| why.to_string())?;
        let kept: Value = serde_json::from_str(&text).map_err(|why| why.to_string())?;
        let numbers = kept["heads"].as_array().into_iter().flatten().map(|head| head["number"].as_u64());
        if numbers.flatten().any(|number| number >= newest) { Ok(()) } else { Err(text) }
    });
    world.mesh.observability.kill();
    fs::rename(&state, state.with_extension("lost")).expect("a folder");
    pki.must("restore --from DIR/backup --passphrase-file DIR/passphrase STATE");
    world.mesh.start_observability_again();
    world.wait_for_alerts(&["AuditLogAltered"]);

    println!("a root accepts the log as it is");
    pki.must(
        "bundle sign --trust-domain test.isthmus --bundle DIR/state/bundle.pem --out DIR/accepted.pem ROOTS",
    );
    pki.must("bundle install DIR/accepted.pem STATE");
    world.wait_for_alerts(&[]);
}

fn copy_folder(from: &Path, to: &Path) {
    let output = Command::new("cp").arg("-r").arg(from).arg(to).output().expect("cp runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
