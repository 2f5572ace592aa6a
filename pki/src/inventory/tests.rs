use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, SystemTime},
};

use rusqlite::params;

use super::*;
use crate::{KeyAndCsr, testing::TestPki};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A PKI with two joined clusters.
fn pki_with_two_clusters() -> TestPki {
    let pki = TestPki::new();
    for cluster in ["eu-1", "us-1"] {
        let token = pki.token(cluster);
        pki.issuer().enrol(token.secret(), KeyAndCsr::generate().unwrap().csr_der(), pki.now).unwrap();
    }
    pki
}

/// Changes the database as an attacker with access to the file can.
fn tamper(pki: &TestPki, sql: &str) {
    let db = Connection::open(pki.state().join("inventory.db")).unwrap();
    db.execute_batch("DROP TRIGGER audit_is_not_changed; DROP TRIGGER audit_is_not_cut;").unwrap();
    db.execute_batch(sql).unwrap();
}

#[test]
fn files_are_private_including_those_that_sqlite_creates() {
    let pki = pki_with_two_clusters();
    let _open = pki.inventory();
    assert_eq!(mode(&pki.state()), 0o700);
    let mut seen = 0;
    for entry in fs::read_dir(pki.state()).unwrap() {
        let path = entry.unwrap().path();
        let expected = if path.ends_with("bundle.pem") { 0o644 } else { 0o600 };
        assert_eq!(mode(&path), expected, "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 5, "issuer, bundle, inventory, its log and shared memory: {seen}");
}

#[test]
fn changes_are_on_disk_before_a_call_returns() {
    let inventory = TestPki::new().inventory();
    let pragma = |name: &str| {
        inventory.db.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
    };
    assert_eq!(pragma("synchronous").unwrap(), 2_i64.into(), "FULL");
    assert_eq!(pragma("journal_mode").unwrap(), "wal".to_owned().into());
}

#[test]
fn the_audit_log_contains_every_change_and_its_chain_is_intact() {
    let pki = pki_with_two_clusters();
    let events: Vec<_> =
        pki.inventory().audit_tail(100).unwrap().into_iter().map(|entry| entry.event).collect();
    let joined = ["cluster registered", "token created", "token used", "certificate issued"];
    assert_eq!(events, [&["initialised"][..], &joined, &joined].concat());
    let head = pki.inventory().verify_audit(None).unwrap();
    assert_eq!(head.number, 9);
    assert_eq!(head.to_string().parse::<AuditHead>().unwrap(), head);
    pki.token("eu-1");
    assert_eq!(pki.inventory().verify_audit(Some(&head)).unwrap().number, 10);
}

#[test]
fn a_changed_audit_log_is_detected() {
    let check = |sql: &str, entry: &str| {
        let pki = pki_with_two_clusters();
        tamper(&pki, sql);
        let error = pki.inventory().verify_audit(None).unwrap_err();
        assert!(error.to_string().contains(entry), "{error} does not contain {entry:?} after {sql}");
        assert_eq!(error.exit_code(), 7);
    };
    check("UPDATE audit SET detail = replace(detail, 'eu-1', 'xx-1') WHERE number = 3", "breaks at entry 3");
    check("UPDATE audit SET at = '2020-01-01T00:00:00Z' WHERE number = 1", "breaks at entry 1");
    check("UPDATE audit SET event = 'nothing' WHERE number = 9", "breaks at entry 9");
    check("UPDATE audit SET hash = 'x' || hash WHERE number = 5", "breaks at entry 5");
    check("DELETE FROM audit WHERE number = 4", "breaks at entry 4");
    check("DELETE FROM audit WHERE number = 1", "breaks at entry 1");
    check("UPDATE audit SET number = 100 WHERE number = 9", "breaks at entry 9");
    check(
        "INSERT INTO audit SELECT 10, at, event, detail, hash FROM audit WHERE number = 9",
        "breaks at entry 10",
    );
}

#[test]
fn tables_agree_with_the_log_while_certificates_are_issued() {
    let pki = pki_with_two_clusters();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for cluster in 0..40 {
                let token = pki.token(&format!("eu-{cluster}"));
                let csr = KeyAndCsr::generate().unwrap();
                pki.issuer().enrol(token.secret(), csr.csr_der(), pki.now).unwrap();
            }
        });
        let inventory = pki.inventory();
        while !writer.is_finished() {
            inventory.replay().unwrap();
        }
    });
}

#[test]
fn a_table_that_was_changed_by_hand_does_not_agree_with_the_log() {
    let check = |sql: &str, expected: Option<&str>| {
        let pki = pki_with_two_clusters();
        tamper(&pki, sql);
        let found = pki.inventory().replay().map_err(|e| e.to_string());
        match expected {
            None => assert_eq!(found, Ok(6)),
            Some(expected) => {
                assert!(found.as_ref().is_err_and(|e| e.contains(expected)), "{sql}: {found:?}")
            }
        }
    };
    check("", None);
    check("DELETE FROM certificates", Some("is in the table or in the log, but not in both"));
    check("UPDATE certificates SET spki = 'x' || spki WHERE spiffe_id LIKE '%eu-1%'", Some("eu-1"));
    check("UPDATE tokens SET used_at = NULL", Some("is used in the table or in the log, but not in both"));
    check("DELETE FROM tokens", Some("token "));
    check("PRAGMA foreign_keys = OFF; DELETE FROM registrations", Some("cluster eu-1 has another state"));
    check("UPDATE registrations SET joined_at = NULL WHERE cluster = 'us-1'", Some("cluster us-1"));
    check("INSERT INTO settings VALUES ('adopt_since', '2020-01-01T00:00:00Z')", Some("the last restore"));
    check(
        "INSERT INTO certificates (serial, spiffe_id, spki, not_before, not_after, issued_at)
         VALUES ('4f', 'spiffe://test.example/cluster/eu-1/gateway', 'key', '', '', '')",
        Some("certificate 4f"),
    );
}

/// A thief lets the issuer forget what was denied.
#[test]
fn a_denial_that_is_missing_in_the_tables_is_found() {
    let check = |sql: &str, expected: Option<&str>| {
        let pki = pki_with_two_clusters();
        let issuer = pki.issuer();
        let (cluster, later) = ("us-1".parse().unwrap(), pki.now + Duration::from_secs(1));
        issuer.create_token(&crate::testing::new_token("us-1"), pki.now).unwrap();
        let of_cluster = Revocation::Cluster("eu-1".parse().unwrap());
        assert_eq!(issuer.revoke(&of_cluster, "stolen", later).unwrap(), 1);
        for pause in [true, false, true] {
            assert!(issuer.pause_cluster(&cluster, pause, later).unwrap());
        }
        let removed = "removed".parse().unwrap();
        issuer.create_token(&crate::testing::new_token("removed"), pki.now).unwrap();
        assert!(issuer.remove_cluster(&removed, later).unwrap());
        tamper(&pki, sql);
        let found = pki.inventory().replay().map_err(|e| e.to_string());
        match expected {
            None => assert!(found.is_ok(), "{found:?}"),
            Some(expected) => {
                assert!(found.as_ref().is_err_and(|e| e.contains(expected)), "{sql}: {found:?}")
            }
        }
    };
    check("", None);
    check("UPDATE certificates SET revoked_at = NULL", Some("is revoked in the log, but not in the table"));
    check("DELETE FROM denials", Some("the denial of cluster eu-1"));
    check("UPDATE denials SET lifted_at = at WHERE value = 'us-1'", Some("the denial of cluster us-1"));
    check("UPDATE denials SET issued_until = at WHERE value = 'us-1'", Some("the denial of cluster us-1"));
    check("UPDATE registrations SET paused_at = NULL", Some("cluster us-1 has another state"));
    check("UPDATE registrations SET removed_at = NULL", Some("cluster removed has another state"));
    check("UPDATE tokens SET revoked_at = NULL", Some("is revoked in the log, but not in the table"));
    // What denies more than the log is right, such as after a restore.
    check("UPDATE tokens SET revoked_at = created_at", None);
    check("UPDATE certificates SET revoked_at = issued_at", None);
}

#[test]
fn a_truncated_log_is_detected_with_an_earlier_head() {
    let pki = pki_with_two_clusters();
    let head = pki.inventory().verify_audit(None).unwrap();
    tamper(&pki, "DELETE FROM audit WHERE number > 6");
    assert_eq!(pki.inventory().verify_audit(None).unwrap().number, 6, "the chain alone cannot detect it");
    let error = pki.inventory().verify_audit(Some(&head)).unwrap_err();
    assert!(error.to_string().contains("truncated or rewritten"), "{error}");
}

#[test]
fn the_audit_log_is_append_only() {
    let inventory = pki_with_two_clusters().inventory();
    for sql in ["UPDATE audit SET event = 'x' WHERE number = 1", "DELETE FROM audit WHERE number = 9"] {
        let error = inventory.db.execute(sql, params![]).unwrap_err().to_string();
        assert!(error.contains("append-only"), "{error}");
    }
}

#[test]
fn a_change_without_its_audit_entry_is_rolled_back() {
    let pki = TestPki::new();
    pki.inventory().db.execute_batch("ALTER TABLE audit RENAME TO elsewhere").unwrap();
    let record = NewTokenRecord {
        secret: &[1; 32],
        cluster: &"eu-1".parse().unwrap(),
        environment: "production",
        expires_at: SystemTime::now(),
    };
    assert!(pki.inventory().add_token(&record, SystemTime::now()).is_err());
    assert!(pki.inventory().tokens().unwrap().is_empty());
    assert!(pki.inventory().clusters().unwrap().is_empty());
}

#[test]
fn a_database_that_is_not_an_inventory_is_rejected_by_name() {
    let pki = TestPki::new();
    let path = pki.state().join("inventory.db");
    let refused = |expected: &str| {
        let error = Inventory::open(&StateDir::new(&pki.state())).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error} does not contain {expected:?}");
        error.exit_code()
    };
    pki.inventory().db.pragma_update(None, "user_version", 99).unwrap();
    assert_eq!(refused("its format is 99"), 7);
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(pki.state().join(format!("inventory.db{suffix}")));
    }
    fs::write(&path, "this is not a database, but long enough to look like something".repeat(50)).unwrap();
    assert_eq!(refused("inventory.db"), 7);
    fs::remove_file(&path).unwrap();
    assert_eq!(refused("not a state directory of a PKI; create one with `pki init`"), 3);
}

#[test]
fn no_secret_is_stored_in_the_state_directory() {
    let pki = TestPki::new();
    let token = pki.token("eu-1");
    let text = token.to_text();
    let canaries = [token.secret(), &text.expose().as_bytes()[40..80], crate::testing::PASSPHRASE.as_bytes()];
    for entry in fs::read_dir(pki.state()).unwrap() {
        let path = entry.unwrap().path();
        let content = fs::read(&path).unwrap();
        for canary in canaries {
            let found = content.windows(canary.len()).any(|window| window == canary);
            assert!(!found, "a secret is in {}", path.display());
        }
    }
}

#[test]
fn an_inventory_of_the_first_format_is_converted_with_its_clusters() {
    let pki = pki_with_two_clusters();
    pki.token("expected");
    let path = pki.state().join("inventory.db");
    // The first format had none of this.
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "DROP TABLE gateways; DROP TABLE denylists; DROP TABLE denials; DROP INDEX certificates_by_parent;
         ALTER TABLE certificates DROP COLUMN first_seen_at; ALTER TABLE certificates DROP COLUMN generation;
         ALTER TABLE certificates DROP COLUMN parent; ALTER TABLE registrations DROP COLUMN removed_at;
         ALTER TABLE registrations DROP COLUMN paused_at; ALTER TABLE registrations DROP COLUMN joined_at;
         PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(db);
    let states: Vec<_> = pki.inventory().clusters().unwrap().iter().map(|c| c.state()).collect();
    assert_eq!(states, ["joined", "expected", "joined"]);
    assert_eq!(pki.inventory().certificates().unwrap().len(), 2);
    pki.issuer().denylists(pki.now).unwrap();
    pki.inventory().verify_audit(None).unwrap();
}

#[test]
fn certificates_that_expired_long_ago_are_pruned_and_the_log_still_agrees() {
    let pki = pki_with_two_clusters();
    let mut inventory = pki.inventory();
    let head = inventory.verify_audit(None).unwrap();
    let days = |days: u64| Duration::from_secs(days * 86_400);
    let error = inventory.prune(days(44), false, pki.now).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("at least 45 days"), "{error}");
    assert_eq!(inventory.prune(days(45), false, pki.now + days(45)).unwrap().certificates, 0);
    assert_eq!(inventory.verify_audit(None).unwrap(), head, "nothing was removed, and nothing is recorded");

    let later = pki.now + days(47);
    let next = pki.issuer();
    let token = next.create_token(&crate::testing::new_token("eu-2"), pki.now + days(20)).unwrap();
    let csr = KeyAndCsr::generate().unwrap();
    next.enrol(token.secret(), csr.csr_der(), pki.now + days(20)).unwrap();
    assert_eq!(inventory.prune(days(45), true, later).unwrap().certificates, 2);
    assert_eq!(inventory.certificates().unwrap().len(), 3, "a dry run removes nothing");
    assert_eq!(inventory.prune(days(45), false, later).unwrap().certificates, 2);
    let left: Vec<_> = inventory.certificates().unwrap().into_iter().map(|cert| cert.spiffe_id).collect();
    assert_eq!(left, ["spiffe://test.example/cluster/eu-2/gateway"]);
    // The log has all its entries and one more, and is compared with what is left.
    assert_eq!(inventory.verify_audit(Some(&head)).unwrap().number, head.number + 5);
    assert_eq!(inventory.replay().unwrap(), 7, "a certificate, three used tokens and three clusters");
    assert_eq!(inventory.prune(days(45), false, later).unwrap().certificates, 0, "again");

    // A certificate that an attacker removes is still missed.
    drop(inventory);
    tamper(&pki, "DELETE FROM certificates");
    assert!(pki.inventory().replay().unwrap_err().to_string().contains("not in both"));
}

#[test]
fn files_that_the_log_does_not_know_are_found() {
    let check = |change: &dyn Fn(&TestPki), expected: Option<&str>| {
        let pki = pki_with_two_clusters();
        change(&pki);
        let agreed = pki.issuer().check_agreement().map_err(|e| e.to_string());
        match expected {
            None => assert_eq!(agreed, Ok(())),
            Some(expected) => {
                assert!(agreed.as_ref().is_err_and(|e| e.contains(expected)), "{expected}: {agreed:?}")
            }
        }
    };
    let other = TestPki::new();
    let take = |pki: &TestPki, file: &str| {
        fs::copy(other.state().join(file), pki.state().join(file)).unwrap();
    };
    check(&|_| {}, None);
    check(&|pki| take(pki, "issuer.pem"), Some("does not know the issuing CA"));
    check(&|pki| take(pki, "bundle.pem"), Some("does not know the roots of bundle.pem"));
    check(
        &|pki| tamper(pki, "UPDATE settings SET value = 'us-9' WHERE key = 'cluster'"),
        Some("the inventory is for us-9 of test.example"),
    );
    check(&|pki| tamper(pki, "DELETE FROM audit"), Some("does not begin with the creation"));
    // A log that an earlier program began.
    let older = "UPDATE audit SET detail = json_remove(detail, '$.key') WHERE number = 1";
    check(&|pki| tamper(pki, older), None);
}

#[test]
fn an_inventory_of_an_earlier_program_is_converted() {
    let pki = pki_with_two_clusters();
    let db = Connection::open(pki.state().join("inventory.db")).unwrap();
    db.execute_batch(
        "ALTER TABLE gateways DROP COLUMN audit_number; ALTER TABLE gateways DROP COLUMN audit_hash;
         INSERT INTO gateways VALUES ('id', 'instance', 'remote', '4f', 1, 0, 1, '', '2026-01-01T00:00:00Z', NULL);
         PRAGMA user_version = 2;",
    )
    .unwrap();
    drop(db);
    let gateways = pki.inventory().gateways().unwrap();
    assert_eq!((gateways[0].report.audit_number, gateways[0].report.audit_hash.as_str()), (0, ""));
    assert_eq!(schema::format_of(&pki.inventory().db).unwrap(), 2, "the earlier program can read it again");
}

/// A program between two releases wrote another number for the same tables, which programs of earlier releases refuse.
#[test]
fn an_inventory_gets_back_the_number_that_earlier_programs_know() {
    let pki = pki_with_two_clusters();
    let db = Connection::open(pki.state().join("inventory.db")).unwrap();
    db.pragma_update(None, "user_version", 3).unwrap();
    drop(db);
    assert_eq!(pki.inventory().clusters().unwrap().len(), 2);
    assert_eq!(schema::format_of(&pki.inventory().db).unwrap(), 2);
}
