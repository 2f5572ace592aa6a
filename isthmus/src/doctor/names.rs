//! Names of hosts: whether they have addresses.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::net::lookup_host;

use crate::doctor::finding::Finding;
use crate::doctor::subject::Subject;

const CHECK: &str = "DNS";

/// Time limit of a look-up.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A look-up that takes longer delays each new connection.
const SLOW: Duration = Duration::from_secs(1);

/// Looks each host up that the role connects to.
pub(super) async fn check(subject: &Subject) -> Vec<Finding> {
    let hosts: BTreeSet<&str> =
        subject.peers.iter().chain(&subject.stores).map(|address| host(address)).collect();
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
    let failed = |why: String| {
        let advice = "check the name, /etc/resolv.conf, and the network policy for port 53";
        Finding::critical(CHECK, format!("{host}: {why}; {advice}"))
    };
    match tokio::time::timeout(TIMEOUT, lookup_host((host, 0))).await {
        Err(_) => failed(format!("no answer within {} s", TIMEOUT.as_secs())),
        Ok(Err(error)) => failed(error.to_string()),
        Ok(Ok(addresses)) => {
            let addresses: BTreeSet<String> = addresses.map(|address| address.ip().to_string()).collect();
            let list = addresses.into_iter().collect::<Vec<_>>().join(", ");
            match (list.is_empty(), began.elapsed()) {
                (true, _) => failed("has no address".to_owned()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Severity;

    #[tokio::test]
    async fn a_name_without_an_address_is_critical() {
        let subject = |address: &str| Subject { peers: vec![address.to_owned()], ..Subject::default() };
        let findings = check(&subject("localhost:1")).await;
        assert!(
            findings[0].severity == Severity::Ok && findings[0].text.contains("127.0.0.1"),
            "{findings:?}"
        );
        let findings = check(&subject("no-such-host.invalid:1")).await;
        assert!(findings[0].severity == Severity::Critical, "{findings:?}");
        assert!(findings[0].text.starts_with("no-such-host.invalid: "), "{findings:?}");
        assert!(check(&subject("127.0.0.1:1")).await.is_empty());
        assert_eq!(host("[::1]:10"), "::1");
    }
}
