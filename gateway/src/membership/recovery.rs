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
        join::{self, ANSWER_TIMEOUT, connect_to_issuer, enrolment_client},
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
    /// The pin of the last token that was tried, so that a used one is not tried again and again.
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

    /// Joins with the token in the file; `None` if there is no other token than the one that was tried.
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
        self.tried = Some(pin);
        join::join(&token, &self.data_dir, &self.proxies, None).await.map_err(|error| error.to_string())?;
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
