//! Starts the demonstration, cluster by cluster, and stops it. `bucket.rs` starts what works on the bucket, `rulers.rs` what
//! evaluates rules, and `waiting.rs` waits until the processes work.

mod bucket;
mod rulers;
mod waiting;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::quickstart::child::Child;
use crate::quickstart::gateways;
use crate::quickstart::history;
use crate::quickstart::http::Http;
use crate::quickstart::link::ClusterLink;
use crate::quickstart::plan::{ClusterPlan, ENVIRONMENT, QuickstartPlan, Reach, Scraper, TRUST_DOMAIN};
use crate::quickstart::ports::ReservedPorts;
use crate::quickstart::prometheus;
use crate::quickstart::querier::{QuerierClient, wait_for};
use crate::quickstart::seeded::SeededAnswers;

/// How long one process may take to start.
const START: Duration = Duration::from_secs(60);

/// All processes of the demonstration. Dropping it kills them; [`Demonstration::stop`] stops them in order.
pub(super) struct Demonstration {
    plan: QuickstartPlan,
    program: PathBuf,
    /// `None` if all scrapers are ours.
    prometheus: Option<PathBuf>,
    pushgateway: Option<PathBuf>,
    alertmanager: Option<PathBuf>,
    children: Vec<Child>,
    links: Vec<(&'static str, ClusterLink)>,
    http: Http,
    ports: ReservedPorts,
    /// What the history answered before the compactor was started.
    seeded: Option<SeededAnswers>,
}

impl Demonstration {
    pub(super) fn new(
        plan: QuickstartPlan,
        prometheus: Option<PathBuf>,
        ports: ReservedPorts,
    ) -> Result<Self> {
        Ok(Self {
            plan,
            program: std::env::current_exe().context("find the path of this program")?,
            prometheus,
            pushgateway: prometheus::find("prometheus-pushgateway")
                .or_else(|| prometheus::find("pushgateway")),
            alertmanager: prometheus::find("prometheus-alertmanager")
                .or_else(|| prometheus::find("alertmanager")),
            children: Vec::new(),
            links: Vec::new(),
            http: Http::new(Duration::from_secs(5)),
            ports,
            seeded: None,
        })
    }

    pub(super) fn plan(&self) -> &QuickstartPlan {
        &self.plan
    }

    pub(super) fn querier(&self) -> QuerierClient {
        QuerierClient::new(self.plan.querier_http)
    }

    /// Whether a pushgateway runs in each cluster.
    pub(super) fn has_pushgateway(&self) -> bool {
        self.pushgateway.is_some()
    }

    /// Creates the roots and the issuing CA.
    pub(super) async fn create_trust_domain(&self) -> Result<()> {
        let QuickstartPlan { pki_state, pki_roots, .. } = &self.plan;
        create_dir(&self.plan.dir.join("pki"))?;
        let passphrase = self.plan.dir.join("pki/root-passphrase");
        write_private(&passphrase, "a demonstration needs no secret passphrase\n")?;
        self.run(&[
            "pki",
            "init",
            "--trust-domain",
            TRUST_DOMAIN,
            "--state",
            &text(pki_state),
            "--root-out",
            &text(pki_roots),
            "--root-passphrase-file",
            &text(&passphrase),
        ])
        .await?;
        Ok(())
    }

    /// Starts the observability cluster: its gateway and the querier.
    pub(super) async fn start_observability(&mut self) -> Result<()> {
        let plan = self.plan.clone();
        create_dir(&plan.observability)?;
        let config = plan.observability.join("gateway.yaml");
        write(&config, &gateways::observability(&plan))?;
        for cluster in &plan.clusters {
            let to = match cluster.reach {
                Reach::DialsOut => plan.gateway_mesh,
                Reach::IsDialled => cluster.gateway_mesh,
            };
            self.ports.release(&[cluster.link]);
            self.links.push((cluster.name, ClusterLink::open(cluster.link, to).await?));
        }
        let mut gateway = vec!["gateway".to_owned(), format!("--config={}", config.display())];
        gateway.extend(addresses(plan.gateway_http, plan.gateway_grpc));
        self.ports.release(&[plan.gateway_http, plan.gateway_grpc, plan.gateway_mesh]);
        self.start("gateway observability", gateway)?;
        let mut querier = vec![
            "query".to_owned(),
            format!("--gateway={}", plan.gateway_grpc),
            format!("--endpoint-strict={}", plan.store_grpc),
            "--query.replica-label=replica".to_owned(),
        ];
        querier.extend(plan.rulers.iter().map(|ruler| format!("--endpoint-strict={}", ruler.grpc)));
        querier.extend(addresses(plan.querier_http, plan.querier_grpc));
        self.ports.release(&[plan.querier_http, plan.querier_grpc]);
        self.start("querier", querier)?;
        // The querier is ready when it knows its stores: the rulers are two of them.
        self.wait_ready("gateway observability", plan.gateway_http).await
    }

    /// Starts the processes of a cluster: the scrapers, and a gateway that joins with one token.
    pub(super) async fn start_cluster(&mut self, cluster: &ClusterPlan) -> Result<()> {
        for scraper in &cluster.scrapers {
            let dir = cluster.dir.join(&scraper.name);
            // A sidecar that uploads may start before Prometheus has created the folder.
            create_dir(&dir.join("data"))?;
            let configuration =
                prometheus::configuration(&self.plan, cluster, scraper, self.has_pushgateway());
            write(&dir.join("prometheus.yml"), &configuration)?;
        }
        if let Some(pushgateway) = self.pushgateway.clone() {
            let args = vec![format!("--web.listen-address={}", cluster.pushgateway)];
            self.ports.release(&[cluster.pushgateway]);
            self.start_program(&format!("pushgateway {}", cluster.name), &pushgateway, args)?;
        }
        for scraper in &cluster.scrapers {
            self.start_scraper(cluster, scraper)?;
        }

        let token = self.token_file(cluster.name);
        let address = match cluster.reach {
            Reach::DialsOut => cluster.link,
            Reach::IsDialled => self.plan.gateway_mesh,
        };
        self.run(&[
            "pki",
            "token",
            "create",
            "--state",
            &text(&self.plan.pki_state),
            "--cluster",
            cluster.name,
            "--environment",
            ENVIRONMENT,
            "--address",
            &address.to_string(),
            "--out",
            &text(&token),
        ])
        .await?;
        let config = cluster.dir.join("gateway.yaml");
        write(&config, &gateways::cluster(cluster))?;
        let mut gateway = vec![
            "gateway".to_owned(),
            format!("--config={}", config.display()),
            format!("--join-file={}", token.display()),
        ];
        gateway.extend(addresses(cluster.gateway_http, cluster.gateway_grpc));
        self.ports.release(&[cluster.gateway_http, cluster.gateway_grpc, cluster.gateway_mesh]);
        self.start(&format!("gateway {}", cluster.name), gateway)?;
        self.wait_ready(&format!("gateway {}", cluster.name), cluster.gateway_http).await?;
        if self.has_pushgateway() {
            self.push_batch_job(cluster).await?;
        }
        Ok(())
    }

    fn start_scraper(&mut self, cluster: &ClusterPlan, scraper: &Scraper) -> Result<()> {
        let name = QuickstartPlan::target(cluster, scraper);
        self.ports.release(&[scraper.prometheus, scraper.sidecar_http, scraper.sidecar_grpc]);
        let prometheus = self.prometheus.clone().filter(|_| !cluster.embedded);
        let Some(program) = prometheus else {
            let mut args = prometheus::embedded_arguments(&self.plan, cluster, scraper);
            args.extend(addresses(scraper.sidecar_http, scraper.sidecar_grpc));
            return self.start(&format!("scraper {name}"), args);
        };
        self.start_program(&format!("prometheus {name}"), &program, prometheus::arguments(cluster, scraper))?;
        let mut sidecar = vec![
            "sidecar".to_owned(),
            format!("--prometheus.url=http://{}", scraper.prometheus),
            format!("--tsdb.path={}", cluster.dir.join(&scraper.name).join("data").display()),
            "--prometheus.get_config_interval=5s".to_owned(),
        ];
        if cluster.long_term {
            sidecar.push(history::bucket_flag(&self.plan));
        }
        sidecar.extend(addresses(scraper.sidecar_http, scraper.sidecar_grpc));
        self.start(&format!("sidecar {name}"), sidecar)
    }

    /// Pushes a metric of a fictitious nightly job, so that the pushgateway has a series.
    async fn push_batch_job(&self, cluster: &ClusterPlan) -> Result<()> {
        let url = format!("http://{}/metrics/job/nightly_backup", cluster.pushgateway);
        let metrics = "# TYPE backup_size_bytes gauge\nbackup_size_bytes 1.2e9\n";
        wait_for(&format!("pushgateway {}", cluster.name), START, || async {
            let (status, body) = self.http.send("PUT", &url, metrics).await?;
            ensure!(status == 200, "{url}: status {status}: {}", String::from_utf8_lossy(&body));
            Ok(())
        })
        .await
    }

    /// The token with which `cluster` joined. It has been used.
    pub(super) fn token(&self, cluster: &str) -> Result<String> {
        let file = self.token_file(cluster);
        let token = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        Ok(token.trim().to_owned())
    }

    fn token_file(&self, cluster: &str) -> PathBuf {
        self.plan.dir.join(format!("{cluster}.token"))
    }

    /// Starts a gateway that tries to join with `token`, expects that it is refused for the reason `why`, and returns its
    /// last line of output.
    pub(super) async fn join_is_refused(&self, name: &str, token: &str, why: &str) -> Result<String> {
        let dir = self.plan.dir.join(name);
        create_dir(&dir)?;
        let file = dir.join("token");
        write_private(&file, token)?;
        let any = "127.0.0.1:0";
        let join = Command::new(&self.program)
            .args(["gateway", "--join-file", &text(&file), "--data-dir", &text(&dir.join("data"))])
            .args(["--http-address", any, "--grpc-address", any])
            .kill_on_drop(true)
            .output();
        let output =
            tokio::time::timeout(START, join).await.context("the gateway neither joined nor exited")??;
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().last().unwrap_or("nothing").trim().to_owned();
        ensure!(!output.status.success(), "the gateway joined: {line}");
        let is_refused = output.status.code() == Some(2) && line.contains(why);
        ensure!(is_refused, "the gateway failed for another reason: {}: {line}", output.status);
        Ok(format!("{}: {line}", output.status))
    }

    /// Kills one child, which simulates a crash.
    async fn kill(&mut self, name: &str) -> Result<()> {
        let child = self.children.iter_mut().find(|c| c.name() == name);
        child.with_context(|| format!("there is no child with the name {name}"))?.kill().await?;
        self.children.retain(|c| c.name() != name);
        Ok(())
    }

    /// Kills all processes of a cluster, or of one of its replicas.
    pub(super) async fn kill_all_of(&mut self, name: &str) -> Result<()> {
        let is_concerned = |c: &Child| c.name().ends_with(name);
        let names: Vec<String> =
            self.children.iter().filter(|c| is_concerned(c)).map(|c| c.name().to_owned()).collect();
        for name in names {
            self.kill(&name).await?;
        }
        Ok(())
    }

    /// Blocks or unblocks UDP between a cluster and the observability cluster.
    pub(super) fn block_udp(&self, cluster: &str, blocked: bool) -> Result<()> {
        let link = self.links.iter().find(|(name, _)| *name == cluster);
        link.with_context(|| format!("there is no link to {cluster}"))?.1.block_udp(blocked);
        Ok(())
    }

    /// Name and process id of each running child.
    pub(super) fn running(&self) -> Vec<(String, u32)> {
        self.children.iter().filter_map(|c| Some((c.name().to_owned(), c.id()?))).collect()
    }

    /// Stops all children in reverse order of their start.
    pub(super) async fn stop(mut self) -> Result<()> {
        while let Some(mut child) = self.children.pop() {
            child.stop().await?;
        }
        Ok(())
    }

    fn start(&mut self, name: &str, args: Vec<String>) -> Result<()> {
        let program = self.program.clone();
        self.start_program(name, &program, args)
    }

    fn start_program(&mut self, name: &str, program: &Path, args: Vec<String>) -> Result<()> {
        self.children.push(Child::start(name, program, &args, &self.plan.logs)?);
        Ok(())
    }

    /// Runs one command of this program and waits until it exits.
    async fn run(&self, args: &[&str]) -> Result<()> {
        let output = Command::new(&self.program).args(args).kill_on_drop(true).output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().trim_start_matches("error: ");
        ensure!(output.status.success(), "isthmus {}: {said}", args[..2].join(" "));
        Ok(())
    }
}

/// The flags for the two addresses of a role, and its log level.
fn addresses(http: SocketAddr, grpc: SocketAddr) -> [String; 3] {
    [format!("--http-address={http}"), format!("--grpc-address={grpc}"), "--log.level=info".to_owned()]
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

pub(super) fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))
}

pub(super) fn write(path: &Path, content: &str) -> Result<()> {
    fs::write(path, content).with_context(|| format!("write {}", path.display()))
}

/// Writes a file that only its owner may read.
fn write_private(path: &Path, content: &str) -> Result<()> {
    write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .with_context(|| format!("set the permissions of {}", path.display()))
}
