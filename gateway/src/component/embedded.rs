//! The gateway of a client cluster as a part of another role, whose store is its only target.

use std::net::SocketAddr;

use futures::future::BoxFuture;
use httpclient::ProxyConfig;
use identity::Name;
use runtime::{CommonArgs, RoleError, Startup};

use crate::component::{cluster, member::Member, setup::Setup};
use crate::{
    config::{ClusterRole, ClusterTarget, Config, GatewayRole},
    metrics::GatewayMetrics,
};

/// Adds the gateway of a client cluster to a role that begins. It dials the addresses of the token, and offers the gRPC
/// server of the role as the target `name`. The role is ready while the gateway is connected, too; when the role stops, the
/// gateway stops first.
///
/// # Errors
/// The gRPC server has an address or TLS that cannot be used from here, or the token names no address to dial.
// Boxed here, so that callers in other crates do not compile the whole gateway again.
pub fn embed<'a>(
    member: Member,
    name: Name,
    common: &'a CommonArgs,
    startup: &'a mut Startup,
) -> BoxFuture<'a, Result<(), RoleError>> {
    Box::pin(async move {
        if common.grpc_tls.is_given() {
            return Err(RoleError::wrong_configuration(
                "--grpc-server-tls-*: the gateway of this process reads the gRPC port without TLS; remove the flags",
            ));
        }
        let address = within_host(startup.grpc_address()).to_string();
        let address = address.parse().map_err(|error| {
            RoleError::wrong_configuration(format!("--grpc-address={}: {error}", common.grpc_address))
        })?;
        let target = ClusterTarget { name, address, tls: None };
        let role = ClusterRole::for_join(vec![target], None);
        let data_dir = member.data_dir.path().to_owned();
        let config = Config {
            data_dir,
            transport: crate::transport::TransportChoice::default(),
            proxy: ProxyConfig::Environment,
            role: GatewayRole::Cluster(role.clone()),
        };
        let setup = Setup { config, config_file: None, token: None, join_file: None, common: common.clone() };
        let (metrics, probes) = (GatewayMetrics::new(startup.registry()), startup.probes().part());
        cluster::attach(&setup, role, member, probes, startup, metrics).await.map(drop)
    })
}

/// The address at which this host reaches a server that is bound to `bound`.
fn within_host(mut bound: SocketAddr) -> SocketAddr {
    if bound.ip().is_unspecified() {
        // A socket for all interfaces of IPv6 accepts IPv4, too, unless the system forbids it.
        let loopback = match bound {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        bound.set_ip(loopback);
    }
    bound
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_all_interfaces_is_reached_on_loopback() {
        let check = |bound: &str, expected: &str| {
            assert_eq!(within_host(bound.parse().unwrap()).to_string(), expected);
        };
        check("0.0.0.0:10901", "127.0.0.1:10901");
        check("[::]:10901", "[::1]:10901");
        check("127.0.0.1:1", "127.0.0.1:1");
        check("10.1.2.3:1", "10.1.2.3:1");
    }
}
