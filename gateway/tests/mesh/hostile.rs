//! Bytes of strangers: everything that is parsed before or without trust is mutated, from a seed, for a bounded number of
//! times. `ISTHMUS_MUTATIONS` and `ISTHMUS_SEED` set others.

use std::{path::Path, time::SystemTime};

use gateway::config::Config;
use identity::{Expectations, SignedDenylist, SpiffeId, TrustBundle, verify_peer};
use pki::{JoinToken, KeyAndCsr};
use prost::Message;
use proto::isthmus::{
    mesh::v1::{FromCluster, FromObservability, Hello, from_observability::Message as ToCluster},
    pki::v1::{EnrolRequest, EnrolResponse, RecoverRequest},
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
    let hello = FromObservability {
        message: Some(ToCluster::Hello(Hello { version: "1".into(), ..Hello::default() })),
    };
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
        let message = mutator.change(&hello.encode_to_vec());
        drop((
            FromObservability::decode(&message[..]),
            FromCluster::decode(&message[..]),
            EnrolRequest::decode(&message[..]),
        ));
        drop((EnrolResponse::decode(&message[..]), RecoverRequest::decode(&message[..])));
        drop(Config::parse(&utf8(mutator.change(&config)), Path::new("/etc")));
    }
}
