//! Certificates: the one of the gateway, those of the ports, and the PKI of the observability side, with their ends.

use std::path::Path;
use std::time::{Duration, SystemTime};

use identity::{Credentials, read_bounded};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::doctor::finding::{Finding, Severity};
use crate::doctor::subject::Subject;

const CHECK: &str = "certificates";

/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 256 << 10;
const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn check(subject: &Subject, now: SystemTime) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(data_dir) = &subject.data_dir {
        findings.push(of_gateway(&data_dir.join("credentials.pem"), subject, now));
    }
    findings.extend(subject.certificates.iter().map(|(flag, file)| of_port(flag, file, now)));
    if let Some(state) = &subject.pki_state {
        findings.extend(of_pki(state, now));
    }
    findings
}

/// The certificate of the gateway, which is renewed at half of its lifetime. Without one, a token is needed.
fn of_gateway(file: &Path, subject: &Subject, now: SystemTime) -> Finding {
    let name = file.display();
    if !file.exists() {
        return match &subject.token {
            Some(token) => Finding::ok(
                CHECK,
                format!("{name}: none yet; token {} gets one for {}", token.id(), token.subject()),
            ),
            None if subject.pki_state.is_some() => {
                Finding::ok(CHECK, format!("{name}: none yet; this gateway issues its own"))
            }
            None => Finding::critical(
                CHECK,
                format!(
                    "{name}: none, and no token to get one; ask the observability team for one, write it to a file, and give --join-file FILE"
                ),
            ),
        };
    }
    let credentials = match Credentials::load(file) {
        Ok(credentials) => credentials,
        Err(error) => {
            return Finding::critical(
                CHECK,
                format!("{error}; restore the file, or join again with a new token"),
            );
        }
    };
    let id = credentials.spiffe_id();
    if let Some(token) = subject.token.as_ref().filter(|token| token.subject() != *id) {
        let other = token.subject();
        return Finding::critical(
            CHECK,
            format!("{name}: is for {id}, but the token is for {other}; use another data directory"),
        );
    }
    let leaf = credentials.identity();
    if leaf.not_before > now + Duration::from_secs(60) {
        return Finding::critical(
            CHECK,
            format!("{name}: is not valid yet; this clock is behind that of the issuer, set it"),
        );
    }
    let lifetime = leaf.not_after.duration_since(leaf.not_before).unwrap_or_default();
    match leaf.not_after.duration_since(now) {
        Err(_) => Finding::critical(
            CHECK,
            format!(
                "{name}: expired at {}; start the gateway within 7 days after that, or join again with a new token",
                utc(leaf.not_after)
            ),
        ),
        Ok(left) if left < lifetime / 4 => Finding::warning(
            CHECK,
            format!("{name}: {} and was not renewed; is the gateway connected?", until(leaf.not_after, left)),
        ),
        Ok(left) => Finding::ok(CHECK, format!("{name}: {id}, {}", until(leaf.not_after, left))),
    }
}

/// A certificate that a port of the role shows.
fn of_port(flag: &str, file: &Path, now: SystemTime) -> Finding {
    let name = format!("{flag} {}", file.display());
    let ends = match not_after(file) {
        Ok(ends) => ends,
        Err(error) => return Finding::critical(CHECK, format!("{name}: {error}")),
    };
    match ends.duration_since(now) {
        Err(_) => Finding::critical(
            CHECK,
            format!("{name}: expired at {}; replace the file, it is read again", utc(ends)),
        ),
        Ok(left) if left < 14 * DAY => Finding::warning(
            CHECK,
            format!("{name}: {}; replace the file, it is read again", until(ends, left)),
        ),
        Ok(left) => Finding::ok(CHECK, format!("{name}: {}", until(ends, left))),
    }
}

/// The end of the first certificate of a file.
fn not_after(file: &Path) -> Result<SystemTime, String> {
    let pem = read_bounded(file, MAX_FILE_BYTES).map_err(|error| error.to_string())?;
    let der =
        CertificateDer::from_pem_slice(&pem).map_err(|error| format!("is not a PEM certificate: {error}"))?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| "is not X.509".to_owned())?;
    let seconds = certificate.validity().not_after.timestamp().max(0).unsigned_abs();
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// What `pki doctor` says about the state directory of the issuer.
fn of_pki(state: &Path, now: SystemTime) -> Vec<Finding> {
    match pki::examine_state(state, now) {
        Err(error) => vec![Finding::critical(CHECK, error.to_string())],
        Ok(findings) => {
            let line = |(severity, text): (&str, String)| Finding {
                check: "PKI",
                severity: match severity {
                    "ok" => Severity::Ok,
                    "warning" => Severity::Warning,
                    _ => Severity::Critical,
                },
                text,
            };
            findings.into_iter().map(line).collect()
        }
    }
}

fn until(end: SystemTime, left: Duration) -> String {
    format!("valid until {} ({} left)", utc(end), runtime::format_duration(whole(left)))
}

/// Without what says nothing: minutes of a day, seconds of an hour.
fn whole(left: Duration) -> Duration {
    let unit = match left.as_secs() {
        172_800.. => 86_400,
        7_200.. => 3_600,
        120.. => 60,
        _ => 1,
    };
    Duration::from_secs(left.as_secs() / unit * unit)
}

fn utc(at: SystemTime) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    time::OffsetDateTime::from(at).format(&format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use pki::{InitOptions, Issuer, JoinToken, KeyAndCsr, NewToken, Secret};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A PKI below `dir`, and a token of a cluster.
    fn token(dir: &Path, cluster: &str) -> JoinToken {
        let options = InitOptions {
            state: dir.join("pki"),
            root_out: dir.join("roots"),
            trust_domain: "test.example".parse().unwrap(),
            cluster: "obs".parse().unwrap(),
            passphrase: Secret::new("only a test".to_owned()),
        };
        pki::init(&options, SystemTime::now()).unwrap();
        let new = NewToken {
            cluster: cluster.parse().unwrap(),
            environment: "test".into(),
            addresses: vec!["gw:1".into()],
            ttl: MINUTE,
        };
        Issuer::open(&dir.join("pki")).unwrap().create_token(&new, SystemTime::now()).unwrap()
    }

    /// A data directory with a certificate that is valid for an hour.
    fn joined(dir: &Path, token: &JoinToken) -> Subject {
        let issuer = Issuer::open(&dir.join("pki")).unwrap().with_leaf_ttl(60 * MINUTE);
        let (key, now) = (KeyAndCsr::generate().unwrap(), SystemTime::now());
        let enrolled = issuer.enrol(token.secret(), key.csr_der(), now).unwrap();
        let credentials = token.accept(key, enrolled.chain, &enrolled.bundle, now).unwrap();
        std::fs::create_dir(dir.join("data")).unwrap();
        credentials.store(&dir.join("data/credentials.pem")).unwrap();
        Subject { data_dir: Some(dir.join("data")), ..Subject::default() }
    }

    fn expect(subject: &Subject, after: Duration, severity: Severity, expected: &str) {
        let findings = check(subject, SystemTime::now() + after);
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert!(finding.severity == severity && finding.text.contains(expected), "{finding:?}");
    }

    #[test]
    fn the_certificate_of_a_gateway_is_looked_at_over_its_lifetime() {
        let dir = tempfile::tempdir().unwrap();
        let token = token(dir.path(), "eu-1");
        let none = Subject { data_dir: Some(dir.path().join("none")), ..Subject::default() };
        expect(&none, Duration::ZERO, Severity::Critical, "no token to get one");
        let with_token = Subject { token: Some(token.clone()), ..none };
        expect(&with_token, Duration::ZERO, Severity::Ok, "none yet; token ");

        let subject = joined(dir.path(), &token);
        expect(&subject, Duration::ZERO, Severity::Ok, "cluster/eu-1/gateway, valid until ");
        expect(&subject, 50 * MINUTE, Severity::Warning, "was not renewed; is the gateway connected?");
        expect(&subject, 120 * MINUTE, Severity::Critical, "expired at ");
        let findings = check(&subject, SystemTime::now() - 120 * MINUTE);
        assert!(findings[0].text.contains("this clock is behind"), "{findings:?}");

        let other = tempfile::tempdir().unwrap();
        let subject = Subject { token: Some(self::token(other.path(), "us-1")), ..subject };
        expect(&subject, Duration::ZERO, Severity::Critical, "but the token is for");
        std::fs::write(dir.path().join("data/credentials.pem"), "x").unwrap();
        let subject = Subject { token: None, ..subject };
        expect(&subject, Duration::ZERO, Severity::Critical, "credentials.pem");
    }

    #[test]
    fn the_certificate_of_a_port_is_replaced_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tls.crt");
        let write = |days: i64| {
            let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(days);
            let key = rcgen::KeyPair::generate().unwrap();
            std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        };
        let subject = Subject { certificates: vec![("--x", file.clone())], ..Subject::default() };
        write(30);
        expect(&subject, Duration::ZERO, Severity::Ok, "valid until ");
        write(5);
        expect(&subject, Duration::ZERO, Severity::Warning, "replace the file");
        write(-1);
        expect(&subject, Duration::ZERO, Severity::Critical, "expired at ");
        for text in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            std::fs::write(&file, text).unwrap();
            expect(&subject, Duration::ZERO, Severity::Critical, "--x ");
        }
    }

    #[test]
    fn the_issuer_is_examined_as_by_pki_doctor() {
        let dir = tempfile::tempdir().unwrap();
        token(dir.path(), "eu-1");
        let subject = Subject { pki_state: Some(dir.path().join("pki")), ..Subject::default() };
        let findings = check(&subject, SystemTime::now());
        assert!(findings.len() > 4 && findings.iter().all(|f| f.severity == Severity::Ok), "{findings:?}");
        let later = check(&subject, SystemTime::now() + 29 * DAY);
        assert!(
            later.iter().any(|f| f.severity == Severity::Critical && f.text.contains("issuing CA")),
            "{later:?}"
        );
    }
}
