//! What a check has found.

use std::process::ExitCode;

use serde_json::{Value, json};

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    Ok,
    Warning,
    Critical,
}

impl Severity {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// As those of `pki doctor`.
    pub(super) fn exit_code(self) -> ExitCode {
        match self {
            Self::Ok => ExitCode::SUCCESS,
            Self::Warning => ExitCode::from(10),
            Self::Critical => ExitCode::from(11),
        }
    }
}

/// One line: what was checked, and what to do if it is not right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) severity: Severity,
    pub(super) text: String,
}

impl Finding {
    pub(super) fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, severity: Severity::Ok, text: text.into() }
    }

    pub(super) fn warning(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, severity: Severity::Warning, text: text.into() }
    }

    pub(super) fn critical(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, severity: Severity::Critical, text: text.into() }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({"check": self.check, "severity": self.severity.as_str(), "text": self.text})
    }
}
