//! The command line: `isthmus gateway`.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use identity::Secret;
use pki::JoinToken;
use runtime::{CommonArgs, EXIT_ERROR, EXIT_OK, EXIT_USAGE, ListenAddress};

use crate::{
    component::{Gateway, Setup, StartError, config_for_join},
    config::{Config, ConfigError, Role, Target},
};

/// Largest token file that is read, in bytes.
const MAX_TOKEN_BYTES: u64 = 16 << 10;

/// Joins this cluster to the mesh, or ends the mesh beside the querier
///
/// With --config the file says which. With --join alone this is the gateway of a client cluster: it redeems the token,
/// keeps the certificate in --data-dir, and serves the targets named. Started again with the same arguments it uses what
/// it has.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, mut_arg("grpc_address", |arg| arg.default_value("127.0.0.1:10941")))]
pub struct GatewayArgs {
    #[command(subcommand)]
    command: Option<GatewayCommand>,

    /// Configuration file; reloaded by SIGHUP and POST /-/reload
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Join with this token if not joined yet; visible to other users of the machine, so prefer --join-file
    #[arg(long, value_name = "TOKEN", value_parser = parse_secret, conflicts_with = "join_file")]
    join: Option<Secret<String>>,

    /// Join with the token in this file if not joined yet
    #[arg(long, value_name = "FILE")]
    join_file: Option<PathBuf>,

    /// Folder for the certificate, without --config
    #[arg(long, value_name = "DIR", default_value = "data/gateway", conflicts_with = "config")]
    data_dir: PathBuf,

    /// A store that can be read here, without --config; may be repeated [default: scraper-0=127.0.0.1:10901]
    #[arg(long = "target", value_name = "NAME=HOST:PORT", value_parser = parse_target, conflicts_with = "config")]
    targets: Vec<Target>,

    /// Let the observability side dial in here (UDP and TCP) instead of dialling it, without --config
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "config")]
    listen: Option<ListenAddress>,

    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Subcommand)]
enum GatewayCommand {
    /// Checks a configuration file and reports all of its mistakes
    CheckConfig {
        /// The file
        file: PathBuf,
    },
}

fn parse_secret(text: &str) -> Result<Secret<String>, std::convert::Infallible> {
    Ok(Secret::new(text.to_owned()))
}

fn parse_target(text: &str) -> Result<Target, String> {
    let (name, address) =
        text.split_once('=').ok_or("write NAME=HOST:PORT, for example scraper-0=127.0.0.1:10901")?;
    let name = name.parse().map_err(|error: identity::NameError| error.to_string())?;
    Ok(Target { name, address: address.parse()? })
}

/// Runs the command to its end.
///
/// Exit codes: 0 for a good end, 1 for a failure, 2 for arguments or a configuration that make no sense.
pub fn run(args: GatewayArgs) -> ExitCode {
    let code = match &args.command {
        Some(GatewayCommand::CheckConfig { file }) => check_config(file),
        None => return serve(args),
    };
    ExitCode::from(code)
}

fn check_config(file: &Path) -> u8 {
    match Config::load(file) {
        Ok(config) => {
            let role = match config.role {
                Role::Observability(_) => "observability",
                Role::Cluster(_) => "cluster",
            };
            // A reader that is gone (`| head`) has seen what it wanted.
            let _ = writeln!(std::io::stdout(), "{}: good, role {role}", file.display());
            EXIT_OK
        }
        Err(error) => {
            eprintln!("{error}");
            match error {
                ConfigError::Read { .. } => EXIT_ERROR,
                ConfigError::Wrong { .. } => EXIT_USAGE,
            }
        }
    }
}

fn serve(args: GatewayArgs) -> ExitCode {
    let fail = |code: u8, error: &dyn std::fmt::Display| {
        eprintln!("error: {error}");
        ExitCode::from(code)
    };
    if let Err(error) = runtime::init_logs(args.common.log_level, args.common.log_format) {
        return fail(EXIT_ERROR, &error);
    }
    let setup = match setup(args) {
        Ok(setup) => setup,
        Err(error) => return fail(EXIT_USAGE, &error),
    };
    let tokio = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(tokio) => tokio,
        Err(error) => return fail(EXIT_ERROR, &error),
    };
    tokio.block_on(async {
        match Gateway::start(setup).await {
            Ok(gateway) => gateway.run().await,
            Err(error) => fail(EXIT_ERROR, &error),
        }
    })
}

fn setup(args: GatewayArgs) -> Result<Setup, StartError> {
    let token = match (&args.join, &args.join_file) {
        (Some(token), _) => Some(parse_token("--join", token.expose())?),
        (None, Some(file)) => Some(read_token(file)?),
        (None, None) => None,
    };
    let config = match &args.config {
        Some(file) => Config::load(file)?,
        None => {
            let targets = if args.targets.is_empty() {
                vec![parse_target("scraper-0=127.0.0.1:10901").map_err(StartError::Other)?]
            } else {
                args.targets
            };
            if token.is_none() && !args.data_dir.join("credentials.pem").exists() {
                let usage =
                    "give --config FILE, or --join-file FILE (or --join TOKEN) to join a cluster to the mesh";
                return Err(StartError::Other(usage.to_owned()));
            }
            config_for_join(args.data_dir, targets, args.listen)
        }
    };
    let age = args.common.grpc_server_max_connection_age;
    Ok(Setup {
        config,
        config_file: args.config,
        token,
        grace: args.common.grace_period(),
        http_address: args.common.http_address,
        grpc_address: args.common.grpc_address,
        max_connection_age: (!age.is_zero()).then_some(age),
    })
}

fn read_token(file: &Path) -> Result<JoinToken, StartError> {
    let name = file.display().to_string();
    let bytes = identity::read_bounded(file, MAX_TOKEN_BYTES)
        .map_err(|error| StartError::Other(format!("--join-file {name}: {error}")))?;
    let text = Secret::new(bytes);
    let text = std::str::from_utf8(text.expose())
        .map_err(|_| StartError::Other(format!("--join-file {name}: is not UTF-8 text")))?;
    parse_token(&format!("--join-file {name}"), text)
}

fn parse_token(from: &str, text: &str) -> Result<JoinToken, StartError> {
    JoinToken::parse(text).map_err(|error| StartError::Other(format!("{from}: {error}")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        gateway: GatewayArgs,
    }

    fn parse(args: &[&str]) -> Result<GatewayArgs, String> {
        let parsed = Program::try_parse_from([&["gateway"], args].concat());
        parsed.map(|program| program.gateway).map_err(|error| error.to_string())
    }

    #[test]
    fn the_local_port_has_a_default_of_its_own() {
        assert_eq!(parse(&[]).unwrap().common.grpc_address.to_string(), "127.0.0.1:10941");
        let given = parse(&["--grpc-address", "127.0.0.1:7"]).unwrap();
        assert_eq!(given.common.grpc_address.to_string(), "127.0.0.1:7");
    }

    #[test]
    fn arguments_that_make_no_sense_are_refused_by_name() {
        let check = |args: &[&str], expected: &str| {
            let error = parse(args).map(|_| ()).unwrap_err();
            assert!(error.contains(expected), "{args:?}: {error}");
        };
        check(&["--config", "x", "--target", "a=b:1"], "--target");
        check(&["--join", "x", "--join-file", "y"], "--join-file");
        check(&["--target", "scraper-0"], "NAME=HOST:PORT");
        check(&["--target", "Scraper=h:1"], "use only a-z");
        check(&["--target", "scraper-0=h"], "has no port");
        check(&["--listen", "x"], "has no port");
        check(&["--nonsense"], "--nonsense");
    }

    #[test]
    fn a_token_does_not_show_in_what_is_printed_of_the_arguments() {
        let args = parse(&["--join", "isthmus_join_canary"]).unwrap();
        assert!(!format!("{args:?}").contains("canary"));
        let error = setup(args).unwrap_err().to_string();
        assert!(error.starts_with("--join: ") && !error.contains("canary"), "{error}");
    }

    #[test]
    fn without_a_configuration_a_token_or_a_certificate_there_is_nothing_to_run() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("none").display().to_string();
        let error = setup(parse(&["--data-dir", &data_dir]).unwrap()).unwrap_err().to_string();
        assert!(error.contains("--config") && error.contains("--join"), "{error}");
        let missing = setup(parse(&["--join-file", "/no/such/file"]).unwrap()).unwrap_err().to_string();
        assert!(missing.contains("/no/such/file"), "{missing}");
    }
}
