//! The command line: `isthmus gateway`.

mod join;
mod running;

pub use self::join::JoinArgs;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Subcommand};
use runtime::{CommonArgs, ConfigMistakes, ListenAddress};

use running::{RunningArgs, RunningCommand};

use crate::{
    component::{Gateway, Setup, has_credentials, role_info},
    config::{ClusterTarget, Config, GatewayRole},
};

/// Connect this cluster to the mesh
///
/// With --config, `role` in the file selects the gateway of a client cluster or the gateway of the observability cluster.
/// Without --config this is the gateway of a client cluster: it joins with the token, stores the certificate in
/// --data-dir, and serves the targets of --target. When it is started again with the same arguments, it uses the stored
/// certificate.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, mut_arg("grpc_address", |arg| arg.default_value("127.0.0.1:10941")), mut_arg("http_address", |arg| arg.default_value("0.0.0.0:10942")))]
pub struct GatewayArgs {
    #[command(subcommand)]
    command: Option<GatewayCommand>,

    /// Configuration file; SIGHUP and POST /-/reload reload it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    join: JoinArgs,

    /// Directory to store the certificate in; not with --config
    #[arg(long, value_name = "DIR", default_value = "data/gateway", conflicts_with = "config")]
    data_dir: PathBuf,

    /// A store that the observability side may read; can be repeated; not with --config [default:
    /// scraper-0=127.0.0.1:10901]
    #[arg(long = "target", value_name = "NAME=HOST:PORT", value_parser = parse_target, conflicts_with = "config")]
    targets: Vec<ClusterTarget>,

    /// Address to listen on (UDP and TCP) for the observability side, instead of dialling it; not with --config
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "config")]
    listen: Option<ListenAddress>,

    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Subcommand)]
enum GatewayCommand {
    /// Check a configuration file and report all of its mistakes
    CheckConfig {
        /// The configuration file
        file: PathBuf,
    },
    /// Show whether the running gateway is connected, and what it serves
    Status(RunningArgs),
    /// List the connections of the running gateway
    Peers(RunningArgs),
    /// List the stores that can be read, with their health
    Targets(RunningArgs),
    /// List the certificate in use and the trusted roots
    Certs(RunningArgs),
    /// Serve no more requests and cut the running ones, until `resume`, even after a restart
    Pause(RunningArgs),
    /// Serve requests again after `pause` or `drain`
    Resume(RunningArgs),
    /// Let new requests go to the other gateways of the cluster, and wait for the running ones
    Drain {
        #[command(flatten)]
        running: RunningArgs,

        /// Longest time to wait for running requests
        #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = runtime::parse_duration)]
        timeout: Duration,
    },
    /// Try to connect to each address that the running gateway dials, over QUIC and over TCP
    ConnectTest(RunningArgs),
}

fn parse_target(text: &str) -> Result<ClusterTarget, String> {
    let (name, address) = text
        .split_once('=')
        .ok_or("has no '=', expected NAME=HOST:PORT such as scraper-0=127.0.0.1:10901")?;
    let name = name.parse().map_err(|error: identity::NameError| error.to_string())?;
    Ok(ClusterTarget { name, address: address.parse()?, tls: None })
}

/// Runs the command to its end.
///
/// Exit codes: 0 for success, 1 for a failure, 2 for flags or a configuration that cannot be used.
pub fn run(args: GatewayArgs) -> ExitCode {
    if let Some(command) = &args.command {
        return run_command(command);
    }
    match check(args) {
        Err(mistakes) => mistakes.report(),
        Ok(setup) => {
            let (role, common) = (role_info(&setup.config.role), setup.common.clone());
            runtime::start(role, &common, Ok(setup), |setup, startup| async {
                Ok(Gateway::build(setup, startup).await?.into_role())
            })
        }
    }
}

fn run_command(command: &GatewayCommand) -> ExitCode {
    match command {
        GatewayCommand::CheckConfig { file } => check_config(file),
        GatewayCommand::Status(args) => running::run(RunningCommand::Status, args),
        GatewayCommand::Peers(args) => running::run(RunningCommand::Peers, args),
        GatewayCommand::Targets(args) => running::run(RunningCommand::Targets, args),
        GatewayCommand::Certs(args) => running::run(RunningCommand::Certs, args),
        GatewayCommand::Pause(args) => running::run(RunningCommand::Pause, args),
        GatewayCommand::Resume(args) => running::run(RunningCommand::Resume, args),
        GatewayCommand::Drain { running, timeout } => running::run(RunningCommand::Drain(*timeout), running),
        GatewayCommand::ConnectTest(args) => running::run(RunningCommand::ConnectTest, args),
    }
}

fn check_config(file: &Path) -> ExitCode {
    match Config::load(file) {
        Ok(config) if !config.tls_mistakes().is_empty() => config.tls_mistakes().report(),
        Ok(config) => {
            let role = match config.role {
                GatewayRole::Observability(_) => "observability",
                GatewayRole::Cluster(_) => "cluster",
            };
            // A reader that has closed the pipe (`| head`) has seen enough.
            let _ = writeln!(std::io::stdout(), "{}: valid, role {role}", file.display());
            ExitCode::SUCCESS
        }
        Err(error) => ConfigMistakes::from(error).report(),
    }
}

/// Checks the flags and the files that they name.
///
/// # Errors
/// All mistakes.
fn check(args: GatewayArgs) -> Result<Setup, ConfigMistakes> {
    let mut mistakes = ConfigMistakes::default();
    let config = match &args.config {
        Some(file) => Config::load(file).map_err(ConfigMistakes::from),
        None => config_of_flags(&args).map_err(ConfigMistakes::from),
    };
    let data_dir = config.as_ref().map_or(&args.data_dir, |config| &config.data_dir);
    let token = mistakes.note(args.join.load(data_dir)).flatten();
    let config = mistakes.note(config);
    match config {
        Some(config) if mistakes.is_empty() => {
            let join_file = args.join.file();
            Ok(Setup { config, config_file: args.config, token, join_file, common: args.common })
        }
        _ => Err(mistakes),
    }
}

/// The configuration of a gateway that has no configuration file.
fn config_of_flags(args: &GatewayArgs) -> Result<Config, String> {
    if !args.join.is_given() && !has_credentials(&args.data_dir) {
        return Err(
            "--config is missing and there is no certificate to start with; give --config FILE, or --join-file FILE to \
             join the mesh"
                .to_owned(),
        );
    }
    let targets = match &args.targets[..] {
        [] => vec![parse_target("scraper-0=127.0.0.1:10901")?],
        targets => targets.to_vec(),
    };
    Ok(Config::for_join(args.data_dir.clone(), targets, args.listen.clone()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct GatewayProgram {
        #[command(flatten)]
        gateway: GatewayArgs,
    }

    fn parse(args: &[&str]) -> Result<GatewayArgs, String> {
        let parsed = GatewayProgram::try_parse_from([&["gateway"], args].concat());
        parsed.map(|program| program.gateway).map_err(|error| error.to_string())
    }

    #[test]
    fn the_ports_have_defaults_of_their_own() {
        let common = parse(&[]).unwrap().common;
        assert_eq!(common.grpc_address.to_string(), "127.0.0.1:10941");
        assert_eq!(common.http_address.to_string(), "0.0.0.0:10942");
        let given = parse(&["--grpc-address", "127.0.0.1:7"]).unwrap();
        assert_eq!(given.common.grpc_address.to_string(), "127.0.0.1:7");
    }

    #[test]
    fn an_error_names_the_invalid_argument() {
        let check = |args: &[&str], expected: &str| {
            let error = parse(args).map(|_| ()).unwrap_err();
            assert!(error.contains(expected), "{args:?}: {error}");
        };
        check(&["--config", "x", "--target", "a=b:1"], "--target");
        check(&["--join", "isthmus_join_x"], "--join");
        check(&["--target", "scraper-0"], "NAME=HOST:PORT");
        check(&["--target", "Scraper=h:1"], "use only a-z");
        check(&["--target", "scraper-0=h"], "has no port");
        check(&["--listen", "x"], "has no port");
        check(&["--nonsense"], "--nonsense");
    }

    #[test]
    fn check_config_reads_the_tls_files_of_targets() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("gateway.yaml");
        let target = "targets: [{name: a, address: 'h:1', tls: {ca_file: ca.pem}}]";
        std::fs::write(&file, format!("role: cluster\ndata_dir: data\n{target}\n")).unwrap();
        let mistakes = Config::load(&file).unwrap().tls_mistakes();
        let [line] = mistakes.lines() else { panic!("{mistakes}") };
        assert!(line.starts_with("target a: tls: ") && line.contains("ca.pem"), "{line}");
        assert_eq!(check_config(&file), ExitCode::from(runtime::EXIT_USAGE));
        std::fs::write(
            &file,
            "role: cluster\ndata_dir: data\ntargets: [{name: a, address: 'h:1', tls: {}}]\n",
        )
        .unwrap();
        assert_eq!(check_config(&file), ExitCode::SUCCESS);
    }

    #[test]
    fn mistakes_in_the_token_and_in_the_configuration_are_reported_together() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "nonsense").unwrap();
        let args = parse(&["--join-file", file.to_str().unwrap(), "--config", "/no/such/file"]).unwrap();
        let mistakes = check(args).unwrap_err();
        let [token, config] = mistakes.lines() else { panic!("{mistakes}") };
        assert!(token.starts_with("--join-file ") && config.contains("/no/such/file"), "{mistakes}");
    }

    #[test]
    fn a_token_is_not_printed_with_the_arguments() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "isthmus_join_canary").unwrap();
        let args = parse(&["--join-file", file.to_str().unwrap()]).unwrap();
        assert!(!format!("{args:?}").contains("canary"));
        let error = check(args).unwrap_err().to_string();
        assert!(error.starts_with("--join-file ") && !error.contains("canary"), "{error}");
    }

    #[test]
    fn the_file_of_a_used_token_may_be_absent() {
        let dir = tempfile::tempdir().unwrap();
        let (data_dir, file) = (dir.path().join("data"), dir.path().join("token"));
        let args =
            || parse(&["--data-dir", data_dir.to_str().unwrap(), "--join-file", file.to_str().unwrap()]);
        let error = check(args().unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("--join-file ") && error.contains("No such file"), "{error}");
        std::fs::create_dir(&data_dir).unwrap();
        std::fs::write(data_dir.join("credentials.pem"), "").unwrap();
        let setup = check(args().unwrap()).unwrap();
        // It is read again after the certificate has expired.
        assert_eq!((setup.token.is_none(), setup.join_file), (true, Some(file.clone())));
        std::fs::write(&file, "nonsense").unwrap();
        assert!(check(args().unwrap()).is_err(), "a file that is there is read");
    }

    #[test]
    fn without_a_configuration_a_token_or_a_certificate_the_error_says_how_to_join() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("none").display().to_string();
        let error = check(parse(&["--data-dir", &data_dir]).unwrap()).unwrap_err().to_string();
        assert!(error.contains("--config") && error.contains("--join"), "{error}");
        let missing = check(parse(&["--join-file", "/no/such/file"]).unwrap()).unwrap_err().to_string();
        assert!(missing.contains("/no/such/file"), "{missing}");
    }
}
