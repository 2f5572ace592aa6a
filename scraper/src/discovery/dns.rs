//! Names in DNS as targets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::join_all;
use model::Labels;
use prometheus_client::metrics::counter::Counter;
use runtime::{AddressFamilies, DnsError, DnsResolver, DomainHosts};

use crate::config::{DnsDiscoveryConfig, DnsRecordKind, TargetGroup};
use crate::discovery::found::Found;

/// Looks the names up, again and again; forever. A name that cannot be looked up keeps its targets.
pub(super) async fn follow(config: DnsDiscoveryConfig, found: Arc<Found>, failures: Counter) {
    let mut known: BTreeMap<String, TargetGroup> = BTreeMap::new();
    loop {
        match DnsResolver::system() {
            Ok(resolver) => refresh(&config, &resolver, &mut known, &failures).await,
            Err(error) => {
                failures.inc();
                tracing::warn!(error = %error, "names of targets cannot be looked up");
            }
        }
        found.publish(known.values().cloned().collect());
        tokio::time::sleep(config.refresh_interval).await;
    }
}

async fn refresh(
    config: &DnsDiscoveryConfig,
    resolver: &DnsResolver,
    known: &mut BTreeMap<String, TargetGroup>,
    failures: &Counter,
) {
    let asked = config.names.iter().map(|name| async move { (name, look_up(config, resolver, name).await) });
    for (name, answer) in join_all(asked).await {
        match answer {
            Ok(group) => drop(known.insert(name.clone(), group)),
            Err(error) => {
                failures.inc();
                tracing::warn!(name, error = %error, "a name of targets cannot be looked up, keeping its targets");
            }
        }
    }
}

async fn look_up(
    config: &DnsDiscoveryConfig,
    resolver: &DnsResolver,
    name: &str,
) -> Result<TargetGroup, DnsError> {
    let target = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().copied().chain([("__meta_dns_name", name)]);
        // A name from DNS is text, and the names of labels are different.
        Labels::from_pairs(pairs).unwrap_or_default()
    };
    let families = match config.kind {
        DnsRecordKind::A => AddressFamilies::V4,
        DnsRecordKind::Aaaa => AddressFamilies::V6,
        DnsRecordKind::Mx | DnsRecordKind::Ns => {
            let (hosts, label) = match config.kind {
                DnsRecordKind::Mx => (DomainHosts::Mail, "__meta_dns_mx_record_target"),
                _ => (DomainHosts::Name, "__meta_dns_ns_record_target"),
            };
            let hosts = resolver.hosts(name, hosts).await?;
            let targets = hosts.iter().map(|host| {
                let address = format!("{host}:{}", config.port);
                target(&[("__address__", &address), (label, &format!("{host}."))])
            });
            return Ok(TargetGroup { targets: targets.collect(), labels: Labels::empty() });
        }
        DnsRecordKind::Srv => {
            let services = resolver.services(name).await?;
            let targets = services.iter().map(|service| {
                let port = service.port.to_string();
                target(&[
                    ("__address__", &format!("{}:{port}", service.host)),
                    ("__meta_dns_srv_record_target", &format!("{}.", service.host)),
                    ("__meta_dns_srv_record_port", &port),
                ])
            });
            return Ok(TargetGroup { targets: targets.collect(), labels: Labels::empty() });
        }
    };
    let addresses = resolver.addresses(name, families).await?;
    let targets = addresses
        .iter()
        .map(|address| target(&[("__address__", &SocketAddr::new(*address, config.port).to_string())]));
    Ok(TargetGroup { targets: targets.collect(), labels: Labels::empty() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runtime::DnsServer;

    use super::*;

    fn config(kind: DnsRecordKind, name: &str) -> DnsDiscoveryConfig {
        DnsDiscoveryConfig {
            names: vec![name.to_owned()],
            kind,
            port: 80,
            refresh_interval: Duration::from_secs(30),
        }
    }

    #[tokio::test]
    async fn records_become_targets_and_a_name_that_fails_keeps_them() {
        let records = [
            "--host-record=a.test,10.0.0.1,fd00::1",
            "--srv-host=_m._tcp.test,b.test,9100",
            "--mx-host=mail.test,c.test,10",
            // A record of type 2, NS: the name ns.test.
            "--dns-rr=zone.test,2,026e73047465737400",
        ];
        let Some(server) = DnsServer::start(&records.map(str::to_owned)) else { return };
        let resolver = DnsResolver::with_servers(vec![server.address()]);
        let failures = Counter::default();
        let mut known = BTreeMap::new();
        let mut check = async |kind, name: &str, expected: &[&str]| {
            known.clear();
            refresh(&config(kind, name), &resolver, &mut known, &failures).await;
            let targets: Vec<String> = known[name].targets.iter().map(ToString::to_string).collect();
            assert_eq!(targets, expected);
        };
        check(DnsRecordKind::A, "a.test", &[r#"{__address__="10.0.0.1:80", __meta_dns_name="a.test"}"#])
            .await;
        check(DnsRecordKind::Aaaa, "a.test", &[r#"{__address__="[fd00::1]:80", __meta_dns_name="a.test"}"#])
            .await;
        let srv = r#"{__address__="b.test:9100", __meta_dns_name="_m._tcp.test", __meta_dns_srv_record_port="9100", __meta_dns_srv_record_target="b.test."}"#;
        check(DnsRecordKind::Srv, "_m._tcp.test", &[srv]).await;
        let mx = r#"{__address__="c.test:80", __meta_dns_mx_record_target="c.test.", __meta_dns_name="mail.test"}"#;
        check(DnsRecordKind::Mx, "mail.test", &[mx]).await;
        let ns = r#"{__address__="ns.test:80", __meta_dns_name="zone.test", __meta_dns_ns_record_target="ns.test."}"#;
        check(DnsRecordKind::Ns, "zone.test", &[ns]).await;
        check(DnsRecordKind::Ns, "a.test", &[]).await;
        check(DnsRecordKind::A, "none.test", &[]).await;
        let a = config(DnsRecordKind::A, "a.test");
        refresh(&a, &resolver, &mut known, &failures).await;
        let nowhere = DnsResolver::with_servers(vec![([127, 0, 0, 1], 1).into()]);
        refresh(&a, &nowhere, &mut known, &failures).await;
        assert_eq!((known["a.test"].targets.len(), failures.get()), (1, 1));
    }
}
