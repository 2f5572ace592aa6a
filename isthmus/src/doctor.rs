//! `isthmus doctor`: checks this machine and the command line of a role, before the role is started and while it runs.
//!
//! [`subject`] finds out what a command line needs. Each check is a function in a file of its own, and returns one or more lines.
//! Nothing is changed, except that a small object is written to the bucket of a role that writes, and removed.

mod certificates;
mod clocks;
mod configuration;
mod descriptors;
mod finding;
mod memory;
mod names;
mod objects;
mod other_side;
mod ports;
mod reach;
mod servers;
mod subject;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::SystemTime;

use serde_json::json;
use terminal::{TableStyle, TextTable};

use finding::{Finding, Severity};
use subject::Subject;

/// Check this machine and the command line of a role: ports, clocks, the network, limits, bucket, certificates
///
/// Write `isthmus doctor` in front of the flags of the role, as in `isthmus doctor gateway --config=gateway.yaml`. Without a
/// role, the machine alone is checked. The exit code is 0, 10 if the worst finding is a warning, and 11 if it is critical.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,

    /// Also check whether this gateway of the other side answers over UDP and TCP; can be repeated
    #[arg(long, value_name = "HOST:PORT")]
    connect: Vec<String>,

    /// Also compare the clock with the Date header of this HTTP server; can be repeated
    #[arg(long, value_name = "http://HOST:PORT")]
    clock: Vec<String>,

    /// The role with its flags, as they are given to isthmus
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ROLE")]
    role: Vec<OsString>,
}

/// Runs all checks and prints what they have found. `program` is the command line of isthmus.
pub(crate) fn run(args: &DoctorArgs, program: clap::Command) -> anyhow::Result<ExitCode> {
    let mut subject = Subject::of_role(program, &args.role)?;
    subject.peers.extend(args.connect.iter().cloned());
    subject.clocks.extend(args.clock.iter().cloned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let findings = runtime.block_on(examine(&subject));
    let worst = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok);
    let text = match args.json {
        true => {
            let list: Vec<_> = findings.iter().map(Finding::to_json).collect();
            json!({"v": 1, "worst": worst.as_str(), "findings": list}).to_string()
        }
        false => {
            let mut table = TextTable::new(["SEVERITY", "CHECK", "FINDING"]);
            for finding in findings {
                table.push(vec![
                    finding.severity.as_str().to_owned(),
                    finding.check.to_owned(),
                    finding.text,
                ]);
            }
            table.draw(TableStyle::Plain, terminal::output_width())
        }
    };
    writeln!(std::io::stdout(), "{text}")?;
    Ok(worst.exit_code())
}

async fn examine(subject: &Subject) -> Vec<Finding> {
    let now = SystemTime::now();
    let mut findings = subject.mistakes.clone();
    findings.extend(ports::check(&subject.ports, subject.http.as_ref()));
    findings.push(descriptors::check());
    findings.push(memory::check(runtime::available_memory()));
    findings.extend(certificates::check(subject, now));
    findings.extend(names::check(&[&subject.peers[..], &subject.stores].concat()).await);
    findings.extend(reach::check(&subject.peers, subject.transport).await);
    findings.extend(reach::check_issuer(subject).await);
    let resolver = runtime::DnsResolver::system();
    let (looked_up, found) = servers::look_up(&subject.lookups, &resolver).await;
    findings.extend(looked_up);
    findings.extend(reach::check_stores(&[&subject.stores[..], &found].concat()).await);
    findings.extend(servers::check(&subject.servers, &resolver).await);
    findings.extend(clocks::check(&subject.clocks));
    if let Some(bucket) = &subject.bucket {
        findings.extend(objects::check(bucket).await);
    }
    findings.extend(other_side::check(subject).await);
    findings
}
