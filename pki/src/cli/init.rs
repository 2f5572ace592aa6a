//! `pki init`

use std::{path::PathBuf, time::SystemTime};

use identity::{Name, TrustDomain};
use serde_json::json;

use crate::{
    authority::utc,
    cli::{output::CommandOutput, passphrase::read_passphrase, state::StateArgs},
    error::PkiError,
    init::{InitOptions, InitOutcome, check_init, init},
    issuer::Issuer,
};

/// Arguments of `pki init`.
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Directory for the encrypted root keys; take it offline afterwards
    #[arg(long, value_name = "DIR")]
    root_out: PathBuf,
    /// Trust domain, such as prod.metrics.example.org; use another one for each environment
    #[arg(long, value_name = "NAME")]
    trust_domain: TrustDomain,
    /// Cluster in which the issuer runs
    #[arg(long, value_name = "NAME", default_value = "observability")]
    cluster: Name,
    /// File whose first line is the passphrase of the root keys; without it, the terminal asks for the
    /// passphrase
    #[arg(long, value_name = "FILE")]
    root_passphrase_file: Option<PathBuf>,
    /// Print what would be created, and create nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: &InitArgs, output: &mut CommandOutput<'_>, now: SystemTime) -> Result<u8, PkiError> {
    let options = InitOptions {
        state: args.state.state.clone(),
        root_out: args.root_out.clone(),
        trust_domain: args.trust_domain.clone(),
        cluster: args.cluster.clone(),
        passphrase: read_passphrase(args.root_passphrase_file.as_deref(), true)?,
    };
    let (state, root_out) = (options.state.display(), options.root_out.display());
    if args.dry_run {
        check_init(&options)?;
        if args.state.json {
            output.object(
                json!({"dry_run": true, "state": state.to_string(), "root_out": root_out.to_string()}),
            )?;
        } else {
            output.line(&format!(
                "would create two roots in {root_out}, an issuing CA and an inventory in {state}"
            ))?;
        }
        return Ok(0);
    }
    let outcome = init(&options, now)?;
    let issuer = Issuer::open(&options.state)?;
    let pins: Vec<String> = issuer.bundle().pins().map(|pin| pin.to_string()).collect();
    let until = utc(issuer.not_after());
    if args.state.json {
        output.object(json!({
            "created": outcome == InitOutcome::Created,
            "trust_domain": issuer.trust_domain().as_str(),
            "cluster": issuer.cluster().as_str(),
            "state": state.to_string(),
            "root_out": root_out.to_string(),
            "root_pins": pins,
            "issuer_not_after": until,
        }))?;
        return Ok(0);
    }
    if outcome == InitOutcome::AlreadyComplete {
        output.line(&format!("{state} is already complete; nothing was changed"))?;
        return Ok(0);
    }
    output.line(&format!("trust domain   {}", issuer.trust_domain()))?;
    output.line(&format!("active root    {}", pins[0]))?;
    output.line(&format!("standby root   {}", pins[1]))?;
    output.line(&format!("issuing CA     valid until {until}"))?;
    output
        .line(&format!("Take the directory {root_out} offline now. Keep its passphrase in another place."))?;
    output.line(&format!(
        "Next: pki token create --state {state} --cluster NAME --environment NAME --address HOST:PORT"
    ))?;
    Ok(0)
}
