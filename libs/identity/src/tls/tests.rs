//! Handshakes in memory: a rustls client and a rustls server in one thread.

use std::{io, sync::Mutex};

use rustls::{
    ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion, ServerConnection,
    SignatureScheme::{ECDSA_NISTP256_SHA256, ECDSA_NISTP384_SHA384, ED25519},
};

use super::*;
use crate::{
    Denylist, PeerIdentity, RefusedCertificate,
    testing::{TestCa, now},
};

const ALPN: &[&[u8]] = &[b"isthmus-test/1"];

/// Runs a handshake until it is complete or one side fails.
pub(crate) fn handshake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), Error> {
    let name = ServerName::try_from("anything.example").unwrap();
    let mut client = ClientConnection::new(client, name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    let mut wire = Vec::new();
    for _ in 0..10 {
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        deliver(&mut wire, |bytes| server.read_tls(bytes));
        server.process_new_packets()?;
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        deliver(&mut wire, |bytes| client.read_tls(bytes));
        client.process_new_packets()?;
    }
    assert!(
        !client.is_handshaking() && !server.is_handshaking(),
        "the handshake is not complete after 10 round trips"
    );
    Ok((client, server))
}

fn deliver(wire: &mut Vec<u8>, mut read: impl FnMut(&mut dyn io::Read) -> io::Result<usize>) {
    let mut bytes = &wire[..];
    while !bytes.is_empty() && read(&mut bytes).unwrap() > 0 {}
    wire.clear();
}

fn store(ca: &TestCa, component: &str) -> Arc<CredentialStore> {
    CredentialStore::new(ca.leaf(component), ca.bundle(), now()).unwrap()
}

fn configs(ca: &TestCa, expectations: Expectations) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let client = client_config(&store(ca, "querier"), Expectations::default(), ALPN).unwrap();
    (client, server_config(&store(ca, "gateway"), expectations, ALPN).unwrap())
}

#[test]
fn two_peers_connect_with_post_quantum_key_exchange() {
    let ca = TestCa::new("a");
    let (client_cfg, server_cfg) = configs(&ca, Expectations::default());
    let (client, server) = handshake(client_cfg, server_cfg).unwrap();
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let group = client.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    assert_eq!(client.alpn_protocol(), Some(ALPN[0]));
    assert_eq!(server.server_name(), None, "the server name was sent in clear text");
    for (chain, component) in
        [(server.peer_certificates(), "querier"), (client.peer_certificates(), "gateway")]
    {
        let peer = verify_peer(chain.unwrap(), &ca.bundle(), now(), &Expectations::default()).unwrap();
        assert_eq!(peer.spiffe_id.component().as_str(), component);
    }
}

#[test]
fn tickets_resumption_and_early_data_are_off_on_both_sides() {
    let (client, server) = configs(&TestCa::new("a"), Expectations::default());
    assert_eq!(server.send_tls13_tickets, 0);
    assert_eq!(server.max_early_data_size, 0);
    assert!(!server.session_storage.can_cache() && !server.ticketer.enabled());
    assert!(!client.enable_early_data && !client.enable_sni);
    // `Resumption` has no getters; its Debug form names the session store, which stores nothing.
    assert!(format!("{:?}", client.resumption).contains("NoClientSessionStorage"), "{:?}", client.resumption);
    assert_eq!(crypto_provider().kx_groups[0].name(), NamedGroup::X25519MLKEM768);
    let schemes = [ECDSA_NISTP384_SHA384, ECDSA_NISTP256_SHA256, ED25519];
    let negotiated = handshake_schemes();
    assert!(
        negotiated.len() == 3 && schemes.iter().all(|scheme| negotiated.contains(scheme)),
        "{negotiated:?}"
    );
    assert!(crypto_provider().cipher_suites.iter().all(|suite| suite.tls13().is_some()));
}

#[test]
fn a_peer_denied_after_its_first_connection_is_refused_on_the_next() {
    #[derive(Default)]
    struct DenySwitch {
        on: Mutex<bool>,
        asked: Mutex<u32>,
    }
    impl Denylist for DenySwitch {
        fn denies(&self, _: &PeerIdentity) -> Option<String> {
            *self.asked.lock().unwrap() += 1;
            self.on.lock().unwrap().then(|| "revoked".to_owned())
        }
    }
    let ca = TestCa::new("a");
    let switch = Arc::new(DenySwitch::default());
    let (client, server) = configs(&ca, Expectations { denylist: switch.clone(), ..Default::default() });

    for expected in 1..=3 {
        let (ours, _) = handshake(client.clone(), server.clone()).unwrap();
        assert_eq!(ours.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(*switch.asked.lock().unwrap(), expected);
    }
    *switch.on.lock().unwrap() = true;
    let error = handshake(client, server).unwrap_err();
    let refused = RefusedCertificate::find_in(&error).unwrap();
    assert!(refused.to_string().ends_with("denied: revoked"), "{refused}");
}

#[test]
fn each_side_refuses_strangers_and_the_wrong_peer() {
    let (ours, theirs) = (TestCa::new("a"), TestCa::new("b"));
    let (client, server) = configs(&ours, Expectations::default());
    let (foreign_client, foreign_server) = configs(&theirs, Expectations::default());
    for (client, server) in [(foreign_client, server.clone()), (client, foreign_server)] {
        let error = handshake(client, server).unwrap_err();
        assert!(RefusedCertificate::find_in(&error).is_some(), "{error}");
    }
    let wants_other = Expectations { cluster: Some("us-1".parse().unwrap()), ..Default::default() };
    let client = client_config(&store(&ours, "querier"), wants_other, ALPN).unwrap();
    let error = handshake(client, server).unwrap_err();
    assert!(
        error.to_string().contains("expected *.us-1") && !error.to_string().contains("Reason"),
        "{error}"
    );
    let wrapped = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error));
    assert!(matches!(
        RefusedCertificate::find_in(&wrapped).unwrap().reason(),
        crate::RefusalReason::Unexpected { .. }
    ));
}

#[test]
fn a_client_without_certificate_or_without_our_protocol_is_refused() {
    let ca = TestCa::new("a");
    let (_, server) = configs(&ca, Expectations::default());
    let stranger = crate::enrolment_client_config(
        &"spiffe://test.example/cluster/eu-1/gateway".parse().unwrap(),
        &ca.bundle().pins().collect::<Vec<_>>(),
        ALPN,
    );
    // Only the enrolment listener presents roots, so the pinned verifier fails as well; either side may fail
    // first.
    assert!(handshake(stranger.unwrap(), server.clone()).is_err());
    let other = client_config(&store(&ca, "querier"), Expectations::default(), &[b"h2"]).unwrap();
    assert!(matches!(handshake(other, server), Err(Error::NoApplicationProtocol)));
}

#[test]
fn replaced_credentials_are_used_by_the_next_handshake_only() {
    let (old, new) = (TestCa::new("a"), TestCa::new("b"));
    let both = crate::TrustBundle::new(crate::testing::td(), [old.root_der(), new.root_der()]).unwrap();
    let (server_store, client_store) = (store(&old, "gateway"), store(&old, "querier"));
    let server = server_config(&server_store, Expectations::default(), ALPN).unwrap();
    let client = client_config(&client_store, Expectations::default(), ALPN).unwrap();
    let (before, _) = handshake(client.clone(), server.clone()).unwrap();

    server_store.replace(new.leaf("gateway"), both.clone(), now()).unwrap();
    assert!(handshake(client.clone(), server.clone()).is_err(), "the client does not know the new root yet");
    client_store.replace(old.leaf("querier"), both, now()).unwrap();
    let (after, _) = handshake(client, server).unwrap();
    assert_ne!(before.peer_certificates(), after.peer_certificates());
    assert_eq!(before.peer_certificates().unwrap()[1], old.issuing);
}
