//! The DNS of the clusters, as CoreDNS answers: services, ports of services, and pods that have a name within a service.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use simple_dns::rdata::{A, RData, SRV};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::cluster::objects::ObjectId;
use crate::cluster::service::Service;
use crate::cluster::state::{Kube, Pod, Shared, State};

/// Seconds for which an answer may be kept.
const TTL: u32 = 5;

/// The longest message over UDP without extensions.
const MAX_UDP_BYTES: usize = 512;

/// What a name means.
enum Found {
    Addresses(Vec<Ipv4Addr>),
    /// Hosts with their ports.
    Hosts(Vec<(String, u16)>),
}

/// Answers questions over UDP and TCP until it is dropped.
pub(crate) async fn serve(shared: Arc<Shared>, udp: UdpSocket, tcp: TcpListener) {
    let mut buffer = [0; 4096];
    loop {
        tokio::select! {
            received = udp.recv_from(&mut buffer) => {
                let Ok((length, from)) = received else { continue };
                let answer = answer(&shared.read(), from.ip(), &buffer[..length], MAX_UDP_BYTES);
                if let Some(answer) = answer {
                    // The client asks again if the answer is lost.
                    drop(udp.send_to(&answer, from).await);
                }
            }
            accepted = tcp.accept() => {
                if let Ok((stream, from)) = accepted {
                    tokio::spawn(serve_stream(shared.clone(), stream, from));
                }
            }
        }
    }
}

async fn serve_stream(shared: Arc<Shared>, mut stream: TcpStream, from: SocketAddr) -> Option<()> {
    loop {
        let length = stream.read_u16().await.ok()?;
        let mut question = vec![0; usize::from(length)];
        stream.read_exact(&mut question).await.ok()?;
        let answer = answer(&shared.read(), from.ip(), &question, usize::from(u16::MAX))?;
        stream.write_u16(u16::try_from(answer.len()).ok()?).await.ok()?;
        stream.write_all(&answer).await.ok()?;
    }
}

/// The answer to the bytes of a question, of at most `max_bytes`; `None` if they are not a question.
fn answer(state: &State, from: IpAddr, bytes: &[u8], max_bytes: usize) -> Option<Vec<u8>> {
    let question = Packet::parse(bytes).ok().filter(|packet| !packet.has_flags(PacketFlag::RESPONSE))?;
    let asked = question.questions.first()?.clone();
    let name = asked.qname.to_string().to_lowercase();
    let found = state
        .kube_of(from)
        .and_then(|kube| kube_name(kube, &name))
        .or_else(|| state.public_names.get(&name).map(|address| Found::Addresses(vec![*address])));
    let records = match (&found, asked.qtype) {
        (Some(Found::Addresses(addresses)), QTYPE::TYPE(TYPE::A)) => {
            let data = |address: &Ipv4Addr| Some(RData::A(A { address: u32::from(*address) }));
            addresses.iter().filter_map(data).collect()
        }
        (Some(Found::Hosts(hosts)), QTYPE::TYPE(TYPE::SRV)) => hosts.iter().filter_map(srv).collect(),
        _ => Vec::new(),
    };
    let message = |records: &[RData<'static>], is_cut: bool| {
        let mut packet = Packet::new_reply(question.id());
        packet.set_flags(
            PacketFlag::RESPONSE | PacketFlag::AUTHORITATIVE_ANSWER | PacketFlag::RECURSION_AVAILABLE,
        );
        if question.has_flags(PacketFlag::RECURSION_DESIRED) {
            packet.set_flags(PacketFlag::RECURSION_DESIRED);
        }
        if is_cut {
            packet.set_flags(PacketFlag::TRUNCATION);
        }
        if found.is_none() {
            *packet.rcode_mut() = RCODE::NameError;
        }
        packet.questions.push(asked.clone());
        for data in records {
            packet.answers.push(ResourceRecord::new(asked.qname.clone(), CLASS::IN, TTL, data.clone()));
        }
        packet.build_bytes_vec_compressed().ok()
    };
    let whole = message(&records, false)?;
    if whole.len() <= max_bytes { Some(whole) } else { message(&[], true) }
}

fn srv((host, port): &(String, u16)) -> Option<RData<'static>> {
    let target = Name::new(host).ok()?.into_owned();
    Some(RData::SRV(SRV { priority: 0, weight: 100, port: *port, target }))
}

/// What a name of a cluster means: `SERVICE.NAMESPACE.svc.cluster.local`, with a pod or a port before it.
fn kube_name(kube: &Kube, name: &str) -> Option<Found> {
    let labels: Vec<&str> = name.strip_suffix(".svc.cluster.local")?.split('.').collect();
    let (namespace, labels) = labels.split_last()?;
    let (name, before) = labels.split_last()?;
    let (id, service) = kube.services().find(|(id, _)| id.namespace == *namespace && id.name == *name)?;
    let pods: Vec<&Pod> = kube.endpoints(id, service).collect();
    match before {
        [] if service.is_headless => Some(Found::Addresses(pods.iter().map(|pod| pod.address).collect())),
        [] => Some(Found::Addresses(vec![kube.addresses.get(id)?.cluster])),
        [port, protocol] if port.starts_with('_') => {
            Some(Found::Hosts(hosts(id, service, &pods, port, protocol)?))
        }
        [host] if service.is_headless => {
            let pod = pods.iter().find(|pod| pod_host(pod, id) == *host)?;
            Some(Found::Addresses(vec![pod.address]))
        }
        _ => None,
    }
}

/// The name of a pod within a service.
fn pod_host(pod: &Pod, service: &ObjectId) -> String {
    if pod.spec.subdomain.as_ref() == Some(&service.name) {
        pod.hostname().to_owned()
    } else {
        pod.address.to_string().replace('.', "-")
    }
}

fn hosts(
    id: &ObjectId,
    service: &Service,
    pods: &[&Pod],
    port: &str,
    protocol: &str,
) -> Option<Vec<(String, u16)>> {
    let port = service.ports.iter().find(|known| {
        !known.name.is_empty()
            && format!("_{}", known.name) == port
            && format!("_{}", known.protocol.name()) == protocol
    })?;
    let zone = format!("{}.{}.svc.cluster.local", id.name, id.namespace);
    if !service.is_headless {
        return Some(vec![(zone, port.port)]);
    }
    let host = |pod: &&Pod| Some((format!("{}.{zone}", pod_host(pod, id)), pod.at(&port.target)?.port()));
    Some(pods.iter().filter_map(host).collect())
}

#[cfg(test)]
mod tests {
    use simple_dns::{QCLASS, Question};

    use super::*;
    use crate::cluster::objects::parse;
    use crate::cluster::runner::reconcile;
    use crate::cluster::state::{Applied, Phase};

    const MANIFEST: &str = r#"
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: sql, port: 1, targetPort: sql}]}
---
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 40
  podManagementPolicy: Parallel
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: db, image: db, ports: [{name: sql, containerPort: 5432}]}]}
"#;

    /// A cluster whose pods run; those with an odd number are ready.
    fn state() -> State {
        let mut state = State::default();
        for (id, object) in parse(MANIFEST, "own").expect("objects") {
            state.kube_mut("one").objects.insert(id, Applied { release: String::new(), object });
        }
        state.kube_mut("two");
        state.public_names.insert("outside.test".to_owned(), Ipv4Addr::new(192, 0, 2, 1));
        reconcile(&mut state);
        for pod in &mut state.kube_mut("one").pods {
            pod.phase = Phase::Running;
            if pod.number % 2 == 1 {
                pod.set_ready("db", true);
            }
        }
        state
    }

    fn question(name: &str, kind: TYPE) -> Vec<u8> {
        let mut packet = Packet::new_query(7);
        let name = Name::new(name).expect("a name");
        packet.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
        packet.build_bytes_vec().expect("a question")
    }

    /// The records as text, from the answer over TCP.
    fn ask(state: &State, from: &str, name: &str, kind: TYPE) -> Result<Vec<String>, RCODE> {
        let from = from.parse().expect("an address");
        let bytes = answer(state, from, &question(name, kind), 65_535).expect("an answer");
        let packet = Packet::parse(&bytes).expect("a message");
        let text = |record: &ResourceRecord<'_>| match &record.rdata {
            RData::A(a) => Ipv4Addr::from(a.address).to_string(),
            RData::SRV(srv) => format!("{}:{}", srv.target, srv.port),
            other => format!("{other:?}"),
        };
        match packet.rcode() {
            RCODE::NoError => Ok(packet.answers.iter().map(text).collect()),
            code => Err(code),
        }
    }

    #[test]
    fn names_mean_what_they_mean_in_kubernetes() {
        let state = state();
        let one = |name: &str, kind: TYPE| ask(&state, "10.64.0.9", name, kind);
        assert_eq!(one("Web.own.svc.cluster.local", TYPE::A), Ok(vec!["10.128.0.2".to_owned()]));
        assert_eq!(one("web.own.svc.cluster.local", TYPE::AAAA), Ok(vec![]));
        let http = one("_http._tcp.web.own.svc.cluster.local", TYPE::SRV);
        assert_eq!(http, Ok(vec!["web.own.svc.cluster.local:80".to_owned()]));
        let ready = one("db.own.svc.cluster.local", TYPE::A).expect("addresses");
        assert_eq!(ready.len(), 20);
        let hosts = one("_sql._tcp.db.own.svc.cluster.local", TYPE::SRV).expect("hosts");
        assert_eq!((hosts.len(), &*hosts[0]), (20, "db-0.db.own.svc.cluster.local:5432"));
        assert_eq!(one("db-0.db.own.svc.cluster.local", TYPE::A), Ok(vec!["10.64.0.1".to_owned()]));
        for absent in [
            "db-1.db.own.svc.cluster.local",
            "web.other.svc.cluster.local",
            "_no._tcp.db.own.svc.cluster.local",
        ] {
            assert_eq!(one(absent, TYPE::A), Err(RCODE::NameError), "{absent}");
        }
        assert_eq!(one("outside.test", TYPE::A), Ok(vec!["192.0.2.1".to_owned()]));
        let two = ask(&state, "10.65.0.9", "web.own.svc.cluster.local", TYPE::A);
        assert_eq!(two, Err(RCODE::NameError), "each cluster has its own names");
    }

    #[test]
    fn long_answers_are_cut_and_damaged_questions_never_panic() {
        let state = state();
        let from = "10.64.0.9".parse().expect("an address");
        let whole = question("_sql._tcp.db.own.svc.cluster.local", TYPE::SRV);
        let short = answer(&state, from, &whole, MAX_UDP_BYTES).expect("an answer");
        assert!(short.len() <= MAX_UDP_BYTES);
        assert!(Packet::parse(&short).expect("a message").has_flags(PacketFlag::TRUNCATION));
        for at in 0..whole.len() {
            answer(&state, from, &whole[..at], MAX_UDP_BYTES);
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                answer(&state, from, &bytes, MAX_UDP_BYTES);
            }
        }
    }
}
