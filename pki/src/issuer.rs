//! The online issuer: redeems tokens and signs leaves. It records both before it returns the result.

mod audit;
mod clusters;
pub(crate) mod current;
pub(crate) mod denylist;
pub(crate) mod gateways;
mod lookups;
mod recovery;

use std::{
    fmt,
    path::Path,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use identity::{
    Credentials, Expectations, Name, PeerIdentity, Secret, SpiffeId, SpkiPin, TrustBundle, TrustDomain,
    verify_peer,
};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use self::current::ReloadedFile;
use crate::{
    GATEWAY,
    authority::{CertificateAuthority, random, utc},
    csr::ProvenKey,
    error::PkiError,
    inventory::{Inventory, IssuedCertificate, NewTokenRecord, StateDir},
    key::KeyAndCsr,
    token::{JoinToken, check_address},
};

/// Default lifetime of a leaf.
pub const DEFAULT_LEAF_TTL: Duration = Duration::from_secs(86_400);

/// Default of how long after its end a certificate can be exchanged for another one.
pub const DEFAULT_RECOVERY: Duration = Duration::from_secs(7 * 86_400);

/// Shortest and longest lifetime of a join token.
const TOKEN_TTL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

/// The issuing CA and its inventory.
///
/// After `pki issuer renew` the next leaf is signed with the new CA. Calls block on disk I/O: call them from
/// a blocking task in async code.
pub struct Issuer {
    authority: ReloadedFile<CertificateAuthority>,
    bundle: ReloadedFile<TrustBundle>,
    domain: TrustDomain,
    cluster: Name,
    leaf_ttl: Duration,
    /// How long after its end a certificate can be exchanged for another one.
    recovery: Duration,
    // One connection for one caller at a time. Other processes, such as the commands, open their own.
    inventory: Mutex<Inventory>,
    /// Changes through this connection, which SQLite does not count for it.
    own_changes: AtomicU64,
    /// Who makes the changes, for the audit log; `None` for the user of this process.
    actor: Option<String>,
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

/// What can be counted about an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IssuerFigures {
    /// Start of the issuing CA's validity.
    pub not_before: SystemTime,
    /// End of the issuing CA's validity.
    pub not_after: SystemTime,
    /// Certificates that are valid now.
    pub leaves: u64,
    /// Tokens that can be used now.
    pub open_tokens: u64,
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
        let authority = ReloadedFile::load(&dir.issuer(), CertificateAuthority::load)?;
        let of_bundle = domain.clone();
        let bundle =
            ReloadedFile::load(&dir.bundle(), move |path| Ok(TrustBundle::load(of_bundle.clone(), path)?))?;
        let (leaf_ttl, inventory) = (DEFAULT_LEAF_TTL, Mutex::new(inventory));
        let own_changes = AtomicU64::new(0);
        let recovery = DEFAULT_RECOVERY;
        let actor = None;
        Ok(Self { authority, bundle, domain, cluster, leaf_ttl, recovery, inventory, own_changes, actor })
    }

    /// Sets the lifetime of the leaves issued from now on, at least 1 s. A leaf never outlives the issuing
    /// CA.
    pub fn with_leaf_ttl(mut self, ttl: Duration) -> Self {
        self.leaf_ttl = ttl.max(Duration::from_secs(1));
        self
    }

    /// Sets who makes the changes from now on, for the audit log, such as `gateway`.
    pub fn with_actor(mut self, actor: &str) -> Self {
        self.actor = Some(actor.to_owned());
        self
    }

    /// The trust domain of the issued certificates.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The cluster in which this issuer runs.
    pub fn cluster(&self) -> &Name {
        &self.cluster
    }

    /// The roots of the trust domain, as they are in the state directory now.
    pub fn bundle(&self) -> TrustBundle {
        TrustBundle::clone(&self.bundle.get())
    }

    /// End of the issuing CA's validity.
    pub fn not_after(&self) -> SystemTime {
        self.authority.get().not_after()
    }

    /// Creates a join token for a cluster, and registers the cluster if it is new.
    ///
    /// # Errors
    /// When the cluster is the issuer's own, or is registered with another environment, or when an argument
    /// is out of bounds.
    pub fn create_token(&self, new: &NewToken, now: SystemTime) -> Result<JoinToken, PkiError> {
        self.check_new_token(new)?;
        self.check_can_issue(now)?;
        let mut secret = Zeroizing::new(vec![0; 32]);
        random(&mut secret)?;
        let secret = Secret::new(std::mem::take(&mut *secret));
        let issuer = self.own_id(&GATEWAY.parse().expect("the constant is a valid name"));
        let pins: Vec<SpkiPin> = self.bundle.get().pins().collect();
        let token = JoinToken::new(issuer, new.cluster.clone(), new.addresses.clone(), pins, secret)?;
        let record = NewTokenRecord {
            secret: token.secret(),
            cluster: &new.cluster,
            environment: &new.environment,
            expires_at: now + new.ttl,
        };
        self.changed().add_token(&record, now)?;
        Ok(token)
    }

    /// Runs the checks of [`Issuer::create_token`] and changes nothing.
    ///
    /// # Errors
    /// Those of [`Issuer::create_token`].
    pub fn check_new_token(&self, new: &NewToken) -> Result<(), PkiError> {
        if !TOKEN_TTL.contains(&new.ttl) {
            return Err(PkiError::Usage(format!(
                "token lifetime {:?} is out of range, expected 1s to 24h",
                new.ttl
            )));
        }
        new.addresses.iter().try_for_each(|address| check_address(address))?;
        self.check_cluster(&new.cluster, &new.environment).map(drop)
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
        self.enrol_from(token_secret, csr_der, "", now)
    }

    /// Does the same as [`Issuer::enrol`] for a joiner whose address is recorded.
    ///
    /// # Errors
    /// Those of [`Issuer::enrol`].
    pub fn enrol_from(
        &self,
        token_secret: &[u8],
        csr_der: &[u8],
        from: &str,
        now: SystemTime,
    ) -> Result<Enrolment, PkiError> {
        let key = ProvenKey::from_csr(csr_der)?;
        self.check_can_issue(now)?;
        let registration = {
            let mut inventory = self.changed_for(from);
            inventory.check_new_key(&key.pin)?;
            inventory.redeem(token_secret, now)?
        };
        let component = GATEWAY.parse().expect("the constant is a valid name");
        let id = SpiffeId::new(self.trust_domain().clone(), registration.cluster, component);
        self.issue(id, registration.environment, &key, None, from, now)
    }

    /// Certifies a new key for a peer. The caller must have verified the peer's current certificate.
    ///
    /// # Errors
    /// [`PkiError::Csr`] for an invalid request or a key that was certified before. [`PkiError::Refused`]
    /// when the peer's cluster is not registered, or when its certificate was not issued by this issuer, has
    /// expired or was revoked.
    pub fn renew(&self, peer: &PeerIdentity, csr_der: &[u8], now: SystemTime) -> Result<Enrolment, PkiError> {
        self.renew_from(peer, csr_der, "", now)
    }

    /// Does the same as [`Issuer::renew`] for a peer whose address is recorded.
    ///
    /// # Errors
    /// Those of [`Issuer::renew`].
    pub fn renew_from(
        &self,
        peer: &PeerIdentity,
        csr_der: &[u8],
        from: &str,
        now: SystemTime,
    ) -> Result<Enrolment, PkiError> {
        let key = ProvenKey::from_csr(csr_der)?;
        let cluster = peer.spiffe_id.cluster();
        let registered = {
            let mut inventory = self.changed_for(from);
            inventory.check_new_key(&key.pin)?;
            inventory.check_may_renew(peer, now)?;
            inventory.check_for_clone(peer, now)?;
            inventory.check_rate(&peer.spiffe_id, self.leaf_ttl / 8, now)?;
            inventory.cluster(cluster)?
        };
        let registered = match registered {
            Some(cluster) if cluster.paused_at.is_none() => cluster,
            Some(_) => return Err(PkiError::Refused(format!("cluster {cluster} is paused"))),
            None => return Err(PkiError::Refused(format!("cluster {cluster} is not registered"))),
        };
        self.issue(peer.spiffe_id.clone(), registered.environment, &key, Some(peer), from, now)
    }

    /// Generates a key and a certificate for a component of the issuer's own cluster, such as its gateway.
    ///
    /// # Errors
    /// When the inventory cannot record it or the issuing CA has expired.
    pub fn issue_own(&self, component: &Name, now: SystemTime) -> Result<Credentials, PkiError> {
        let key_and_csr = KeyAndCsr::generate()?;
        let key = ProvenKey::from_csr(key_and_csr.csr_der())?;
        let id = self.own_id(component);
        let enrolment = self.issue(id.clone(), String::new(), &key, None, "", now)?;
        key_and_csr.into_credentials(enrolment.chain, &enrolment.bundle, &id, now)
    }

    fn issue(
        &self,
        id: SpiffeId,
        environment: String,
        key: &ProvenKey,
        parent: Option<&PeerIdentity>,
        from: &str,
        now: SystemTime,
    ) -> Result<Enrolment, PkiError> {
        let authority = self.authority.get();
        // A certificate of the second in which its cluster was revoked would be denied with the older ones.
        let denied_until = self.inventory().denied_until(&id)?;
        let issued_at = denied_until.map_or(now, |until| now.max(until + Duration::from_secs(1)));
        let leaf = authority.leaf(&id, &key.spki, issued_at, self.leaf_ttl)?;
        let chain = vec![leaf.der.clone(), authority.cert().clone()];
        // Never issue a certificate that a peer would refuse.
        let bundle = self.bundle();
        verify_peer(&chain, &bundle, now, &Expectations::default())?;
        let record = IssuedCertificate {
            serial: leaf.serial,
            spiffe_id: id.to_string(),
            spki: key.pin.to_string(),
            not_before: utc(leaf.not_before),
            not_after: utc(leaf.not_after),
            issued_at: utc(now),
            revoked_at: None,
            parent: parent.map(|parent| parent.serial.clone()),
            // Counted when it is recorded.
            generation: 0,
            first_seen_at: None,
        };
        self.changed_for(from).add_certificate(&record, now)?;
        let cluster = id.cluster().clone();
        Ok(Enrolment { chain, bundle, spiffe_id: id, cluster, environment, not_after: leaf.not_after })
    }

    fn own_id(&self, component: &Name) -> SpiffeId {
        SpiffeId::new(self.trust_domain().clone(), self.cluster.clone(), component.clone())
    }

    /// The inventory, for a change that [`Issuer::changes`] shows.
    fn changed(&self) -> MutexGuard<'_, Inventory> {
        self.changed_for("")
    }

    /// The inventory, for a change on behalf of a peer at an address.
    fn changed_for(&self, from: &str) -> MutexGuard<'_, Inventory> {
        let inventory = self.changing();
        if let Some(actor) = &self.actor {
            let name = if from.is_empty() { actor.clone() } else { format!("{actor}, for {from}") };
            // If this fails, the change itself fails, too.
            let _ = inventory.act_as(&name);
        }
        inventory
    }

    fn changing(&self) -> MutexGuard<'_, Inventory> {
        let inventory = self.inventory();
        self.own_changes.fetch_add(1, Ordering::AcqRel);
        inventory
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
