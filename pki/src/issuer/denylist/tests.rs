use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
};

use identity::{DenySubject, Expectations, verify_peer};

use super::*;
use crate::{ClusterRecord, KeyAndCsr, inventory::StateDir, issuer::Enrolment, testing::TestPki};

fn joined(pki: &TestPki, cluster: &str) -> (Enrolment, identity::PeerIdentity) {
    let (issuer, token) = (pki.issuer(), pki.token(cluster));
    let csr = KeyAndCsr::generate().unwrap();
    let enrolment = issuer.enrol(token.secret(), csr.csr_der(), pki.now).unwrap();
    let peer = verify_peer(&enrolment.chain, &enrolment.bundle, pki.now, &Expectations::default()).unwrap();
    (enrolment, peer)
}

#[test]
fn what_is_revoked_is_in_the_next_list_and_cannot_be_renewed() {
    let pki = TestPki::new();
    let issuer = pki.issuer();
    let peers: Vec<_> = ["eu-1", "eu-2", "eu-3", "eu-4"].map(|cluster| joined(&pki, cluster).1).into();
    let first = issuer.denylists(pki.now).unwrap().issuer().unwrap().number();
    let revoke = |what| issuer.revoke(&what, "stolen", pki.now).unwrap();
    assert_eq!(revoke(Revocation::Serial(peers[0].serial.clone())), 1);
    assert_eq!(revoke(Revocation::Serial(peers[0].serial.clone())), 0, "again");
    assert_eq!(revoke(Revocation::Id(peers[1].spiffe_id.clone())), 1);
    assert_eq!(revoke(Revocation::Cluster("eu-3".parse().unwrap())), 1);
    let held = issuer.denylists(pki.now).unwrap();
    assert!(held.issuer().unwrap().number() > first);
    let denied: Vec<_> = peers.iter().map(|peer| held.denies(peer).is_some()).collect();
    assert_eq!(denied, [true, true, true, false]);
    for peer in &peers[..3] {
        let csr = KeyAndCsr::generate().unwrap();
        let error = issuer.renew(peer, csr.csr_der(), pki.now).unwrap_err().to_string();
        assert!(error.contains("revoked"), "{error}");
    }
    assert_eq!(issuer.revoke(&Revocation::Serial("4f".into()), "x", pki.now).unwrap_err().exit_code(), 3);
    let own = Revocation::Cluster("observability".parse().unwrap());
    assert_eq!(issuer.revoke(&own, "x", pki.now).unwrap_err().exit_code(), 4);
    // The next certificate of a revoked cluster, even one of the same second, is not denied.
    let (_, again) = joined(&pki, "eu-3");
    assert!(issuer.denylists(pki.now).unwrap().denies(&again).is_none());
    pki.inventory().verify_audit(None).unwrap();
}

/// Another process signs the list again and again, as a gateway may do.
#[test]
fn a_list_that_is_signed_beside_a_revocation_has_it() {
    let pki = TestPki::new();
    let peers: Vec<_> = (0..20).map(|number| joined(&pki, &format!("eu-{number}")).1).collect();
    let (issuer, signer, is_over) = (pki.issuer(), pki.issuer(), AtomicBool::new(false));
    let forgotten = |peer: &identity::PeerIdentity| -> Result<bool, PkiError> {
        issuer.revoke(&Revocation::Serial(peer.serial.clone()), "stolen", pki.now)?;
        let lists = (0..10).map(|_| issuer.stored_denylists()).collect::<Result<Vec<_>, _>>()?;
        Ok(lists.iter().any(|list| list.denies(peer).is_none()))
    };
    let (found, signed) = std::thread::scope(|scope| {
        let signing = scope.spawn(|| {
            let mut signed = 0;
            while !is_over.load(Ordering::Relaxed) {
                signer.sign_denylist(pki.now)?;
                signed += 1;
            }
            Ok::<u32, PkiError>(signed)
        });
        let found: Result<Vec<bool>, PkiError> = peers.iter().map(forgotten).collect();
        is_over.store(true, Ordering::Relaxed);
        (found, signing.join().unwrap())
    });
    assert!(found.unwrap().iter().all(|forgotten| !forgotten), "a newer list lacks a revocation");
    println!("signed {} times meanwhile", signed.unwrap());
}

#[test]
fn a_list_is_signed_again_when_it_is_old_and_its_number_survives_a_restore() {
    let pki = TestPki::new();
    let issuer = pki.issuer();
    let number = |at| issuer.denylists(at).unwrap().issuer().unwrap().number();
    let first = number(pki.now);
    assert_eq!(number(pki.now + SIGN_AGAIN / 2), first);
    let second = number(pki.now + SIGN_AGAIN);
    assert!(second > first);
    assert!(issuer.sign_denylist(pki.now + SIGN_AGAIN).unwrap().issuer().unwrap().number() > second);
    // An old backup forgets the number. The next list is newer all the same.
    let later = pki.now + 48 * SIGN_AGAIN;
    let last = number(later);
    let db = rusqlite::Connection::open(StateDir::new(&pki.state()).inventory()).unwrap();
    db.execute("DELETE FROM denylists", []).unwrap();
    assert!(number(later + Duration::from_secs(1)) > last);
}

#[test]
fn a_paused_cluster_is_denied_until_it_is_resumed() {
    let pki = TestPki::new();
    let issuer = pki.issuer();
    let (_, peer) = joined(&pki, "eu-1");
    let cluster = "eu-1".parse().unwrap();
    assert!(issuer.pause_cluster(&cluster, true, pki.now).unwrap());
    assert!(!issuer.pause_cluster(&cluster, true, pki.now).unwrap(), "again");
    let denies = || issuer.denylists(pki.now).unwrap().denies(&peer);
    assert_eq!(denies().as_deref(), Some("its cluster is paused"));
    let csr = KeyAndCsr::generate().unwrap();
    assert!(issuer.renew(&peer, csr.csr_der(), pki.now).unwrap_err().to_string().contains("paused"));
    let token = pki.token("eu-1");
    let refused = issuer.enrol(token.secret(), csr.csr_der(), pki.now).unwrap_err().to_string();
    assert!(refused.contains("its cluster is paused"), "{refused}");
    assert!(issuer.pause_cluster(&cluster, false, pki.now).unwrap());
    assert_eq!(denies(), None);
    issuer.enrol(token.secret(), csr.csr_der(), pki.now).unwrap();
    let unknown = "eu-9".parse().unwrap();
    assert_eq!(issuer.pause_cluster(&unknown, true, pki.now).unwrap_err().exit_code(), 3);
}

#[test]
fn a_removed_cluster_is_forgotten_and_can_be_registered_again() {
    let pki = TestPki::new();
    let issuer = pki.issuer();
    let (_, peer) = joined(&pki, "eu-1");
    let open = pki.token("eu-1");
    let cluster = "eu-1".parse().unwrap();
    assert!(issuer.remove_cluster(&cluster, pki.now).unwrap());
    assert!(!issuer.remove_cluster(&cluster, pki.now).unwrap(), "again");
    assert!(issuer.clusters().unwrap().is_empty());
    assert!(issuer.denylists(pki.now).unwrap().denies(&peer).is_some());
    let csr = KeyAndCsr::generate().unwrap();
    let refused = issuer.enrol(open.secret(), csr.csr_der(), pki.now).unwrap_err().to_string();
    assert!(refused.contains("it was revoked"), "{refused}");
    assert!(issuer.pause_cluster(&cluster, true, pki.now).unwrap_err().to_string().contains("was removed"));
    // With another environment, because it is another cluster now.
    assert!(issuer.add_cluster(&cluster, "staging", pki.now).unwrap());
    let states: BTreeSet<_> = issuer.clusters().unwrap().iter().map(ClusterRecord::state).collect();
    assert_eq!(states, ["expected"].into());
    assert!(issuer.add_cluster(&cluster, "production", pki.now).is_err());
}

#[test]
fn only_a_root_denies_an_issuing_ca_and_its_list_is_kept() {
    let pki = TestPki::new();
    let issuer = pki.issuer();
    let (_, peer) = joined(&pki, "eu-1");
    let bundle = issuer.bundle();
    let options = pki.options();
    let folder = crate::roots::RootFolder {
        path: pki.root_out(),
        trust_domain: options.trust_domain,
        passphrase: options.passphrase,
    };
    let root = folder.load("standby").unwrap();
    let before = issuer.denylists(pki.now).unwrap();
    let list = deny_issuer(&root, &bundle, before.root(), peer.issuers[0], "stolen", pki.now).unwrap();
    assert!(issuer.install_root_denylist(&list, false, pki.now).unwrap());
    assert!(!issuer.install_root_denylist(&list, false, pki.now).unwrap(), "again");
    let held = issuer.denylists(pki.now).unwrap();
    assert_eq!(held.denies(&peer).as_deref(), Some("stolen"));
    assert_eq!(held.root().unwrap().entries()[0].subject, DenySubject::Issuer(peer.issuers[0]));
    // A list that the issuing CA has signed is not one of a root.
    let of_issuer = before.issuer().unwrap().as_bytes();
    assert_eq!(issuer.install_root_denylist(of_issuer, false, pki.now).unwrap_err().exit_code(), 4);
    // The second CA is added to the first.
    let next = identity::SpkiPin::from_bytes([7; 32]);
    let second = deny_issuer(&root, &bundle, held.root(), next, "stolen", pki.now).unwrap();
    assert!(issuer.install_root_denylist(&second, false, pki.now).unwrap());
    assert_eq!(issuer.denylists(pki.now).unwrap().root().unwrap().entries().len(), 2);
    assert_eq!(
        issuer.install_root_denylist(&list, false, pki.now).unwrap_err().exit_code(),
        4,
        "an older list"
    );
}
