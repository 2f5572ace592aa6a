//! Bundles for Kubernetes: the objects themselves, or values for the Helm chart.
//!
//! The objects are those that the chart `isthmus-client` renders with the values of a bundle. `kubernetes.yaml` has them with the
//! [`PLACEHOLDERS`] in place of the values, and `kubernetes-gateways.yaml` those of several gateways; a test renders the chart again
//! and compares.

use crate::{
    cluster_bundle::{BundleFile, ClusterBundle, LAST_LINE, annotations, text::quoted},
    error::PkiError,
    token::JoinToken,
};

/// What the chart renders for one gateway.
const OBJECTS: &str = include_str!("kubernetes.yaml");
/// What it renders for several: they are spread over nodes, and not all stopped at once.
const OBJECTS_OF_SEVERAL: &str = include_str!("kubernetes-gateways.yaml");
/// How many gateways were rendered there.
const RENDERED_GATEWAYS: &str = "replicas: 9999";

/// Values with which `kubernetes.yaml` was rendered: cluster, environment and trust domain.
const PLACEHOLDERS: [&str; 3] =
    ["placeholder-cluster", "placeholder-environment", "placeholder-domain.example"];

/// Name of the Secret, as the chart expects it.
const SECRET: &str = "isthmus-join";

/// Refuses an environment that cannot be written into the objects, where it is in texts with different quotes.
///
/// # Errors
/// What is permitted.
pub(super) fn check_environment(environment: &str) -> Result<(), PkiError> {
    if environment.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c)) {
        return Ok(());
    }
    Err(PkiError::Usage(format!(
        "environment {environment:?}: only a-z, A-Z, 0-9, '-', '_' and '.' can be written into the objects; use --format helm"
    )))
}

/// One file that `kubectl apply` takes, and the Secret apart from it.
pub(super) fn kubernetes(bundle: &ClusterBundle<'_>) -> Vec<BundleFile> {
    let values = [bundle.cluster.as_str(), bundle.environment, bundle.trust_domain.as_str()];
    let objects = match bundle.gateways() {
        1 => OBJECTS.to_owned(),
        several => OBJECTS_OF_SEVERAL.replace(RENDERED_GATEWAYS, &format!("replicas: {several}")),
    };
    let objects = PLACEHOLDERS.iter().zip(values).fold(objects, |text, (from, to)| text.replace(from, to));
    let end = format!("# End of the objects of cluster {}", bundle.cluster);
    let head = format!(
        "# Cluster {} joins the mesh of {}: kubectl apply --server-side --namespace NAMESPACE --filename THIS_FILE\n{LAST_LINE}{end}\n",
        bundle.cluster, bundle.trust_domain
    );
    vec![secret(bundle), BundleFile::open("isthmus.yaml", head + &objects + &end + "\n")]
}

/// A values file for the chart `isthmus-client`, and the Secret that it names.
pub(super) fn helm(bundle: &ClusterBundle<'_>) -> Vec<BundleFile> {
    let ClusterBundle { cluster, expires_at, .. } = bundle;
    let gateways = match bundle.gateways() {
        1 => String::new(),
        several => format!("gateway:\n  replicas: {several}\n"),
    };
    let values = format!(
        "# Cluster {cluster}: kubectl apply --server-side --namespace NAMESPACE --filename secret.yaml
# and, before {expires_at}: helm install isthmus isthmus-client --namespace NAMESPACE --values values.yaml
cluster: {}
environment: {}
trustDomain: {}
join:
  existingSecret: {SECRET}
{gateways}",
        quoted(cluster.as_str()),
        quoted(bundle.environment),
        quoted(bundle.trust_domain.as_str()),
    );
    vec![BundleFile::open("values.yaml", values), secret(bundle)]
}

/// The Secret can be deleted after the gateways have joined. It has the labels of the other objects, so that what is left of a release is
/// found by them.
fn secret(bundle: &ClusterBundle<'_>) -> BundleFile {
    let ids: Vec<String> = bundle.tokens().map(JoinToken::id).collect();
    let head = format!(
        "---
apiVersion: v1
kind: Secret
metadata:
  name: {SECRET}
  labels:
    app.kubernetes.io/name: isthmus-client
    app.kubernetes.io/instance: isthmus-client
    app.kubernetes.io/component: gateway
    app.kubernetes.io/part-of: isthmus
  annotations:
    {}: {}
    {}: {}
type: Opaque
stringData:
",
        annotations::TOKEN_ID,
        quoted(&ids.join(",")),
        annotations::TOKEN_END,
        quoted(&bundle.expires_at),
    );
    let keys: Vec<String> = (0..bundle.gateways()).map(|at| format!("  token-{at}: \"")).collect();
    let tokens: Vec<_> = bundle.tokens().map(JoinToken::to_text).collect();
    let mut parts = vec![head.as_str()];
    for (key, token) in keys.iter().zip(&tokens) {
        // No character of a token has a meaning in a YAML scalar.
        parts.extend([key.as_str(), token.expose(), "\"\n"]);
    }
    BundleFile::secret("secret.yaml", &parts)
}
