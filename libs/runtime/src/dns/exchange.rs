//! One question to one server: over UDP, and over TCP if the answer is too long for UDP.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::dns::message::{Answer, Question, Reply};

/// Largest answer over UDP. Without EDNS, which the questions do not use, it is 512 bytes.
const UDP_BYTES: usize = 4096;

/// Asks a server; `None` if the name does not exist.
pub(super) async fn ask(
    server: SocketAddr,
    question: &Question,
    limit: Duration,
) -> Result<Option<Answer>, String> {
    let late = |_| format!("no answer within {limit:?}");
    let reply = timeout(limit, over_udp(server, question)).await.map_err(late)?;
    let reply = match reply.map_err(|cause| cause.to_string())? {
        Reply::Truncated => {
            let whole = timeout(limit, over_tcp(server, question)).await.map_err(late)?;
            whole.map_err(|cause| format!("TCP: {cause}"))?
        }
        reply => reply,
    };
    match reply {
        Reply::Complete(answer) => Ok(answer),
        Reply::Truncated => Err("sent a truncated answer over TCP".to_owned()),
        Reply::Foreign => Err("sent an answer to another question over TCP".to_owned()),
        Reply::Failed(why) => Err(why),
    }
}

async fn over_udp(server: SocketAddr, question: &Question) -> io::Result<Reply> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // The system chooses a random port. With the random number of the question, others cannot forge an answer blindly.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(&question.bytes).await?;
    let mut bytes = vec![0; UDP_BYTES];
    loop {
        let length = socket.recv(&mut bytes).await?;
        match question.reply(&bytes[..length]) {
            Reply::Foreign => {}
            reply => return Ok(reply),
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &Question) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), &*question.bytes].concat()).await?;
    let mut bytes = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut bytes).await?;
    Ok(question.reply(&bytes))
}
