//! Names of hosts: whether they have addresses.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::net::lookup_host;

use crate::doctor::finding::Finding;

pub(super) const CHECK: &str = "DNS";

/// Time limit of a look-up.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A look-up that takes longer delays each new connection.
const SLOW: Duration = Duration::from_secs(1);

/// Looks up the host of each address, `HOST:PORT`, that the role connects to.
pub(super) async fn check(addresses: &[String]) -> Vec<Finding> {
    let hosts: BTreeSet<&str> = addresses.iter().map(|address| host(address)).collect();
    let mut findings = Vec::new();
    for host in hosts.into_iter().filter(|host| host.parse::<std::net::IpAddr>().is_err()) {
        findings.push(check_one(host).await);
    }
    findings
}

/// The host of `HOST:PORT`, an IPv6 address without brackets.
fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']'])
}

async fn check_one(host: &str) -> Finding {
    let began = Instant::now();
    match tokio::time::timeout(TIMEOUT, lookup_host((host, 0))).await {
        Err(_) => failed(host, &format!("no answer within {} s", TIMEOUT.as_secs())),
        Ok(Err(error)) => failed(host, &error.to_string()),
        Ok(Ok(addresses)) => {
            let addresses: BTreeSet<String> = addresses.map(|address| address.ip().to_string()).collect();
            let list = addresses.into_iter().collect::<Vec<_>>().join(", ");
            match (list.is_empty(), began.elapsed()) {
                (true, _) => failed(host, "has no address"),
                (_, took) if took >= SLOW => Finding::warning(
                    CHECK,
                    format!(
                        "{host}: {list}, after {:.1} s; look for a slow server in /etc/resolv.conf",
                        took.as_secs_f64()
                    ),
                ),
                _ => Finding::ok(CHECK, format!("{host}: {list}")),
            }
        }
    }
}

/// A name without an answer.
pub(super) fn failed(name: &str, why: &str) -> Finding {
    let advice = "check the name, /etc/resolv.conf, and the network policy for port 53";
    Finding::critical(CHECK, format!("{name}: {why}; {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Severity;

    #[tokio::test]
    async fn a_name_without_an_address_is_critical() {
        let findings = check(&["localhost:1".to_owned()]).await;
        assert!(
            findings[0].severity == Severity::Ok && findings[0].text.contains("127.0.0.1"),
            "{findings:?}"
        );
        let findings = check(&["no-such-host.invalid:1".to_owned()]).await;
        assert!(findings[0].severity == Severity::Critical, "{findings:?}");
        assert!(findings[0].text.starts_with("no-such-host.invalid: "), "{findings:?}");
        assert!(check(&["127.0.0.1:1".to_owned()]).await.is_empty());
        assert_eq!(host("[::1]:10"), "::1");
    }
}
