//! The configuration files of the gateways.

use std::path::Path;

use crate::quickstart::plan::{ClusterPlan, QuickstartPlan, Reach};

/// `gateway.yaml` of the observability cluster.
pub(super) fn observability(plan: &QuickstartPlan) -> String {
    let mut yaml = format!(
        "role: observability\ndata_dir: gateway\npki:\n  state: {}\nlisten: {}\n",
        quoted(&plan.pki_state),
        plan.gateway_mesh,
    );
    yaml.push_str("# A cluster that dials in needs no entry, because its token registered it.\nclusters:\n");
    for cluster in plan.clusters.iter().filter(|c| c.reach == Reach::IsDialled) {
        yaml.push_str(&format!("  - name: {}\n    dial: ['{}']\n", cluster.name, cluster.link));
    }
    yaml
}

/// `gateway.yaml` of a client cluster.
pub(super) fn cluster(cluster: &ClusterPlan) -> String {
    let mut yaml = "role: cluster\ndata_dir: gateway\n".to_owned();
    if cluster.reach == Reach::IsDialled {
        yaml.push_str(&format!("listen: {}\n", cluster.gateway_mesh));
    }
    yaml.push_str("targets:\n");
    for scraper in &cluster.scrapers {
        yaml.push_str(&format!("  - name: {}\n    address: {}\n", scraper.name, scraper.sidecar_grpc));
    }
    yaml
}

/// A path as a string of YAML.
pub(super) fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_characters_of_yaml_are_quoted() {
        assert_eq!(quoted(Path::new("/tmp/a")), "'/tmp/a'");
        assert_eq!(quoted(Path::new("/tmp/it's #1: b")), "'/tmp/it''s #1: b'");
        let plan = QuickstartPlan::new(Path::new("/tmp/it's #1: b"), 19_000);
        assert!(observability(&plan).contains("state: '/tmp/it''s #1: b/pki/state'\n"));
    }
}
