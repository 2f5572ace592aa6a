//! Bundles for machines: systemd and compose.

use crate::cluster_bundle::{
    BundleFile, ClusterBundle, TOKEN_FILE,
    text::{description, gateway_yaml, prometheus_yaml},
};

/// The units of `deploy/systemd`.
const GATEWAY_UNIT: &str = include_str!("../../../deploy/systemd/isthmus-gateway.service");
const SCRAPE_UNIT: &str = include_str!("../../../deploy/systemd/isthmus-scrape.service");

/// The units run as users that exist only while they run. This gives them a group that may read the files.
const GROUP: &str = "[Service]\nSupplementaryGroups=isthmus\n";

/// Units of systemd, and the files that they read.
pub(super) fn systemd(bundle: &ClusterBundle<'_>) -> Vec<BundleFile> {
    vec![
        BundleFile::open("README", read_me(bundle, SYSTEMD_STEPS)),
        BundleFile::open("bundle.json", description(bundle, "systemd")),
        BundleFile::open("gateway.yaml", gateway_yaml(bundle, "127.0.0.1:10901")),
        BundleFile::open("prometheus.yml", prometheus_yaml(bundle, ["localhost:10902", "localhost:10942"])),
        BundleFile::open("isthmus-gateway.service", GATEWAY_UNIT.to_owned()),
        BundleFile::open("isthmus-scrape.service", SCRAPE_UNIT.to_owned()),
        BundleFile::open("group.conf", GROUP.to_owned()),
        BundleFile::secret(TOKEN_FILE, &[bundle.token.to_text().expose(), "\n"]),
    ]
}

/// A project of `docker compose`, and the files that its containers mount.
pub(super) fn compose(bundle: &ClusterBundle<'_>) -> Vec<BundleFile> {
    vec![
        BundleFile::open("README", read_me(bundle, COMPOSE_STEPS)),
        BundleFile::open("bundle.json", description(bundle, "compose")),
        BundleFile::open("compose.yaml", compose_yaml(bundle)),
        BundleFile::open("gateway.yaml", gateway_yaml(bundle, "scraper:10901")),
        BundleFile::open("prometheus.yml", prometheus_yaml(bundle, ["localhost:10902", "gateway:10942"])),
        BundleFile::secret(TOKEN_FILE, &[bundle.token.to_text().expose(), "\n"]),
    ]
}

fn read_me(bundle: &ClusterBundle<'_>, steps: &str) -> String {
    let ClusterBundle { cluster, trust_domain, environment, expires_at, .. } = bundle;
    format!(
        "With these files, cluster {cluster} ({environment}) joins the mesh of {trust_domain}. The token works once, until {expires_at}.

To see what they do, and what the observability side will be able to read:

    isthmus pki cluster bundle verify .

{steps}"
    )
}

const SYSTEMD_STEPS: &str = "To apply them on a machine with the program in /usr/local/bin/isthmus:

    groupadd --system --force isthmus
    install -d /etc/isthmus
    install -m 640 -g isthmus gateway.yaml prometheus.yml token /etc/isthmus/
    install -m 644 isthmus-gateway.service isthmus-scrape.service /etc/systemd/system/
    install -m 644 -D group.conf /etc/systemd/system/isthmus-gateway.service.d/group.conf
    install -m 644 -D group.conf /etc/systemd/system/isthmus-scrape.service.d/group.conf
    systemctl daemon-reload
    systemctl enable --now isthmus-scrape isthmus-gateway

The cluster is connected when `curl http://127.0.0.1:10942/-/ready` says OK. Then remove the token: it cannot be used again.

    rm token /etc/isthmus/token

Write what is to be scraped into /etc/isthmus/prometheus.yml, and run `systemctl reload isthmus-scrape`. With a Prometheus of your own,
leave isthmus-scrape out, give Prometheus the same external labels, and run `isthmus sidecar` beside it.
";

const COMPOSE_STEPS: &str = "To apply them, with the image of the program as isthmus:latest (or ISTHMUS_IMAGE=... in front):

    chown -R 65534:65534 .
    docker compose up --detach

The cluster is connected when `docker compose ps` shows the gateway as running and its log says `joined the mesh`. Then remove the
token: it cannot be used again. Write what is to be scraped into prometheus.yml, and run `docker compose kill --signal HUP scraper`.
";

fn compose_yaml(bundle: &ClusterBundle<'_>) -> String {
    COMPOSE.replace("CLUSTER", bundle.cluster.as_str())
}

/// The folder is mounted as a whole, because a file that is mounted alone cannot be removed.
const COMPOSE: &str = "name: isthmus-CLUSTER
x-isthmus: &isthmus
  image: ${ISTHMUS_IMAGE:-isthmus:latest}
  user: '65534:65534'
  read_only: true
  cap_drop: [ALL]
  security_opt: ['no-new-privileges:true']
  restart: unless-stopped
  stop_grace_period: 150s
services:
  scraper:
    <<: *isthmus
    command:
      - scrape
      - --config.file=/etc/isthmus/prometheus.yml
      - --data-dir=/var/lib/isthmus/scrape
    volumes: ['.:/etc/isthmus:ro', 'scraper:/var/lib/isthmus']
  gateway:
    <<: *isthmus
    command:
      - gateway
      - --config=/etc/isthmus/gateway.yaml
      - --join-file=/etc/isthmus/token
    volumes: ['.:/etc/isthmus:ro', 'gateway:/var/lib/isthmus']
volumes:
  scraper:
  gateway:
";
