//! Texts that several formats have.

use crate::cluster_bundle::{BUNDLE_METHODS, ClusterBundle};

/// A text as a YAML scalar in double quotes, which is also its JSON.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The configuration of the gateway, whose store is at `store`.
pub(super) fn gateway_yaml(bundle: &ClusterBundle<'_>, store: &str) -> String {
    let (domain, cluster, methods) = (bundle.trust_domain, bundle.cluster, BUNDLE_METHODS.join(", "));
    format!(
        "# The gateway of cluster {cluster}.
role: cluster
data_dir: /var/lib/isthmus/gateway
# Whom this file is for: a token or a certificate of another cluster is refused.
identity: {{trust_domain: {domain}, cluster: {cluster_text}, environment: {environment}}}
# The stores that the observability side can read, as scraper-0.{cluster}. Their addresses stay in this file.
targets:
  - name: scraper-0
    address: {store}
# What it may request is: {methods}, of all series. To allow less, for example:
# policy: {{select: '{{namespace=~\"shop-.*\"}}', max_age: 30d}}
",
        domain = quoted(domain.as_str()),
        cluster_text = quoted(cluster.as_str()),
        environment = quoted(bundle.environment),
    )
}

/// The configuration of a scraper that has the external labels of the registration and scrapes `targets`, which are those of
/// the bundle itself.
pub(super) fn prometheus_yaml(bundle: &ClusterBundle<'_>, targets: [&str; 2]) -> String {
    // In external labels, `$NAME` is a variable of the environment.
    let environment = quoted(&bundle.environment.replace('$', "$$"));
    let cluster = quoted(bundle.cluster.as_str());
    format!(
        "global:
  scrape_interval: 30s
  # `cluster` and `environment` are those of the registration; stores with others are not read.
  external_labels: {{cluster: {cluster}, environment: {environment}, replica: \"0\"}}
scrape_configs:
  - job_name: isthmus
    static_configs:
      - targets: ['{}', '{}']
",
        targets[0], targets[1]
    )
}

/// What `verify` reads where the token has no annotations: which token it is, and when it ends.
pub(super) fn description(bundle: &ClusterBundle<'_>, format: &str) -> String {
    let token = serde_json::json!({"id": bundle.token.id(), "expires_at": bundle.expires_at});
    format!("{:#}\n", serde_json::json!({"v": 1, "format": format, "token": token}))
}
