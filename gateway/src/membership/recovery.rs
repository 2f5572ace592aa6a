//! How a gateway comes back whose certificate has expired: with its key, or with a new token in its token file.
//!
//! It has no connection any more, so it asks the issuer over the enrolment port, where no certificate is needed.

use std::{path::PathBuf, time::SystemTime};

use futures::future::BoxFuture;
use httpclient::Proxies;
use identity::{ActiveCredentials, Credentials, SpkiPin, TrustBundle};
use pki::{KeyAndCsr, recovery_statement};
use proto::isthmus::pki::v1::RecoverRequest;

use crate::{
    membership::{
        credentials::{ComeBack, DataDir, Membership},
        join::{self, ANSWER_TIMEOUT, TokenJoinError, connect_to_issuer, enrolment_client},
        received::{bundle_of, certificates},
        token_file::read_token,
    },
    peer_text::bounded,
};

/// What a gateway needs to come back.
pub(crate) struct Recovery {
    data_dir: DataDir,
    membership: Membership,
    proxies: Proxies,
    /// The file that a new token may be written to.
    join_file: Option<PathBuf>,
    /// The pin of the last token that was used or refused, so that it is not tried again and again.
    tried: Option<SpkiPin>,
}

impl Recovery {
    pub(crate) fn new(
        data_dir: DataDir,
        membership: Membership,
        proxies: Proxies,
        join_file: Option<PathBuf>,
    ) -> Self {
        Self { data_dir, membership, proxies, join_file, tried: None }
    }

    /// Gets credentials in place of expired ones, and the roots to trust. They are not stored yet.
    ///
    /// # Errors
    /// Why neither the key nor a token helps, in one line.
    async fn by_key_or_token(
        &mut self,
        held: &ActiveCredentials,
    ) -> Result<(Credentials, TrustBundle), String> {
        let by_key = match by_key(held, &self.membership, &self.proxies).await {
            Ok(recovered) => return Ok(recovered),
            Err(error) => error,
        };
        match self.by_token(held).await {
            Ok(Some(joined)) => Ok(joined),
            Ok(None) => Err(by_key),
            Err(by_token) => Err(format!("{by_key}; {by_token}")),
        }
    }

    /// Joins with the token in the file; `None` if there is no other token than the one that was used or refused.
    async fn by_token(
        &mut self,
        held: &ActiveCredentials,
    ) -> Result<Option<(Credentials, TrustBundle)>, String> {
        let Some(file) = &self.join_file else { return Ok(None) };
        let token = read_token(file)?;
        let pin = SpkiPin::of_spki(token.secret());
        if self.tried == Some(pin) {
            return Ok(None);
        }
        if token.subject() != *held.credentials.spiffe_id() {
            return Err(format!("{}: the token is for {}", file.display(), token.subject()));
        }
        let joined = join::join(&token, &self.data_dir, &self.proxies, None).await;
        if !joined.as_ref().is_err_and(TokenJoinError::leaves_the_token) {
            self.tried = Some(pin);
        }
        joined.map_err(|error| error.to_string())?;
        self.data_dir.load().map_err(|error| error.to_string())
    }
}

impl ComeBack for Recovery {
    fn attempt<'f>(
        &'f mut self,
        held: &'f ActiveCredentials,
    ) -> BoxFuture<'f, Result<(Credentials, TrustBundle), String>> {
        Box::pin(self.by_key_or_token(held))
    }
}

/// Exchanges an expired certificate for another one.
pub(crate) async fn by_key(
    held: &ActiveCredentials,
    membership: &Membership,
    proxies: &Proxies,
) -> Result<(Credentials, TrustBundle), String> {
    let identity = held.credentials.spiffe_id();
    let pins: Vec<_> = held.bundle.pins().collect();
    let (address, stream) =
        connect_to_issuer(&membership.issuer, &pins, &membership.addresses, proxies).await?;
    let (mut client, _driver) = enrolment_client(&address, stream).await?;
    let key = KeyAndCsr::generate().map_err(|error| error.to_string())?;
    let signature = held.credentials.sign(&recovery_statement(key.csr_der()));
    let request = RecoverRequest {
        chain: held.credentials.chain().iter().map(|der| der.to_vec().into()).collect(),
        csr: key.csr_der().to_vec().into(),
        signature: signature.map_err(|error| error.to_string())?.into(),
        time: Some(SystemTime::now().into()),
    };
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.recover(request)).await;
    let answer = answer.map_err(|_| format!("{address}: no answer within {} s", ANSWER_TIMEOUT.as_secs()))?;
    let answer = answer.map_err(|status| format!("{address}: {}", bounded(status.message())))?.into_inner();
    let now = SystemTime::now();
    let offered = bundle_of(identity.trust_domain(), answer.roots, &answer.bundle_signature);
    let offered = offered.map_err(|error| error.to_string())?;
    let chain = certificates(answer.chain).collect();
    // Under the roots in use: nothing that the issuer sends can add one.
    let credentials = key.into_credentials(chain, &held.bundle, identity, now);
    let credentials = credentials.map_err(|error| error.to_string())?;
    let bundle = held.bundle.successor(&offered, now).ok().flatten().unwrap_or_else(|| held.bundle.clone());
    Ok((credentials, bundle))
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, time::Duration};

    use identity::{CredentialStore, Secret, write_private};
    use pki::{InitOptions, Issuer, NewToken};

    use super::*;

    #[tokio::test]
    async fn a_token_that_was_not_used_is_tried_again() {
        let (dir, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
        let options = InitOptions {
            state: dir.path().join("pki"),
            root_out: dir.path().join("roots"),
            trust_domain: "test.isthmus.example".parse().unwrap(),
            cluster: "obs".parse().unwrap(),
            passphrase: Secret::new("correct horse battery".to_owned()),
        };
        pki::init(&options, now).unwrap();
        let issuer = Issuer::open(&options.state).unwrap();
        // No gateway listens at this port.
        let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let new = NewToken {
            cluster: "eu-1".parse().unwrap(),
            environment: "test".into(),
            addresses: vec![unused.to_string()],
            ttl: Duration::from_secs(60),
        };
        let [used, next] = [(); 2].map(|()| issuer.create_token(&new, now).unwrap());
        let key = KeyAndCsr::generate().unwrap();
        let joined = issuer.enrol(used.secret(), key.csr_der(), now).unwrap();
        let credentials = used.accept(key, joined.chain, &joined.bundle, now).unwrap();
        let held = CredentialStore::new(credentials, joined.bundle, now).unwrap().current();
        let file = dir.path().join("token");
        write_private(&file, next.to_text().expose().as_bytes()).unwrap();
        let data_dir = DataDir::open(&dir.path().join("data")).unwrap();
        let membership =
            Membership { issuer: next.issuer().clone(), environment: "test".into(), addresses: Vec::new() };
        let mut recovery = Recovery::new(data_dir, membership, Proxies::default(), Some(file));
        for _ in 0..2 {
            let error = recovery.by_token(&held).await.unwrap_err();
            assert!(error.ends_with("the token was not used, try again"), "{error}");
        }
    }
}
