use std::sync::Arc;

use super::*;
use crate::{
    testing::{TestCa, now, td},
    tls::tests::handshake,
};

const ALPN: &[&[u8]] = &[b"isthmus-enrol/1"];

fn server(ca: &TestCa, component: &str, standby: &TestCa) -> Arc<ServerConfig> {
    let bundle = TrustBundle::new(td(), [ca.root_der(), standby.root_der()]).unwrap();
    let store = CredentialStore::new(ca.leaf(component), bundle, now()).unwrap();
    enrolment_server_config(&store, ALPN).unwrap()
}

fn joiner(pinned: &[&TestCa]) -> Arc<ClientConfig> {
    let issuer = "spiffe://test.example/cluster/eu-1/gateway".parse().unwrap();
    let pins: Vec<_> = pinned.iter().map(|ca| SpkiPin::of_certificate(&ca.root_der()).unwrap()).collect();
    enrolment_client_config(&issuer, &pins, ALPN).unwrap()
}

fn refusal(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> String {
    let error = handshake(client, server).unwrap_err();
    RefusedCertificate::find_in(&error).unwrap_or_else(|| panic!("{error}")).to_string()
}

#[test]
fn a_joiner_without_certificate_connects_to_the_issuer_with_a_pinned_root() {
    let (active, standby) = (TestCa::new("active"), TestCa::new("standby"));
    let (client, server_end) =
        handshake(joiner(&[&active, &standby]), server(&active, "gateway", &standby)).unwrap();
    assert_eq!(client.alpn_protocol(), Some(ALPN[0]));
    assert!(server_end.peer_certificates().is_none());
    // One pin is enough if it pins the root above the issuer; the other root is then ignored.
    handshake(joiner(&[&active]), server(&active, "gateway", &standby)).unwrap();
}

#[test]
fn an_issuer_under_another_root_is_refused() {
    let (ours, theirs, standby) = (TestCa::new("a"), TestCa::new("b"), TestCa::new("c"));
    let error = refusal(joiner(&[&ours]), server(&theirs, "gateway", &standby));
    assert!(error.contains("no root that the token pins"), "{error}");
    // A server that also presents the pinned root, without a chain to it, is refused as well.
    let error = refusal(joiner(&[&ours]), server(&theirs, "gateway", &ours));
    assert!(error.contains("does not chain to a valid root"), "{error}");
}

#[test]
fn another_component_under_the_right_root_cannot_pose_as_the_issuer() {
    let (ca, standby) = (TestCa::new("a"), TestCa::new("b"));
    let error = refusal(joiner(&[&ca]), server(&ca, "querier", &standby));
    assert!(error.ends_with("expected gateway.eu-1"), "{error}");
}
