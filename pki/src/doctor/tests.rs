use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::testing::TestPki;

fn worst(pki: &TestPki, now: SystemTime) -> (Severity, String) {
    let findings = examine(&pki.state(), now).unwrap();
    let worst = findings.into_iter().max_by_key(|finding| finding.severity).unwrap();
    (worst.severity, worst.text)
}

#[test]
fn a_fresh_state_directory_is_healthy() {
    let pki = TestPki::new();
    assert_eq!(worst(&pki, pki.now).0, Severity::Ok);
}

#[test]
fn expiry_is_reported_before_it_happens() {
    let pki = TestPki::new();
    let (severity, text) = worst(&pki, pki.now + 24 * DAY);
    assert_eq!(severity, Severity::Warning, "{text}");
    assert!(
        text.contains("issuing CA")
            && (text.contains("in 5 days") || text.contains("in 6 days"))
            && text.ends_with("renew it with `pki issuer renew`"),
        "{text}"
    );
    assert_eq!(worst(&pki, pki.now + 29 * DAY).0, Severity::Critical);
    let (severity, text) = worst(&pki, pki.now + 31 * DAY);
    assert!(
        severity == Severity::Critical && text.contains("issuing CA") && text.contains("expired at"),
        "{text}"
    );
    let late = examine(&pki.state(), pki.now + 3610 * DAY).unwrap();
    let roots: Vec<_> = late.iter().filter(|finding| finding.check == "roots").collect();
    assert!(roots.len() == 2 && roots.iter().all(|root| root.severity == Severity::Warning), "{roots:?}");
}

#[test]
fn readable_keys_damaged_files_and_an_altered_log_are_critical() {
    let pki = TestPki::new();
    let issuer = pki.state().join("issuer.pem");
    fs::set_permissions(&issuer, fs::Permissions::from_mode(0o644)).unwrap();
    let critical: Vec<_> = examine(&pki.state(), pki.now).unwrap();
    let critical: Vec<_> = critical.iter().filter(|found| found.severity == Severity::Critical).collect();
    assert!(critical[0].text.contains("mode 644, expected 600; run chmod 600"), "{critical:?}");
    assert!(
        critical[1].text.contains("others can read the key"),
        "the CA is not used like this: {critical:?}"
    );

    let pki = TestPki::new();
    fs::write(pki.state().join("bundle.pem"), "garbage").unwrap();
    let (severity, text) = worst(&pki, pki.now);
    assert!(severity == Severity::Critical && text.contains("bundle.pem"), "{text}");

    let pki = TestPki::new();
    let db = rusqlite::Connection::open(pki.state().join("inventory.db")).unwrap();
    db.execute_batch("DROP TRIGGER audit_is_not_changed; UPDATE audit SET at = 'x' WHERE number = 1")
        .unwrap();
    let (severity, text) = worst(&pki, pki.now);
    assert!(severity == Severity::Critical && text.contains("breaks at entry 1"), "{text}");

    assert_eq!(examine(&TestPki::empty().state(), pki.now).unwrap_err().exit_code(), 3);
}

/// A gateway has kept a head of the log. Then the end of the log is cut, the table emptied, or the chain computed again.
#[test]
fn a_log_without_the_head_that_a_gateway_keeps_is_critical() {
    let pki = TestPki::new();
    let issuer = pki.issuer();
    pki.token("eu-1");
    let head = issuer.sign_audit_head(pki.now).unwrap().unwrap();
    let report = crate::GatewayReport {
        id: "spiffe://test.example/cluster/eu-1/gateway".into(),
        audit_number: head.number(),
        audit_hash: head.hash().into(),
        ..Default::default()
    };
    issuer.gateway_reported(&report, pki.now).unwrap();
    let of_log = || -> Vec<_> {
        let findings = examine(&pki.state(), pki.now).unwrap().into_iter();
        let critical = findings.filter(|f| f.severity == Severity::Critical && f.check == "audit log");
        critical.map(|finding| finding.text).collect()
    };
    assert_eq!(of_log(), Vec::<String>::new());
    pki.token("eu-2");
    assert_eq!(of_log(), Vec::<String>::new(), "the log has grown");
    let db = rusqlite::Connection::open(pki.state().join("inventory.db")).unwrap();
    db.execute_batch("DROP TRIGGER audit_is_not_cut; DELETE FROM audit WHERE number > 1").unwrap();
    let found = of_log();
    assert!(found.len() == 1 && found[0].contains("entries were removed or rewritten"), "{found:?}");
    // Other changes follow, so that the log is longer than before.
    for cluster in ["eu-3", "eu-4", "eu-5"] {
        pki.token(cluster);
    }
    assert!(issuer.audit_entries().unwrap() > head.number());
    assert_eq!(of_log().len(), 1, "its chain is intact, and it is another one");
}
