//! The resolver against a real DNS server.

use super::testing::DnsServer;
use super::*;

fn records(records: &[&str]) -> Vec<String> {
    records.iter().map(|record| (*record).to_owned()).collect()
}

fn service(host: &str, port: u16) -> ServiceHost {
    ServiceHost { host: host.to_owned(), port }
}

async fn addresses(resolver: &DnsResolver, host: &str, families: AddressFamilies) -> Vec<String> {
    let found = resolver.addresses(host, families).await.unwrap_or_else(|cause| panic!("{host}: {cause}"));
    found.iter().map(IpAddr::to_string).collect()
}

#[tokio::test]
async fn hosts_services_and_aliases_are_found() {
    let Some(server) = DnsServer::start(&records(&[
        "--host-record=a.test,10.0.0.1,fd00::1",
        "--host-record=b.test,10.0.0.2",
        "--host-record=six.test,fd00::6",
        "--address=/many.test/10.1.0.1",
        "--cname=alias.test,a.test",
        "--srv-host=_grpc._tcp.stores.test,a.test,10901",
        "--srv-host=_grpc._tcp.stores.test,b.test,10902",
    ])) else {
        return;
    };
    let resolver = DnsResolver::with_servers(vec![server.address()]);
    assert_eq!(addresses(&resolver, "a.test", AddressFamilies::One).await, ["10.0.0.1"]);
    assert_eq!(addresses(&resolver, "A.Test.", AddressFamilies::Both).await, ["10.0.0.1", "fd00::1"]);
    assert_eq!(addresses(&resolver, "a.test", AddressFamilies::V4).await, ["10.0.0.1"]);
    assert_eq!(addresses(&resolver, "a.test", AddressFamilies::V6).await, ["fd00::1"]);
    assert_eq!(addresses(&resolver, "six.test", AddressFamilies::One).await, ["fd00::6"]);
    assert_eq!(addresses(&resolver, "alias.test", AddressFamilies::One).await, ["10.0.0.1"]);
    assert_eq!(addresses(&resolver, "127.0.0.9", AddressFamilies::One).await, ["127.0.0.9"]);
    assert!(addresses(&resolver, "nothing.test", AddressFamilies::Both).await.is_empty());
    let found = resolver.services("_grpc._tcp.stores.test").await;
    assert_eq!(found, Ok(vec![service("a.test", 10901), service("b.test", 10902)]));
    assert_eq!(resolver.services("_grpc._tcp.nothing.test").await, Ok(vec![]));
}

#[tokio::test]
async fn answer_that_is_too_long_for_udp_is_read_over_tcp() {
    let hosts = (0..100).map(|i| format!("--srv-host=_grpc._tcp.many.test,store-{i}.test,10901"));
    let Some(server) = DnsServer::start(&hosts.collect::<Vec<_>>()) else { return };
    let resolver = DnsResolver::with_servers(vec![server.address()]);
    assert_eq!(resolver.services("_grpc._tcp.many.test").await.unwrap().len(), 100);
}

#[tokio::test]
async fn next_server_is_asked_and_the_last_failure_reported() {
    let Some(server) = DnsServer::start(&records(&["--host-record=a.test,10.0.0.1"])) else { return };
    // Nothing listens on this port: the system reports that at once.
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let resolver = DnsResolver::with_servers(vec![closed, server.address()]);
    assert_eq!(addresses(&resolver, "a.test", AddressFamilies::One).await, ["10.0.0.1"]);
    let resolver = DnsResolver::with_servers(vec![server.address(), closed]);
    // The server refuses names outside its zone.
    let error = resolver.addresses("x.example", AddressFamilies::One).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("DNS name x.example: server {closed}: ")), "{error}");
    let error = DnsResolver::with_servers(vec![server.address()]).services("x.example").await.unwrap_err();
    let refused = format!("DNS name x.example: server {}: answered Refused", server.address());
    assert_eq!(error.to_string(), refused);
    let error = resolver.services("a..b").await.unwrap_err();
    assert_eq!(error, DnsError::BadName("a..b".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn server_that_does_not_answer_is_given_up() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let resolver = DnsResolver::with_servers(vec![silent.local_addr().unwrap()]);
    let error = resolver.services("a.test").await.unwrap_err().to_string();
    assert!(error.ends_with(": no answer within 5s"), "{error}");
}
