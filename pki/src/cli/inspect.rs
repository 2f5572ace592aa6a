//! The commands that only read: `pki audit`, `pki doctor`.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::{
    cli::{output::CommandOutput, state::StateArgs},
    doctor::{Severity, examine},
    error::PkiError,
    inventory::{AuditHead, Inventory, StateDir},
};

/// Commands for the audit log.
#[derive(Debug, clap::Subcommand)]
pub enum AuditCommand {
    /// Verify the hash chain of the whole log and print its head
    Verify(AuditVerifyArgs),
    /// Print the newest entries
    Tail(AuditTailArgs),
}

/// Arguments of `pki audit verify`.
#[derive(Debug, clap::Args)]
pub struct AuditVerifyArgs {
    #[command(flatten)]
    state: StateArgs,
    /// A head noted earlier; fail if the log does not contain it any more
    #[arg(long, value_name = "NUMBER:HASH")]
    head: Option<String>,
}

/// Arguments of `pki audit tail`.
#[derive(Debug, clap::Args)]
pub struct AuditTailArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Number of entries to print
    #[arg(long, short = 'n', default_value_t = 20)]
    count: u32,
}

/// Arguments of `pki doctor`.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    state: StateArgs,
}

fn open_inventory(args: &StateArgs) -> Result<Inventory, PkiError> {
    Inventory::open(&StateDir::new(&args.state))
}

pub(super) fn audit(command: &AuditCommand, output: &mut CommandOutput<'_>) -> Result<u8, PkiError> {
    match command {
        AuditCommand::Verify(args) => {
            let earlier = match &args.head {
                Some(text) => Some(
                    text.parse::<AuditHead>()
                        .map_err(|e| PkiError::Usage(format!("--head {text:?}: {e}")))?,
                ),
                None => None,
            };
            let head = open_inventory(&args.state)?.verify_audit(earlier.as_ref())?;
            if args.state.json {
                output.object(json!({"entries": head.number, "head": head.to_string()}))?;
            } else {
                output.line(&format!("{} entries, the hash chain is intact; head {head}", head.number))?;
            }
        }
        AuditCommand::Tail(args) => {
            let entries = open_inventory(&args.state)?.audit_tail(args.count)?;
            if args.state.json {
                let list: Vec<_> = entries
                    .iter()
                    .map(|e| {
                        let detail: Value =
                            serde_json::from_str(&e.detail).unwrap_or_else(|_| json!(e.detail));
                        json!({"number": e.number, "at": e.at, "event": e.event, "detail": detail})
                    })
                    .collect();
                output.object(json!({"entries": list}))?;
            } else {
                for entry in entries {
                    output
                        .line(&format!("{} {} {} {}", entry.number, entry.at, entry.event, entry.detail))?;
                }
            }
        }
    }
    Ok(0)
}

pub(super) fn doctor(
    args: &DoctorArgs,
    output: &mut CommandOutput<'_>,
    now: SystemTime,
) -> Result<u8, PkiError> {
    let findings = examine(&args.state.state, now)?;
    let worst = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok);
    if args.state.json {
        let list: Vec<_> = findings
            .iter()
            .map(|f| json!({"check": f.check, "severity": f.severity.as_str(), "text": f.text}))
            .collect();
        output.object(json!({"worst": worst.as_str(), "findings": list}))?;
    } else {
        let rows: Vec<_> = findings
            .into_iter()
            .map(|f| vec![f.severity.as_str().to_owned(), f.check.to_owned(), f.text])
            .collect();
        output.table(&["SEVERITY", "CHECK", "FINDING"], rows)?;
    }
    Ok(match worst {
        Severity::Ok => 0,
        Severity::Warning => 10,
        Severity::Critical => 11,
    })
}
