//! Questions and answers as bytes. Format: RFC 1035, RFC 2782.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, RCODE, TYPE};

use crate::dns::ServiceHost;

/// Longest name and longest part of a name, in bytes.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// What is asked about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuestionType {
    /// Its addresses of IPv4.
    A,
    /// Its addresses of IPv6.
    Aaaa,
    /// The hosts of a service.
    Srv,
    /// Its mail servers.
    Mx,
    /// Its name servers.
    Ns,
}

impl QuestionType {
    fn as_dns(self) -> TYPE {
        match self {
            Self::A => TYPE::A,
            Self::Aaaa => TYPE::AAAA,
            Self::Srv => TYPE::SRV,
            Self::Mx => TYPE::MX,
            Self::Ns => TYPE::NS,
        }
    }
}

/// A question with its number, which an answer must repeat.
pub(super) struct Question {
    id: u16,
    name: String,
    kind: QuestionType,
    pub(super) bytes: Vec<u8>,
}

/// One record of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RecordData {
    Address(IpAddr),
    Service(ServiceHost),
    Host(String),
}

/// The answer about a name that exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) records: Vec<RecordData>,
    /// The last alias of the name in this answer.
    pub(super) alias: Option<String>,
}

/// What the bytes of a server mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The answer; `None` if the name does not exist.
    Complete(Option<Answer>),
    /// The answer is too long for UDP.
    Truncated,
    /// Not an answer to this question.
    Foreign,
    /// The server cannot answer.
    Failed(String),
}

impl Question {
    /// A question; `None` if `name` is not a valid name.
    pub(super) fn new(name: &str, kind: QuestionType) -> Option<Self> {
        let id = rand::random();
        let mut packet = Packet::new_query(id);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let is_valid =
            name.len() <= MAX_NAME && name.split('.').all(|label| (1..=MAX_LABEL).contains(&label.len()));
        let question = Name::new(name).ok().filter(|_| is_valid)?;
        let class = QCLASS::CLASS(CLASS::IN);
        packet.questions.push(simple_dns::Question::new(question, QTYPE::TYPE(kind.as_dns()), class, false));
        let bytes = packet.build_bytes_vec().ok()?;
        Some(Self { id, name: name.to_owned(), kind, bytes })
    }

    /// Reads what a server sent.
    pub(super) fn reply(&self, bytes: &[u8]) -> Reply {
        let Ok(wanted) = Name::new(&self.name) else { return Reply::Foreign };
        let packet = match Packet::parse(bytes) {
            Ok(packet) => packet,
            // The number is in front, so a damaged answer to this question can be told from a foreign one.
            Err(cause) if bytes.get(..2) == Some(&self.id.to_be_bytes()) => {
                return Reply::Failed(format!("sent an answer that is not a DNS message: {cause}"));
            }
            Err(_) => return Reply::Foreign,
        };
        let is_answer = packet.id() == self.id && packet.has_flags(PacketFlag::RESPONSE);
        let is_mine = packet.questions.iter().all(|question| question.qname == wanted);
        if !is_answer || !is_mine {
            return Reply::Foreign;
        }
        if packet.has_flags(PacketFlag::TRUNCATION) {
            return Reply::Truncated;
        }
        match packet.rcode() {
            RCODE::NoError => Reply::Complete(Some(self.answer(&packet, wanted))),
            RCODE::NameError => Reply::Complete(None),
            code => Reply::Failed(format!("answered {code:?}")),
        }
    }

    /// The records of `owner`, or of the last of its aliases.
    fn answer<'a>(&self, packet: &'a Packet<'a>, mut owner: Name<'a>) -> Answer {
        let mut answer = Answer::default();
        // Each alias needs a record, so there are no more of them than records.
        for _ in 0..=packet.answers.len() {
            let own = packet.answers.iter().filter(|record| record.name == owner);
            answer.records = own.clone().filter_map(|record| self.data(&record.rdata)).collect();
            let alias = own.clone().find_map(|record| match &record.rdata {
                RData::CNAME(alias) => Some(alias.0.clone()),
                _ => None,
            });
            match alias {
                Some(alias) if answer.records.is_empty() => {
                    answer.alias = Some(alias.to_string());
                    owner = alias;
                }
                _ => break,
            }
        }
        answer
    }

    fn data(&self, data: &RData<'_>) -> Option<RecordData> {
        match (self.kind, data) {
            (QuestionType::A, RData::A(a)) => Some(RecordData::Address(Ipv4Addr::from(a.address).into())),
            (QuestionType::Aaaa, RData::AAAA(a)) => {
                Some(RecordData::Address(Ipv6Addr::from(a.address).into()))
            }
            (QuestionType::Srv, RData::SRV(service)) => {
                let host = service.target.to_string();
                // A target of "." says that there is no such service.
                let host = Some(host).filter(|host| !host.is_empty())?;
                Some(RecordData::Service(ServiceHost { host, port: service.port }))
            }
            // A mail server of "." says that there is none.
            (QuestionType::Mx, RData::MX(mail)) => host(&mail.exchange),
            (QuestionType::Ns, RData::NS(server)) => host(&server.0),
            _ => None,
        }
    }
}

fn host(name: &Name<'_>) -> Option<RecordData> {
    Some(name.to_string()).filter(|host| !host.is_empty()).map(RecordData::Host)
}

#[cfg(test)]
mod tests {
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, CNAME, SRV};

    use super::*;

    fn reply(question: &Question, change: impl FnOnce(&mut Packet<'_>)) -> Vec<u8> {
        let mut packet = Packet::parse(&question.bytes).unwrap().into_reply();
        packet.set_flags(PacketFlag::RESPONSE);
        change(&mut packet);
        packet.build_bytes_vec_compressed().unwrap()
    }

    fn record<'a>(name: &'a str, data: RData<'a>) -> ResourceRecord<'a> {
        ResourceRecord::new(Name::new(name).unwrap(), CLASS::IN, 30, data)
    }

    fn address(last: u8) -> RData<'static> {
        RData::A(A { address: u32::from(Ipv4Addr::new(10, 0, 0, last)) })
    }

    #[test]
    fn records_are_read_through_aliases_and_those_of_other_names_ignored() {
        let question = Question::new("stores.example", QuestionType::A).unwrap();
        let bytes = reply(&question, |packet| {
            packet.answers = vec![
                record("b.example", address(1)),
                record("Stores.Example", RData::CNAME(CNAME(Name::new("a.example").unwrap()))),
                record("a.example", RData::CNAME(CNAME(Name::new("b.example").unwrap()))),
                record("evil.example", address(9)),
            ];
        });
        let expected = Answer {
            records: vec![RecordData::Address(Ipv4Addr::new(10, 0, 0, 1).into())],
            alias: Some("b.example".to_owned()),
        };
        assert_eq!(question.reply(&bytes), Reply::Complete(Some(expected)));
        let circle = reply(&question, |packet| {
            let name = Name::new("stores.example").unwrap();
            packet.answers = vec![record("stores.example", RData::CNAME(CNAME(name)))];
        });
        assert!(matches!(question.reply(&circle), Reply::Complete(Some(_))), "it ends");
    }

    #[test]
    fn services_have_hosts_and_ports() {
        let question = Question::new("_grpc._tcp.stores", QuestionType::Srv).unwrap();
        let bytes = reply(&question, |packet| {
            let target = |name| Name::new(name).unwrap();
            let service = |target, port| RData::SRV(SRV { priority: 0, weight: 0, port, target });
            packet.answers = vec![
                record("_grpc._tcp.stores", service(target("a.example"), 10901)),
                record("_grpc._tcp.stores", service(Name::new_with_labels(&[]), 0)),
            ];
        });
        let service = ServiceHost { host: "a.example".to_owned(), port: 10901 };
        let Reply::Complete(Some(answer)) = question.reply(&bytes) else { panic!("no answer") };
        assert_eq!(answer.records, [RecordData::Service(service)]);
    }

    #[test]
    fn foreign_and_failed_answers_are_told_apart() {
        let question = Question::new("a.example", QuestionType::A).unwrap();
        assert_eq!(question.reply(&question.bytes), Reply::Foreign, "a question is not an answer");
        let other = Question::new("b.example", QuestionType::A).unwrap();
        assert_eq!(question.reply(&reply(&other, |_| {})), Reply::Foreign);
        assert_eq!(question.reply(b""), Reply::Foreign);
        let missing = reply(&question, |packet| *packet.rcode_mut() = RCODE::NameError);
        assert_eq!(question.reply(&missing), Reply::Complete(None));
        let failed = reply(&question, |packet| *packet.rcode_mut() = RCODE::ServerFailure);
        assert_eq!(question.reply(&failed), Reply::Failed("answered ServerFailure".to_owned()));
        let cut = reply(&question, |packet| packet.set_flags(PacketFlag::TRUNCATION));
        assert_eq!(question.reply(&cut), Reply::Truncated);
        for bad in ["", "a..b", &"x".repeat(64), &"x.".repeat(200)] {
            assert!(Question::new(bad, QuestionType::A).is_none(), "{bad}");
        }
    }

    #[test]
    fn damaged_answers_never_panic() {
        let question = Question::new("stores.example", QuestionType::A).unwrap();
        let whole = reply(&question, |packet| {
            packet.answers = (0..20).map(|last| record("stores.example", address(last))).collect();
        });
        for at in 0..whole.len() {
            let _ = question.reply(&whole[..at]);
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                let _ = question.reply(&bytes);
            }
        }
    }
}
