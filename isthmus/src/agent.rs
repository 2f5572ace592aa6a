//! `isthmus agent`: the scraper and the gateway of a client cluster in one process.
//!
//! The gateway offers the gRPC server of the scraper to the observability side. The certificate of the gateway decides which
//! cluster and environment the samples are from, and `--replica` which replica of the cluster this is.

use std::path::PathBuf;
use std::process::ExitCode;

use gateway::cli::JoinArgs;
use gateway::component::{Member, embed, has_credentials};
use gateway::config::ProxyConfig;
use identity::Name;
use pki::JoinToken;
use runtime::{CommonArgs, ConfigMistakes, RoleError, RoleInfo, RunningRole, Startup};
use scraper::{FixedLabel, ScrapeArgs};

/// The folder with the credentials, inside the data folder. Prometheus ignores it there.
const CREDENTIALS: &str = "gateway";

const ROLE: RoleInfo = RoleInfo { name: "agent", ..scraper::ROLE };

/// Scrape this cluster and connect it to the mesh: scrape and gateway in one process
///
/// The agent joins with the token, stores its certificate in the folder gateway of --data-dir, scrapes what the prometheus.yml
/// says, and offers its samples to the observability side as the target scraper-REPLICA. When it is started again with the same
/// arguments, it uses the stored certificate. Two agents with the same file, another --replica, and a token and a --data-dir
/// of their own are a highly available pair.
#[derive(Debug, clap::Args)]
#[command(mut_arg("grpc_address", |arg| arg.default_value("127.0.0.1:10901")))]
// An agent refuses them.
#[command(mut_arg("grpc_server_tls_cert", |arg| arg.hide(true)))]
#[command(mut_arg("grpc_server_tls_key", |arg| arg.hide(true)))]
#[command(mut_arg("grpc_server_tls_client_ca", |arg| arg.hide(true)))]
#[command(mut_arg("grpc_server_tls_min_version", |arg| arg.hide(true)))]
#[command(mut_arg("grpc_server_tls_ciphers", |arg| arg.hide(true)))]
#[command(mut_arg("grpc_server_tls_curves", |arg| arg.hide(true)))]
pub(crate) struct AgentArgs {
    #[command(flatten)]
    join: JoinArgs,

    /// Name of this replica: the value of the external label `replica`, and scraper-NAME is the target in the mesh
    #[arg(long, value_name = "NAME", default_value = "0")]
    replica: Name,

    #[command(flatten)]
    scrape: ScrapeArgs,
}

/// What an agent is built from.
struct AgentConfig {
    scrape: scraper::RoleConfig,
    common: CommonArgs,
    token: Option<JoinToken>,
    join_file: Option<PathBuf>,
    credentials: PathBuf,
    replica: Name,
    target: Name,
}

/// Runs the agent until a signal stops it.
pub(crate) fn run(args: AgentArgs) -> ExitCode {
    let common = args.scrape.common();
    runtime::start(ROLE, &common, args.check(), build)
}

impl AgentArgs {
    /// Validates the flags and the files that they name.
    ///
    /// # Errors
    /// All mistakes, one line each.
    fn check(self) -> Result<AgentConfig, ConfigMistakes> {
        let token = self.join.load(&self.credentials());
        self.check_with(token)
    }

    /// All mistakes in the flags and in the files that they name, one line each; empty if the agent would start with them. A token of
    /// standard input is not read.
    pub(crate) fn mistakes(self) -> ConfigMistakes {
        let token = match self.join.file() {
            Some(_) => self.join.load(&self.credentials()),
            None => Ok(None),
        };
        self.check_with(token).err().unwrap_or_default()
    }

    /// The data directory of the gateway.
    fn credentials(&self) -> PathBuf {
        self.scrape.data_dir().join(CREDENTIALS)
    }

    fn check_with(self, token: Result<Option<JoinToken>, String>) -> Result<AgentConfig, ConfigMistakes> {
        let mut mistakes = ConfigMistakes::default();
        let common = self.scrape.common();
        let credentials = self.credentials();
        let (token, join_file) = (mistakes.note(token).flatten(), self.join.file());
        if !self.join.is_given() && !has_credentials(&credentials) {
            mistakes.push(format!(
                "--join-file: is missing, and there is no certificate in {}; ask the observability team for a token, write it \
                 to a file, and give --join-file FILE",
                credentials.display()
            ));
        }
        if common.grpc_tls.is_given() {
            mistakes.push(
                "--grpc-server-tls-*: the gateway of an agent reads the gRPC port without TLS; remove the flags, or run \
                 `isthmus scrape` and `isthmus gateway`",
            );
        }
        let target = format!("scraper-{}", self.replica);
        let target = mistakes.note(target.parse::<Name>().map_err(|error| format!("--replica: {error}")));
        let mut fixed = vec![replica_label(&self.replica)];
        // Before the token is used, so that a file for another cluster costs no token.
        fixed.extend(token.as_ref().map(|token| FixedLabel {
            name: "cluster",
            value: token.cluster().to_string(),
            source: "the token",
        }));
        let scrape = mistakes.note(self.scrape.check(fixed));
        match (scrape, target) {
            (Some(scrape), Some(target)) => mistakes.or_ok(AgentConfig {
                scrape,
                common,
                token,
                join_file,
                credentials,
                replica: self.replica,
                target,
            }),
            _ => Err(mistakes),
        }
    }
}

fn replica_label(replica: &Name) -> FixedLabel {
    FixedLabel { name: "replica", value: replica.to_string(), source: "--replica" }
}

/// Builds the agent: opens the data folder, joins, then starts the scraper and the gateway on one start-up.
async fn build(mut config: AgentConfig, mut startup: Startup) -> Result<RunningRole, RoleError> {
    // The folder first: one that cannot be used costs no token.
    let folder = scraper::open(&config.scrape).await?;
    let member = Member::join(&config.credentials, config.token, &ProxyConfig::Environment, None).await?;
    let member = member.with_join_file(config.join_file);
    let of_certificate = |name, value: &str| FixedLabel {
        name,
        value: value.to_owned(),
        source: "the certificate of this cluster",
    };
    let labels = vec![
        of_certificate("cluster", member.cluster().as_str()),
        of_certificate("environment", member.environment()),
        replica_label(&config.replica),
    ];
    config
        .scrape
        .fix_labels(labels)
        .map_err(|mistakes| RoleError::wrong_configuration(mistakes.to_string()))?;
    scraper::attach(&config.scrape, folder, &mut startup)?;
    embed(member, config.target, &config.common, &mut startup).await?;
    Ok(startup.serve())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct AgentProgram {
        #[command(flatten)]
        agent: AgentArgs,
    }

    fn parse(args: &[&str]) -> Result<AgentArgs, String> {
        let parsed = AgentProgram::try_parse_from([&["agent"], args].concat());
        parsed.map(|program| program.agent).map_err(|error| error.to_string())
    }

    #[test]
    fn samples_are_served_on_loopback_unless_asked_otherwise() {
        let common = parse(&[]).unwrap().scrape.common();
        assert_eq!(common.grpc_address.to_string(), "127.0.0.1:10901");
        assert_eq!(common.http_address.to_string(), "0.0.0.0:10902");
        let common =
            parse(&["--grpc-address=:7", "--web.listen-address=127.0.0.1:8"]).unwrap().scrape.common();
        assert_eq!((common.grpc_address.port(), common.http_address.port()), (7, 8));
    }

    #[test]
    fn all_mistakes_are_reported_together() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("prometheus.yml");
        std::fs::write(&file, "global: {external_labels: {replica: b}}\nrule_files: [x]\n").unwrap();
        let file = format!("--config.file={}", file.display());
        let data = format!("--data-dir={}", dir.path().join("data").display());
        let args = [&*file, &data, "--replica=a", "--grpc-server-tls-cert=x"];
        let error = parse(&args).unwrap().check().err().unwrap().to_string();
        for part in ["--join-file: is missing", "--grpc-server-tls-*: ", "rule_files"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        std::fs::write(&file["--config.file=".len()..], "global: {external_labels: {replica: b}}\n").unwrap();
        let error = parse(&args).unwrap().check().err().unwrap().to_string();
        let expected = "external_labels.replica: is \"b\", but --replica says \"a\"";
        assert!(error.contains(expected), "{error}");
        assert!(!dir.path().join("data").exists(), "nothing was written");
        let error = parse(&["--replica=A"]).unwrap_err();
        assert!(error.contains("use only a-z"), "{error}");
    }
}
