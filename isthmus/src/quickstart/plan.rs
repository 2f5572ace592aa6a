//! The ports, directories, names and times of the demonstration. All are fixed before the first process starts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::quickstart::period::HistoryPeriod;

/// The trust domain that quickstart creates.
pub(super) const TRUST_DOMAIN: &str = "quickstart.isthmus";
/// The value of the `environment` label of all series.
pub(super) const ENVIRONMENT: &str = "testing";

/// Which of the two gateways dials the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// The cluster dials out and has no listening port.
    DialsOut,
    /// The observability gateway dials the cluster.
    IsDialled,
}

/// One replica: a Prometheus with its sidecar, or a scraper of ours, which has the addresses of the sidecar.
#[derive(Clone, Debug)]
pub(super) struct Scraper {
    pub(super) name: String,
    pub(super) prometheus: SocketAddr,
    pub(super) sidecar_http: SocketAddr,
    pub(super) sidecar_grpc: SocketAddr,
}

/// One ruler. Both evaluate the same rules.
#[derive(Clone, Debug)]
pub(super) struct RulerPlan {
    /// Its name, and the value of its label `replica`.
    pub(super) name: String,
    pub(super) http: SocketAddr,
    pub(super) grpc: SocketAddr,
}

/// One client cluster.
#[derive(Clone, Debug)]
pub(super) struct ClusterPlan {
    pub(super) name: &'static str,
    pub(super) reach: Reach,
    /// Whether the sidecars upload blocks to the bucket; otherwise all data stays in the cluster.
    pub(super) long_term: bool,
    pub(super) dir: PathBuf,
    pub(super) gateway_http: SocketAddr,
    pub(super) gateway_grpc: SocketAddr,
    /// The address at which the gateway listens for the mesh, if the cluster is dialled.
    pub(super) gateway_mesh: SocketAddr,
    /// The listening address of the relay between this cluster and the observability cluster.
    pub(super) link: SocketAddr,
    pub(super) pushgateway: SocketAddr,
    pub(super) scrapers: Vec<Scraper>,
    /// Whether the scrapers are ours, without a Prometheus.
    pub(super) embedded: bool,
}

/// The whole demonstration.
#[derive(Clone, Debug)]
pub(super) struct QuickstartPlan {
    pub(super) dir: PathBuf,
    pub(super) logs: PathBuf,
    pub(super) pki_state: PathBuf,
    pub(super) pki_roots: PathBuf,
    pub(super) observability: PathBuf,
    /// The folder that is the bucket.
    pub(super) bucket: PathBuf,
    pub(super) querier_http: SocketAddr,
    pub(super) querier_grpc: SocketAddr,
    pub(super) gateway_http: SocketAddr,
    pub(super) gateway_grpc: SocketAddr,
    pub(super) gateway_mesh: SocketAddr,
    pub(super) store_http: SocketAddr,
    pub(super) store_grpc: SocketAddr,
    pub(super) compactor_http: SocketAddr,
    pub(super) compactor_grpc: SocketAddr,
    pub(super) rulers: Vec<RulerPlan>,
    /// Where Alertmanager listens, if it is installed.
    pub(super) alertmanager: SocketAddr,
    /// The time of the blocks that the bucket has at the start.
    pub(super) history: HistoryPeriod,
    pub(super) clusters: Vec<ClusterPlan>,
}

/// Number of consecutive ports, from the base port on.
pub(super) const PORTS: u16 = 40;

impl QuickstartPlan {
    /// Makes a plan with all files below `dir` and the [`PORTS`] ports from `base` on.
    pub(super) fn new(dir: &Path, base: u16) -> Self {
        let at = |offset: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, base + offset));
        let cluster = |name: &'static str, reach, long_term, first: u16| ClusterPlan {
            name,
            reach,
            long_term,
            dir: dir.join(name),
            gateway_http: at(first),
            gateway_grpc: at(first + 1),
            gateway_mesh: at(first + 2),
            link: at(first + 3),
            pushgateway: at(first + 4),
            scrapers: (0..2)
                .map(|replica| Scraper {
                    name: format!("scraper-{replica}"),
                    prometheus: at(first + 5 + replica * 3),
                    sidecar_http: at(first + 6 + replica * 3),
                    sidecar_grpc: at(first + 7 + replica * 3),
                })
                .collect(),
            embedded: false,
        };
        Self {
            dir: dir.to_owned(),
            logs: dir.join("logs"),
            pki_state: dir.join("pki/state"),
            pki_roots: dir.join("pki/offline-roots"),
            observability: dir.join("observability"),
            bucket: dir.join("observability/bucket"),
            querier_http: at(0),
            querier_grpc: at(1),
            gateway_http: at(2),
            gateway_grpc: at(3),
            gateway_mesh: at(4),
            store_http: at(5),
            store_grpc: at(6),
            compactor_http: at(7),
            compactor_grpc: at(8),
            rulers: (0..2)
                .map(|number| RulerPlan {
                    name: format!("ruler-{number}"),
                    http: at(36 + 2 * number),
                    grpc: at(37 + 2 * number),
                })
                .collect(),
            alertmanager: at(9),
            history: HistoryPeriod::before(SystemTime::now()),
            clusters: vec![
                cluster("eu-1", Reach::DialsOut, true, 10),
                cluster("us-1", Reach::IsDialled, false, 25),
            ],
        }
    }

    /// The same plan with scrapers of ours in these clusters.
    pub(super) fn embedding(mut self, is_embedded: impl Fn(&str) -> bool) -> Self {
        for cluster in &mut self.clusters {
            cluster.embedded = is_embedded(cluster.name);
        }
        self
    }

    /// Targets that the scrapers of all clusters scrape, and whose series do not come and go, so that what they see can be compared.
    pub(super) fn shared_targets(&self) -> [SocketAddr; 2] {
        [self.gateway_http, self.querier_http]
    }

    /// The name of `scraper` in the querier.
    pub(super) fn target(cluster: &ClusterPlan, scraper: &Scraper) -> String {
        format!("{}.{}", scraper.name, cluster.name)
    }

    /// The URLs of all processes, for programs: the content of `endpoints.json`.
    pub(super) fn endpoints(&self) -> Value {
        let url = |at: SocketAddr| format!("http://{at}");
        let scrapers = |of: fn(&ClusterPlan, &Scraper) -> SocketAddr| -> Value {
            let named = self.clusters.iter().flat_map(|cluster| {
                cluster.scrapers.iter().map(move |s| (Self::target(cluster, s), json!(url(of(cluster, s)))))
            });
            Value::Object(named.collect())
        };
        let gateways: serde_json::Map<String, Value> =
            std::iter::once(("observability".to_owned(), json!(url(self.gateway_http))))
                .chain(self.clusters.iter().map(|c| (c.name.to_owned(), json!(url(c.gateway_http)))))
                .collect();
        json!({
            "querier_http": url(self.querier_http),
            "querier_grpc": self.querier_grpc.to_string(),
            "store": url(self.store_http),
            "compactor": url(self.compactor_http),
            "rulers": self.rulers.iter().map(|ruler| url(ruler.http)).collect::<Vec<_>>(),
            "alertmanager": url(self.alertmanager),
            "gateways": gateways,
            "sidecars": scrapers(|_, s| s.sidecar_http),
            // A scraper of ours has the API of Prometheus.
            "prometheus": scrapers(|cluster, s| if cluster.embedded { s.sidecar_http } else { s.prometheus }),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_port_is_used_once_and_is_in_the_checked_range() {
        let plan = QuickstartPlan::new(Path::new("/x"), 20_000);
        let mut ports = vec![plan.querier_http, plan.querier_grpc, plan.gateway_http, plan.gateway_grpc];
        ports.extend([plan.gateway_mesh, plan.store_http, plan.store_grpc]);
        ports.extend([plan.compactor_http, plan.compactor_grpc, plan.alertmanager]);
        ports.extend(plan.rulers.iter().flat_map(|ruler| [ruler.http, ruler.grpc]));
        for c in &plan.clusters {
            ports.extend([c.gateway_http, c.gateway_grpc, c.gateway_mesh, c.link, c.pushgateway]);
            ports.extend(c.scrapers.iter().flat_map(|s| [s.prometheus, s.sidecar_http, s.sidecar_grpc]));
        }
        let unique: BTreeSet<u16> = ports.iter().map(SocketAddr::port).collect();
        assert_eq!(unique.len(), ports.len());
        assert!(unique.iter().all(|port| (20_000..20_000 + PORTS).contains(port)));
    }

    #[test]
    fn endpoints_contain_every_url() {
        let endpoints = QuickstartPlan::new(Path::new("/x"), 20_000).endpoints();
        assert_eq!(endpoints["querier_http"], "http://127.0.0.1:20000");
        assert_eq!(endpoints["compactor"], "http://127.0.0.1:20007");
        assert_eq!(endpoints["rulers"][1], "http://127.0.0.1:20038");
        assert_eq!(endpoints["alertmanager"], "http://127.0.0.1:20009");
        assert_eq!(endpoints["gateways"].as_object().map(|g| g.len()), Some(3));
        assert_eq!(endpoints["sidecars"]["scraper-1.us-1"], "http://127.0.0.1:20034");
        assert_eq!(endpoints["prometheus"].as_object().map(|p| p.len()), Some(4));
        assert_eq!(endpoints["prometheus"]["scraper-0.us-1"], "http://127.0.0.1:20030");
        let embedded = QuickstartPlan::new(Path::new("/x"), 20_000).embedding(|name| name == "us-1");
        assert_eq!(embedded.endpoints()["prometheus"]["scraper-0.us-1"], "http://127.0.0.1:20031");
        assert_eq!(embedded.endpoints()["prometheus"]["scraper-0.eu-1"], "http://127.0.0.1:20015");
    }
}
