//! Bytes of strangers: everything that is parsed before or without trust is mutated, from a seed, for a bounded number of
//! times. `ISTHMUS_MUTATIONS` and `ISTHMUS_SEED` set others.

use std::{path::Path, time::SystemTime};

use gateway::config::Config;
use identity::{Expectations, SignedAuditHead, SignedDenylist, SpiffeId, TrustBundle, verify_peer};
use pki::{Enrolment, JoinToken, KeyAndCsr};
use prost::Message;
use proto::{
    isthmus::{
        mesh::v1::{
            AuditHead, Bundle, Certificate, CertificateRequest, Drain, FromCluster, FromObservability, Hello,
            Target, TargetNames, TargetVerdict, Targets, TrustReport,
            from_cluster::Message as FromClusterMessage, from_observability::Message as ToCluster,
        },
        pki::v1::{EnrolRequest, EnrolResponse, RecoverRequest},
    },
    thanos::{Label, LabelSet, info::InfoResponse},
};
use rustls_pki_types::CertificateDer;

use crate::world::MeshWorld;

struct Mutator(u64);

impl Mutator {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }

    /// A changed copy: bits, bytes, lengths, cuts, and parts that are doubled or moved.
    fn change(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut changed = bytes.to_vec();
        for _ in 0..=self.below(4) {
            let (at, other) = (self.below(changed.len()), self.below(changed.len()));
            match self.below(7) {
                _ if changed.is_empty() => changed.push(self.below(256) as u8),
                0 => changed[at] ^= 1 << self.below(8),
                1 => changed[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                2 => changed.truncate(at),
                3 => changed.insert(at, self.below(256) as u8),
                4 => drop(changed.remove(at)),
                5 => {
                    let part = changed[at.min(other)..at.max(other)].to_vec();
                    changed.splice(at..at, part.into_iter().take(64));
                }
                _ => changed.swap(at, other),
            }
        }
        changed
    }
}

/// A message of each kind, from both sides.
fn control_messages(enrolment: &Enrolment, list: &[u8], head: &[u8], csr: &[u8]) -> Vec<Vec<u8>> {
    let ders = |certificates: Vec<Vec<u8>>| certificates.into_iter().map(Into::into).collect::<Vec<_>>();
    let roots = || ders(enrolment.bundle.roots().map(|der| der.to_vec()).collect());
    let signature = || enrolment.bundle.signature_bytes().unwrap_or_default();
    let label = Label { name: "cluster".into(), value: "eu-1".into() };
    let info = InfoResponse { label_sets: vec![LabelSet { labels: vec![label] }], ..Default::default() };
    let target = Target { name: "scraper-0".into(), healthy: true, info: Some(info), ..Default::default() };
    let to_cluster = [
        ToCluster::Hello(Hello { version: "1".into(), run: "ab".repeat(16), ..Hello::default() }),
        ToCluster::Certificate(Certificate {
            chain: ders(enrolment.chain.iter().map(|der| der.to_vec()).collect()),
            roots: roots(),
            bundle_signature: signature().into(),
        }),
        ToCluster::Refused("no".into()),
        ToCluster::Bundle(Bundle { roots: roots(), signature: signature().into() }),
        ToCluster::Denylist(list.to_vec().into()),
        ToCluster::AuditHead(AuditHead { head: head.to_vec().into(), since: 7, since_hash: "ab".repeat(32) }),
        ToCluster::TargetVerdict(TargetVerdict { name: "scraper-0".into(), refused: "no".into() }),
    ];
    let from_cluster = [
        FromClusterMessage::Targets(Targets { targets: vec![target.clone()] }),
        FromClusterMessage::CertificateRequest(CertificateRequest { csr: csr.to_vec().into() }),
        FromClusterMessage::Drain(Drain {}),
        FromClusterMessage::TargetNames(TargetNames { names: vec!["scraper-0".into()] }),
        FromClusterMessage::Target(target),
        FromClusterMessage::Trust(TrustReport { denylist: 7, audit_number: 9, ..Default::default() }),
    ];
    let to_cluster =
        to_cluster.into_iter().map(|message| FromObservability { message: Some(message) }.encode_to_vec());
    let from_cluster =
        from_cluster.into_iter().map(|message| FromCluster { message: Some(message) }.encode_to_vec());
    to_cluster.chain(from_cluster).collect()
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn no_mutation_is_accepted_as_something_else_and_none_panics() {
    let (seed, rounds) = (number("ISTHMUS_SEED", 18), number("ISTHMUS_MUTATIONS", 3000));
    println!("seed {seed}, {rounds} mutations of each input");
    let (world, now) = (MeshWorld::new(), SystemTime::now());
    let issuer = world.issuer();
    let token = world.token("eu-1", &["127.0.0.1:1".parse().unwrap()]);
    let key = KeyAndCsr::generate().unwrap();
    let csr = key.csr_der().to_vec();
    let enrolment = issuer.enrol(token.secret(), &csr, now).unwrap();
    let (bundle, chain) = (enrolment.bundle.clone(), enrolment.chain.clone());
    let list = issuer.denylists(now).unwrap().issuer().unwrap().as_bytes().to_vec();
    let head = issuer.sign_audit_head(now).unwrap().unwrap().as_bytes().to_vec();
    let messages = control_messages(&enrolment, &list, &head, &csr);
    let config = std::fs::read("testdata/good/observability.yaml").unwrap();
    let text = token.to_text();
    let id = enrolment.spiffe_id.to_string();
    let mut mutator = Mutator(seed | 1);
    let utf8 = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    for _ in 0..rounds {
        let leaf = mutator.change(&chain[0]);
        if *leaf != *chain[0] {
            let changed = [CertificateDer::from(leaf), chain[1].clone()];
            assert!(verify_peer(&changed, &bundle, now, &Expectations::default()).is_err());
        }
        let ca = mutator.change(&chain[1]);
        if let Ok(peer) = verify_peer(&[chain[0].clone(), ca.into()], &bundle, now, &Expectations::default())
        {
            assert_eq!(peer.spiffe_id, enrolment.spiffe_id);
        }
        let changed = mutator.change(&list);
        assert!(changed == list || SignedDenylist::parse(&changed, &bundle, Some(now)).is_err());
        let pem = mutator.change(bundle.to_pem().as_bytes());
        if let Ok(offered) = TrustBundle::from_pem(bundle.trust_domain().clone(), &pem) {
            assert!(!matches!(bundle.successor(&offered, now), Ok(Some(_))), "a mutated bundle was adopted");
        }
        if let Ok(parsed) = JoinToken::parse(&utf8(mutator.change(text.expose().as_bytes()))) {
            assert_eq!(parsed.secret(), token.secret());
        }
        if let Ok(parsed) = utf8(mutator.change(id.as_bytes())).parse::<SpiffeId>() {
            assert_eq!(parsed.to_string().parse::<SpiffeId>(), Ok(parsed));
        }
        let unknown = issuer.enrol(&mutator.change(token.secret()), &mutator.change(&csr), now);
        assert!(unknown.is_err());
        let changed = mutator.change(&head);
        assert!(changed == head || SignedAuditHead::parse(&changed, &bundle, Some(now)).is_err());
        let which = mutator.below(messages.len());
        let message = mutator.change(&messages[which]);
        drop((
            FromObservability::decode(&message[..]),
            FromCluster::decode(&message[..]),
            EnrolRequest::decode(&message[..]),
        ));
        drop((EnrolResponse::decode(&message[..]), RecoverRequest::decode(&message[..])));
        drop(Config::parse(&utf8(mutator.change(&config)), Path::new("/etc")));
    }
}
