//! A PKI in a temporary directory.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use identity::Secret;

use crate::{
    init::{InitOptions, init_at_cost},
    inventory::{Inventory, StateDir},
    issuer::{Issuer, NewToken},
    seal::Argon2Cost,
    token::JoinToken,
};

pub(crate) const PASSPHRASE: &str = "canary-passphrase-51c7";

pub(crate) struct TestPki {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) now: SystemTime,
}

impl TestPki {
    /// Only an empty directory.
    pub(crate) fn empty() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), now: SystemTime::now() }
    }

    pub(crate) fn new() -> Self {
        let pki = Self::empty();
        init_at_cost(&pki.options(), pki.now, Argon2Cost::WEAK).unwrap();
        pki
    }

    pub(crate) fn options(&self) -> InitOptions {
        InitOptions {
            state: self.state(),
            root_out: self.root_out(),
            trust_domain: "test.example".parse().unwrap(),
            cluster: "observability".parse().unwrap(),
            passphrase: Secret::new(PASSPHRASE.to_owned()),
        }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn root_out(&self) -> PathBuf {
        self.dir.path().join("offline")
    }

    pub(crate) fn issuer(&self) -> Issuer {
        Issuer::open(&self.state()).unwrap()
    }

    pub(crate) fn inventory(&self) -> Inventory {
        Inventory::open(&StateDir::new(&self.state())).unwrap()
    }

    /// A token for a cluster, valid for 15 minutes.
    pub(crate) fn token(&self, cluster: &str) -> JoinToken {
        self.issuer().create_token(&new_token(cluster), self.now).unwrap()
    }
}

pub(crate) fn new_token(cluster: &str) -> NewToken {
    NewToken {
        cluster: cluster.parse().unwrap(),
        environment: "production".into(),
        addresses: vec!["gateway.example:10943".into(), "[::1]:10943".into()],
        ttl: Duration::from_secs(900),
    }
}
