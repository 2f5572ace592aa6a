use std::time::Duration;

use identity::{Expectations, PeerIdentity, verify_peer};

use super::*;
use crate::{
    Issuer, KeyAndCsr, PkiError, TokenRefusal,
    inventory::Revocation,
    testing::{PASSPHRASE, TestPki, new_token},
};

fn joined(pki: &TestPki, issuer: &Issuer, cluster: &str, at: SystemTime) -> PeerIdentity {
    let token = issuer.create_token(&new_token(cluster), at).unwrap();
    let csr = KeyAndCsr::generate().unwrap();
    let enrolment = issuer.enrol(token.secret(), csr.csr_der(), at).unwrap();
    let _ = pki;
    verify_peer(&enrolment.chain, &enrolment.bundle, at, &Expectations::default()).unwrap()
}

#[test]
fn an_old_backup_reopens_no_token_revives_no_certificate_and_locks_nobody_out() {
    let pki = TestPki::new();
    let issuer = pki.issuer();
    // The backup is a day old when it is needed: times around now, because adoption reads the clock.
    let (backup_at, lost_at) = (pki.now - Duration::from_secs(7200), pki.now - Duration::from_secs(60));
    let started = pki.now;
    let passphrase = Secret::new(PASSPHRASE.to_owned());
    let early = joined(&pki, &issuer, "eu-1", started);
    let stolen = joined(&pki, &issuer, "eu-2", started);
    let used_later = issuer.create_token(&new_token("eu-3"), started).unwrap();
    let file = pki.dir.path().join("pki.backup");
    backup(&pki.state(), Some(&file), &passphrase, Argon2Cost::WEAK, backup_at).unwrap();
    assert!(!fs::read_to_string(&file).unwrap().contains("PRIVATE"));

    // After the backup: a token is used, a certificate renewed, another revoked.
    issuer.enrol(used_later.secret(), KeyAndCsr::generate().unwrap().csr_der(), started).unwrap();
    let csr = KeyAndCsr::generate().unwrap();
    let renewed = issuer.renew(&early, csr.csr_der(), lost_at).unwrap();
    let renewed = verify_peer(&renewed.chain, &renewed.bundle, pki.now, &Expectations::default()).unwrap();
    issuer.revoke(&Revocation::Serial(stolen.serial.clone()), "stolen", lost_at).unwrap();
    let list = pki.dir.path().join("denylist.bin");
    fs::write(&list, issuer.denylists(lost_at).unwrap().issuer().unwrap().as_bytes()).unwrap();

    let options = RestoreOptions {
        from: file.clone(),
        state: pki.dir.path().join("restored"),
        passphrase,
        denylists: vec![list],
    };
    let restored = restore(&options, pki.now).unwrap();
    assert_eq!(restored, Restored { tokens: 1, denials: 1 });
    let again = Issuer::open(&options.state).unwrap();
    let csr = KeyAndCsr::generate().unwrap();
    let refused = again.enrol(used_later.secret(), csr.csr_der(), pki.now).unwrap_err();
    assert!(matches!(refused, PkiError::Token(TokenRefusal::Revoked)), "{refused}");
    assert!(again.denylists(pki.now).unwrap().denies(&stolen).is_some());
    assert!(again.has_issued(&early).unwrap() && again.has_issued(&renewed).unwrap());
    again.renew(&renewed, csr.csr_der(), pki.now).unwrap();
    let minted =
        PeerIdentity { not_before: pki.now + Duration::from_secs(600), serial: "4f".into(), ..renewed };
    assert!(!again.has_issued(&minted).unwrap(), "only what was issued before the restore is adopted");
    assert!(again.denylists(pki.now).unwrap().issuer().unwrap().number() > 0);
    let events: Vec<_> = Inventory::open(&StateDir::new(&options.state))
        .unwrap()
        .audit_tail(10)
        .unwrap()
        .into_iter()
        .map(|entry| entry.event)
        .collect();
    assert!(events.contains(&"certificate adopted".to_owned()), "{events:?}");
    let error = restore(&options, pki.now).unwrap_err();
    assert_eq!(error.exit_code(), 5, "{error}");
}

#[test]
fn a_damaged_backup_or_a_wrong_passphrase_leaves_no_state_directory() {
    let pki = TestPki::new();
    let file = pki.dir.path().join("pki.backup");
    let passphrase = Secret::new(PASSPHRASE.to_owned());
    backup(&pki.state(), Some(&file), &passphrase, Argon2Cost::WEAK, pki.now).unwrap();
    let check = |passphrase: &str, code: u8| {
        let options = RestoreOptions {
            from: file.clone(),
            state: pki.dir.path().join("restored"),
            passphrase: Secret::new(passphrase.to_owned()),
            denylists: Vec::new(),
        };
        let error = restore(&options, pki.now).unwrap_err();
        assert_eq!(error.exit_code(), code, "{error}");
        assert!(!StateDir::new(&options.state).inventory().exists());
    };
    check("not this one", 4);
    let text = fs::read_to_string(&file).unwrap();
    let mut changed = text.clone().into_bytes();
    let middle = changed.len() / 2;
    let at = (middle..).find(|at| changed[*at].is_ascii_alphabetic()).unwrap();
    changed[at] ^= 0x20;
    fs::write(&file, &changed).unwrap();
    check(PASSPHRASE, 4);
    fs::write(&file, &text[..text.len() / 2]).unwrap();
    check(PASSPHRASE, 7);
}

/// The scene: the machine of the issuer is lost, and the newest backup is a week old. Every certificate was renewed many times since.
#[test]
fn a_backup_of_a_week_ago_costs_no_cluster_a_token() {
    let day = Duration::from_secs(86_400);
    let present = SystemTime::now();
    let pki = TestPki { now: present - 8 * day, ..TestPki::empty() };
    crate::init::init_at_cost(&pki.options(), pki.now, Argon2Cost::WEAK).unwrap();
    let issuer = pki.issuer();
    let mut peer = joined(&pki, &issuer, "eu-1", pki.now);
    let (mut at, mut backed_up) = (pki.now, false);
    let (file, passphrase) = (pki.dir.path().join("pki.backup"), Secret::new(PASSPHRASE.to_owned()));
    while at + day / 2 < present {
        at += day / 2;
        if !backed_up && at >= present - 7 * day {
            issuer.denylists(at).unwrap();
            backup(&pki.state(), Some(&file), &passphrase, Argon2Cost::WEAK, at).unwrap();
            backed_up = true;
        }
        let next = issuer.renew(&peer, KeyAndCsr::generate().unwrap().csr_der(), at).unwrap();
        peer = verify_peer(&next.chain, &next.bundle, at, &Expectations::default()).unwrap();
    }
    let head = issuer.sign_audit_head(present).unwrap().unwrap();
    let options = RestoreOptions {
        from: file,
        state: pki.dir.path().join("restored"),
        passphrase,
        denylists: Vec::new(),
    };
    restore(&options, present).unwrap();
    let again = Issuer::open(&options.state).unwrap();
    assert!(again.has_issued(&peer).unwrap(), "it is adopted");
    again.renew(&peer, KeyAndCsr::generate().unwrap().csr_der(), present).unwrap();
    again.check_agreement().unwrap();
    // The clusters keep a head that the restored log does not have, and report it until a root accepts the log.
    assert_ne!(again.audit_hash_at(head.number()).unwrap().as_deref(), Some(head.hash()));

    // Certificates of the week are pruned when they are old, and the log still agrees with the table.
    let mut inventory = Inventory::open(&StateDir::new(&options.state)).unwrap();
    assert!(inventory.prune(50 * day, false, present + 45 * day).unwrap().certificates > 0);
    inventory.verify_audit(None).unwrap();
    inventory.replay().unwrap();
}
