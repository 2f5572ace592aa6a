//! The online issuer: redeems tokens and signs leaves. It records both before it returns the result.

mod current;

use std::{
    fmt,
    path::Path,
    sync::{Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use identity::{
    Credentials, Expectations, Name, PeerIdentity, Secret, SpiffeId, SpkiPin, TrustBundle, TrustDomain,
    verify_peer,
};
use rustls_pki_types::CertificateDer;

use self::current::CurrentIssuingCa;
use crate::{
    GATEWAY,
    authority::{random, utc},
    csr::ProvenKey,
    error::PkiError,
    inventory::{Inventory, IssuedCertificate, NewTokenRecord, StateDir},
    key::KeyAndCsr,
    token::{JoinToken, check_address},
};

/// Default lifetime of a leaf.
pub const DEFAULT_LEAF_TTL: Duration = Duration::from_secs(86_400);

/// Shortest and longest lifetime of a join token.
const TOKEN_TTL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

/// The issuing CA and its inventory.
///
/// After `pki issuer renew` the next leaf is signed with the new CA. Calls block on disk I/O: call them from
/// a blocking task in async code.
pub struct Issuer {
    authority: CurrentIssuingCa,
    bundle: TrustBundle,
    cluster: Name,
    leaf_ttl: Duration,
    // One connection for one caller at a time. Other processes, such as the commands, open their own.
    inventory: Mutex<Inventory>,
}

/// The result of an enrolment or a renewal.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// The leaf and the issuing CA's certificate.
    pub chain: Vec<CertificateDer<'static>>,
    /// The roots that the peer must trust.
    pub bundle: TrustBundle,
    /// The identity in the leaf.
    pub spiffe_id: SpiffeId,
    /// The cluster, as registered.
    pub cluster: Name,
    /// The environment, as registered.
    pub environment: String,
    /// End of the leaf's validity.
    pub not_after: SystemTime,
}

/// The parameters of a new join token.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The cluster that may join. It is registered if it is new.
    pub cluster: Name,
    /// Environment of the cluster, such as `production`. The first token of a cluster fixes it.
    pub environment: String,
    /// Addresses of this issuer's gateway: 1 to 8 times `HOST:PORT`.
    pub addresses: Vec<String>,
    /// How long the token can be used: 1 s to 24 h.
    pub ttl: Duration,
}

impl Issuer {
    /// Opens a state directory that `pki init` created. Leaves live for [`DEFAULT_LEAF_TTL`].
    ///
    /// # Errors
    /// When the directory does not exist, is incomplete, or is inconsistent.
    pub fn open(state: &Path) -> Result<Self, PkiError> {
        let dir = StateDir::new(state);
        let inventory = Inventory::open(&dir)?;
        let (domain, cluster) = inventory.identity()?;
        let authority = CurrentIssuingCa::load(&dir.issuer())?;
        let bundle = TrustBundle::load(domain, &dir.bundle())?;
        Ok(Self { authority, bundle, cluster, leaf_ttl: DEFAULT_LEAF_TTL, inventory: Mutex::new(inventory) })
    }

    /// Sets the lifetime of the leaves issued from now on, at least 1 s. A leaf never outlives the issuing
    /// CA.
    pub fn with_leaf_ttl(mut self, ttl: Duration) -> Self {
        self.leaf_ttl = ttl.max(Duration::from_secs(1));
        self
    }

    /// The trust domain of the issued certificates.
    pub fn trust_domain(&self) -> &TrustDomain {
        self.bundle.trust_domain()
    }

    /// The cluster in which this issuer runs.
    pub fn cluster(&self) -> &Name {
        &self.cluster
    }

    /// The roots of the trust domain: active and standby.
    pub fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// End of the issuing CA's validity.
    pub fn not_after(&self) -> SystemTime {
        self.authority.get().not_after()
    }

    /// The registered clusters, sorted by name, each with its environment.
    ///
    /// # Errors
    /// When the inventory cannot be read.
    pub fn registrations(&self) -> Result<Vec<(Name, String)>, PkiError> {
        let registrations = self.inventory().registrations()?;
        Ok(registrations.into_iter().map(|found| (found.cluster, found.environment)).collect())
    }

    /// Creates a join token for a cluster, and registers the cluster if it is new.
    ///
    /// # Errors
    /// When the cluster is the issuer's own, or is registered with another environment, or when an argument
    /// is out of bounds.
    pub fn create_token(&self, new: &NewToken, now: SystemTime) -> Result<JoinToken, PkiError> {
        self.check_new_token(new)?;
        let mut secret = [0; 32];
        random(&mut secret)?;
        let secret = Secret::new(secret);
        let issuer = self.own_id(&GATEWAY.parse().expect("the constant is a valid name"));
        let pins: Vec<SpkiPin> = self.bundle.pins().collect();
        let token = JoinToken::new(issuer, new.cluster.clone(), new.addresses.clone(), pins, secret)?;
        let record = NewTokenRecord {
            secret: token.secret(),
            cluster: &new.cluster,
            environment: &new.environment,
            expires_at: now + new.ttl,
        };
        self.inventory().add_token(&record, now)?;
        Ok(token)
    }

    /// Runs the checks of [`Issuer::create_token`] and changes nothing.
    ///
    /// # Errors
    /// Those of [`Issuer::create_token`].
    pub fn check_new_token(&self, new: &NewToken) -> Result<(), PkiError> {
        if new.cluster == self.cluster {
            return Err(PkiError::Refused(format!(
                "cluster {} is the issuer's own cluster; \
                 a token for it would give away the issuer's identity",
                new.cluster
            )));
        }
        if !TOKEN_TTL.contains(&new.ttl) {
            return Err(PkiError::Usage(format!(
                "token lifetime {:?} is out of range, expected 1s to 24h",
                new.ttl
            )));
        }
        let printable = new.environment.bytes().all(|c| c.is_ascii_graphic());
        if !printable || !(1..=63).contains(&new.environment.len()) {
            return Err(PkiError::Usage(format!(
                "environment {:?} must be 1 to 63 printable ASCII characters without spaces",
                new.environment
            )));
        }
        new.addresses.iter().try_for_each(|address| check_address(address))?;
        match self.inventory().environment(&new.cluster)? {
            Some(environment) if environment != new.environment => Err(PkiError::Conflict(format!(
                "cluster {} is registered with environment {environment:?}, not {:?}; use the registered one",
                new.cluster, new.environment
            ))),
            _ => Ok(()),
        }
    }

    /// Redeems a join token, and certifies the key in the request for the cluster of the token.
    ///
    /// The request is checked first, so that an invalid request does not use up the token. Then one
    /// compare-and-swap marks the token as used, durably. Then the leaf is signed and recorded. After a crash
    /// in between the token is used up.
    ///
    /// # Errors
    /// [`PkiError::Csr`] for an invalid request, [`PkiError::Token`] for an invalid token.
    pub fn enrol(&self, token_secret: &[u8], csr_der: &[u8], now: SystemTime) -> Result<Enrolment, PkiError> {
        let key = ProvenKey::from_csr(csr_der)?;
        let registration = {
            let mut inventory = self.inventory();
            inventory.check_new_key(&key.pin)?;
            inventory.redeem(token_secret, now)?
        };
        let component = GATEWAY.parse().expect("the constant is a valid name");
        let id = SpiffeId::new(self.trust_domain().clone(), registration.cluster, component);
        self.issue(id, registration.environment, &key, now)
    }

    /// Certifies a new key for a peer. The caller must have verified the peer's current certificate.
    ///
    /// # Errors
    /// [`PkiError::Csr`] for an invalid request or a key that was certified before. [`PkiError::Refused`]
    /// when the peer's cluster is not registered, or when its certificate was not issued by this issuer, has
    /// expired or was revoked.
    pub fn renew(&self, peer: &PeerIdentity, csr_der: &[u8], now: SystemTime) -> Result<Enrolment, PkiError> {
        let key = ProvenKey::from_csr(csr_der)?;
        let cluster = peer.spiffe_id.cluster();
        let environment = {
            let inventory = self.inventory();
            inventory.check_new_key(&key.pin)?;
            inventory.check_may_renew(peer, now)?;
            inventory.environment(cluster)?
        };
        let environment =
            environment.ok_or_else(|| PkiError::Refused(format!("cluster {cluster} is not registered")))?;
        self.issue(peer.spiffe_id.clone(), environment, &key, now)
    }

    /// Generates a key and a certificate for a component of the issuer's own cluster, such as its gateway.
    ///
    /// # Errors
    /// When the inventory cannot record it or the issuing CA has expired.
    pub fn issue_own(&self, component: &Name, now: SystemTime) -> Result<Credentials, PkiError> {
        let key_and_csr = KeyAndCsr::generate()?;
        let key = ProvenKey::from_csr(key_and_csr.csr_der())?;
        let id = self.own_id(component);
        let enrolment = self.issue(id.clone(), String::new(), &key, now)?;
        key_and_csr.into_credentials(enrolment.chain, &self.bundle, &id, now)
    }

    fn issue(
        &self,
        id: SpiffeId,
        environment: String,
        key: &ProvenKey,
        now: SystemTime,
    ) -> Result<Enrolment, PkiError> {
        let authority = self.authority.get();
        let leaf = authority.leaf(&id, &key.spki, now, self.leaf_ttl)?;
        let chain = vec![leaf.der.clone(), authority.cert().clone()];
        // Never issue a certificate that a peer would refuse.
        verify_peer(&chain, &self.bundle, now, &Expectations::default())?;
        let record = IssuedCertificate {
            serial: leaf.serial,
            spiffe_id: id.to_string(),
            spki: key.pin.to_string(),
            not_before: utc(leaf.not_before),
            not_after: utc(leaf.not_after),
            issued_at: utc(now),
            revoked_at: None,
        };
        self.inventory().add_certificate(&record, now)?;
        let cluster = id.cluster().clone();
        let bundle = self.bundle.clone();
        Ok(Enrolment { chain, bundle, spiffe_id: id, cluster, environment, not_after: leaf.not_after })
    }

    fn own_id(&self, component: &Name) -> SpiffeId {
        SpiffeId::new(self.trust_domain().clone(), self.cluster.clone(), component.clone())
    }

    fn inventory(&self) -> MutexGuard<'_, Inventory> {
        // A panic while the lock is held leaves no partial change: SQLite rolls an open transaction back.
        self.inventory.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issuer({}, {})", self.trust_domain(), self.cluster)
    }
}

#[cfg(test)]
mod tests;
