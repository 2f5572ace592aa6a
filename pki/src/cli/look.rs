//! `pki cert inspect`, `pki cert verify` and `pki token inspect`: what is in a file, without changing anything.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use identity::{
    Expectations, PeerIdentity, PemContent, Secret, SpkiPin, TrustBundle, read_bounded, verify_peer,
};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    authority::utc,
    cli::{output::CommandOutput, state::StateArgs},
    error::PkiError,
    issuer::Issuer,
    token::JoinToken,
};

const MAX_FILE_BYTES: u64 = 256 * 1024;
/// Certificates of a file that are looked at.
const MAX_CERTIFICATES: usize = 32;

/// Arguments of `pki cert inspect`.
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// PEM file with certificates, such as credentials.pem of a gateway; its key is not read
    file: PathBuf,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Arguments of `pki cert verify`.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    state: StateArgs,
    /// PEM file with a chain, the leaf first, such as credentials.pem of a gateway
    file: PathBuf,
}

/// Arguments of `pki token inspect`.
#[derive(Debug, clap::Args)]
pub struct TokenInspectArgs {
    /// File with the token
    file: PathBuf,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    // Zeroed when dropped: the file may have a key beside the certificates.
    let pem = Secret::new(read_bounded(file, MAX_FILE_BYTES).map_err(PkiError::io("read", file))?);
    let wrong = |why: String| PkiError::Usage(format!("{}: {why}", file.display()));
    let content = PemContent::read(pem.expose()).map_err(|e| wrong(format!("damaged PEM: {e}")))?;
    let found: Vec<_> = content.certificates.into_iter().take(MAX_CERTIFICATES).collect();
    match found.is_empty() {
        true => Err(wrong("contains no certificate, expected PEM".into())),
        false => Ok(found),
    }
}

pub(super) fn inspect(args: &InspectArgs, output: &mut CommandOutput<'_>) -> Result<(), PkiError> {
    let mut list = Vec::new();
    for der in certificates(&args.file)? {
        let (_, cert) = X509Certificate::from_der(&der).map_err(|_| {
            PkiError::Usage(format!("{}: one of its certificates is not X.509", args.file.display()))
        })?;
        list.push(described(&cert));
    }
    if args.json {
        return output.object(json!({"certificates": list}));
    }
    for (number, cert) in list.iter().enumerate() {
        output.line(&format!("certificate {number}"))?;
        for (name, value) in cert.as_object().into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            output.line(&format!("  {name:<12} {value}"))?;
        }
    }
    Ok(())
}

/// What a certificate says. Texts in it are chosen by its maker, so control characters are escaped.
fn described(cert: &X509Certificate<'_>) -> Value {
    let time = |at: i64| utc(SystemTime::UNIX_EPOCH + Duration::from_secs(at.max(0).unsigned_abs()));
    let names: Vec<String> = match cert.subject_alternative_name() {
        Ok(Some(san)) => {
            san.value.general_names.iter().map(|name| name.to_string().escape_debug().to_string()).collect()
        }
        _ => Vec::new(),
    };
    let serial: String =
        cert.raw_serial().iter().skip_while(|byte| **byte == 0).map(|byte| format!("{byte:02x}")).collect();
    json!({
        "serial": serial,
        "subject": cert.subject().to_string().escape_debug().to_string(),
        "issuer": cert.issuer().to_string().escape_debug().to_string(),
        "names": names,
        "ca": cert.is_ca(),
        "spki_sha256": SpkiPin::of_spki(cert.public_key().raw).to_string(),
        "not_before": time(cert.validity().not_before.timestamp()),
        "not_after": time(cert.validity().not_after.timestamp()),
    })
}

pub(super) fn verify(
    args: &VerifyArgs,
    output: &mut CommandOutput<'_>,
    now: SystemTime,
) -> Result<(), PkiError> {
    let issuer = Issuer::open(&args.state.state)?;
    let chain = certificates(&args.file)?;
    let bundle: TrustBundle = issuer.bundle();
    let peer: PeerIdentity = verify_peer(&chain, &bundle, now, &Expectations::default())?;
    let refuse = |why: &str| PkiError::Refused(format!("certificate of {} refused: {why}", peer.spiffe_id));
    if let Some(why) = issuer.denylists(now)?.denies(&peer) {
        return Err(refuse(&format!("it is denied: {why}")));
    }
    if !issuer.is_in_inventory(&peer)? {
        return Err(refuse("it is not in the inventory of the issuer"));
    }
    let (id, until) = (peer.spiffe_id.to_string(), utc(peer.not_after));
    match args.state.json {
        true => output.object(json!({"spiffe_id": id, "serial": peer.serial, "not_after": until})),
        false => output.line(&format!("{id} is accepted until {until}; serial number {}", peer.serial)),
    }
}

pub(super) fn token(args: &TokenInspectArgs, output: &mut CommandOutput<'_>) -> Result<(), PkiError> {
    let bytes =
        Secret::new(read_bounded(&args.file, MAX_FILE_BYTES).map_err(PkiError::io("read", &args.file))?);
    let text = std::str::from_utf8(bytes.expose())
        .map_err(|_| PkiError::Usage(format!("{}: not valid UTF-8", args.file.display())))?;
    let token = JoinToken::parse(text)?;
    let (issuer, subject) = (token.issuer().to_string(), token.subject().to_string());
    let pins: Vec<String> = token.pins().iter().map(SpkiPin::to_string).collect();
    if args.json {
        return output.object(json!({
            "id": token.id(), "issuer": issuer, "subject": subject, "addresses": token.addresses(), "root_pins": pins,
        }));
    }
    output.line(&format!("token      {}", token.id()))?;
    output.line(&format!("joins      {subject}"))?;
    output.line(&format!("issuer     {issuer}"))?;
    token.addresses().iter().try_for_each(|address| output.line(&format!("address    {address}")))?;
    pins.iter().try_for_each(|pin| output.line(&format!("root pin   {pin}")))
}
