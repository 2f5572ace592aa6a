//! Checks a state directory: file modes, keys and certificates, expiry dates, the audit log.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, SystemTime},
};

use identity::TrustBundle;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    authority::{CertificateAuthority, unix_seconds, utc},
    error::PkiError,
    inventory::{Inventory, StateDir},
    issuer::Issuer,
};

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    Ok,
    Warning,
    Critical,
}

impl Severity {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) check: &'static str,
    pub(crate) severity: Severity,
    pub(crate) text: String,
}

const DAY: Duration = Duration::from_secs(86_400);

/// Runs all checks. Each check returns at least one finding, even when another check fails.
///
/// # Errors
/// Only when the directory is not a state directory.
pub(crate) fn examine(state: &Path, now: SystemTime) -> Result<Vec<Finding>, PkiError> {
    let dir = StateDir::new(state);
    let inventory = match Inventory::open(&dir) {
        Err(e @ PkiError::NotFound(_)) => return Err(e),
        other => other,
    };
    let mut findings = check_modes(&dir);
    match &inventory {
        Ok(inventory) => {
            findings.push(check_audit(inventory));
            findings.push(check_tables(inventory));
            findings.push(check_agreement(&dir, inventory));
            findings.extend(check_roots(&dir, inventory, now));
        }
        Err(e) => {
            findings.push(Finding { check: "inventory", severity: Severity::Critical, text: e.to_string() })
        }
    }
    findings.push(check_issuing_ca(&dir, now));
    findings.extend(check_gateways(state, now));
    Ok(findings)
}

/// Runs the checks of `pki doctor` on the state directory of an issuer. Returns the severity (`ok`, `warning`, `critical`) and the
/// text of each finding.
///
/// # Errors
/// Only when the directory is not a state directory.
pub fn examine_state(state: &Path, now: SystemTime) -> Result<Vec<(&'static str, String)>, PkiError> {
    let findings = examine(state, now)?.into_iter();
    Ok(findings.map(|f| (f.severity.as_str(), format!("{}: {}", f.check, f.text))).collect())
}

/// Checks that only the owner has access to the keys and the inventory.
fn check_modes(dir: &StateDir) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in [dir.path().to_owned(), dir.issuer(), dir.inventory()] {
        let (severity, text) = match fs::metadata(&path) {
            Ok(meta) if meta.permissions().mode() & 0o077 == 0 => {
                let mode = meta.permissions().mode() & 0o777;
                (Severity::Ok, format!("{}: mode {mode:03o}, only the owner has access", path.display()))
            }
            Ok(meta) => {
                let mode = meta.permissions().mode() & 0o777;
                let fix = if meta.is_dir() { "700" } else { "600" };
                let path = path.display();
                let text = format!("{path}: mode {mode:03o}, expected {fix}; run chmod {fix} {path}");
                (Severity::Critical, text)
            }
            Err(e) => (Severity::Critical, format!("{}: {e}", path.display())),
        };
        findings.push(Finding { check: "file modes", severity, text });
    }
    findings
}

fn check_audit(inventory: &Inventory) -> Finding {
    let (severity, text) = match inventory.verify_audit(None) {
        Ok(head) => (Severity::Ok, format!("the hash chain of {} entries is intact", head.number)),
        Err(e) => (Severity::Critical, e.to_string()),
    };
    Finding { check: "audit log", severity, text }
}

/// What the running gateways have reported: whether each connected one has the denylists and the bundle.
fn check_gateways(state: &Path, now: SystemTime) -> Vec<Finding> {
    let finding = |severity, text| Finding { check: "gateways", severity, text };
    let status = match Issuer::open(state).and_then(|issuer| issuer.gateway_status(now)) {
        Ok(status) => status,
        Err(e) => return vec![finding(Severity::Critical, e.to_string())],
    };
    let lost = status.iter().filter(|gateway| !gateway.log_is_whole).map(|gateway| {
        let report = &gateway.report;
        let text = format!(
            "{} at {} keeps head {}:{} of the audit log, which the log does not contain: entries were removed or rewritten; \
             after the restore of a backup, sign the trust bundle again",
            report.id, report.remote, report.audit_number, report.audit_hash
        );
        Finding { check: "audit log", severity: Severity::Critical, text }
    });
    let lost: Vec<_> = lost.collect();
    let connected: Vec<_> = status.iter().filter(|gateway| gateway.disconnected_at.is_none()).collect();
    let behind = connected.iter().filter(|gateway| !gateway.is_current);
    let mut findings: Vec<_> = behind
        .map(|gateway| {
            let report = &gateway.report;
            let why = if report.refused.is_empty() { "has not acknowledged it yet" } else { &report.refused };
            let text = format!(
                "{} at {} has denylist {} and bundle {}, which are not the newest: {why}",
                report.id, report.remote, report.denylist, report.bundle
            );
            finding(Severity::Warning, text)
        })
        .collect();
    if findings.is_empty() {
        let text = format!("{} connected gateways have the newest denylist and bundle", connected.len());
        findings.push(finding(Severity::Ok, text));
    }
    findings.extend(lost);
    findings
}

/// Compares the tables with the log: what only one of them has was put there, or removed, by hand.
fn check_tables(inventory: &Inventory) -> Finding {
    let (severity, text) = match inventory.replay() {
        Ok(checked) => {
            let text =
                format!("the tables agree with the log in {checked} certificates, tokens and clusters");
            (Severity::Ok, text)
        }
        Err(e) => (Severity::Critical, e.to_string()),
    };
    Finding { check: "inventory", severity, text }
}

/// Compares the files with the log.
fn check_agreement(dir: &StateDir, inventory: &Inventory) -> Finding {
    let agreed = CertificateAuthority::load(&dir.issuer()).and_then(|authority| {
        let (domain, _) = inventory.identity()?;
        let bundle = TrustBundle::load(domain, &dir.bundle())?;
        inventory.check_agreement(authority.pin(), &bundle)
    });
    let (severity, text) = match agreed {
        Ok(()) => (Severity::Ok, "the log knows the issuing CA and the trust bundle".to_owned()),
        Err(e) => (Severity::Critical, e.to_string()),
    };
    Finding { check: "agreement", severity, text }
}

fn check_issuing_ca(dir: &StateDir, now: SystemTime) -> Finding {
    match CertificateAuthority::load(&dir.issuer()) {
        Ok(authority) => check_expiry(
            "issuing CA",
            "the issuing CA",
            "; renew it with `pki issuer renew`",
            authority.not_after(),
            now,
            [7 * DAY, 2 * DAY],
        ),
        Err(e) => Finding { check: "issuing CA", severity: Severity::Critical, text: e.to_string() },
    }
}

fn check_roots(dir: &StateDir, inventory: &Inventory, now: SystemTime) -> Vec<Finding> {
    let bundle = inventory.identity().and_then(|(domain, _)| Ok(TrustBundle::load(domain, &dir.bundle())?));
    let bundle = match bundle {
        Ok(bundle) => bundle,
        Err(e) => return vec![Finding { check: "roots", severity: Severity::Critical, text: e.to_string() }],
    };
    let mut findings = Vec::new();
    for root in bundle.roots() {
        // The bundle has parsed each root before, so this cannot fail.
        let Ok((_, cert)) = X509Certificate::from_der(root) else { continue };
        let not_after = SystemTime::UNIX_EPOCH
            + Duration::from_secs(cert.validity().not_after.timestamp().max(0).unsigned_abs());
        let subject = cert.subject().to_string();
        findings.push(check_expiry("roots", &subject, "", not_after, now, [60 * DAY, 7 * DAY]));
    }
    findings
}

/// Compares the remaining time with two thresholds: a warning below the first, critical below the second.
/// `advice` is appended to the text of a warning or critical finding.
fn check_expiry(
    check: &'static str,
    subject: &str,
    advice: &str,
    not_after: SystemTime,
    now: SystemTime,
    [warning, critical]: [Duration; 2],
) -> Finding {
    let left = not_after.duration_since(now).unwrap_or_default();
    let severity = match left {
        left if left < critical => Severity::Critical,
        left if left < warning => Severity::Warning,
        _ => Severity::Ok,
    };
    let days = (unix_seconds(not_after) - unix_seconds(now)).div_euclid(86_400);
    let mut text = if left.is_zero() {
        format!("{subject} expired at {}", utc(not_after))
    } else {
        format!("{subject} expires in {days} days, at {}", utc(not_after))
    };
    if severity != Severity::Ok {
        text.push_str(advice);
    }
    Finding { check, severity, text }
}

#[cfg(test)]
mod tests;
