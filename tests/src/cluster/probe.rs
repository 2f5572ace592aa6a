//! Probes of containers, as the kubelet runs them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::cluster::container::exec as run_within;
use crate::cluster::pod_spec::{Container, Grpc, HttpGet, Port, Probe};
use crate::cluster::service::port_number;

/// The longest part of an answer that is read.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

/// What the last results of a probe mean.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    /// Results of the same kind in a row.
    in_row: u32,
    was_success: bool,
}

impl Verdict {
    /// Adds a result. Returns `Some(true)` from the success threshold on, and `Some(false)` from the failure threshold on.
    pub(crate) fn add(&mut self, probe: &Probe, is_success: bool) -> Option<bool> {
        self.in_row = if self.was_success == is_success { self.in_row + 1 } else { 1 };
        self.was_success = is_success;
        let threshold = if is_success { probe.success_threshold } else { probe.failure_threshold };
        (self.in_row >= threshold).then_some(is_success)
    }
}

/// What a probe is run against.
pub(crate) struct Probed<'a> {
    pub(crate) container: &'a Container,
    pub(crate) address: Ipv4Addr,
    pub(crate) pid: u32,
}

impl Probed<'_> {
    /// Runs a probe once.
    ///
    /// # Errors
    /// If it fails, with the reason.
    pub(crate) async fn run(&self, probe: &Probe) -> Result<(), String> {
        let limit = Duration::from_secs(probe.timeout_seconds.max(1));
        match tokio::time::timeout(limit, self.once(probe)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {limit:?}")),
        }
    }

    async fn once(&self, probe: &Probe) -> Result<(), String> {
        if let Some(get) = &probe.http_get {
            http(self.at(&get.port)?, get).await
        } else if let Some(tcp) = &probe.tcp_socket {
            let at = self.at(&tcp.port)?;
            TcpStream::connect(at).await.map(drop).map_err(|cause| format!("{at}: {cause}"))
        } else if let Some(own) = &probe.grpc {
            grpc(self.at(&Port::Number(own.port))?, own).await
        } else if let Some(exec) = &probe.exec {
            let mut command = tokio::process::Command::from(run_within(self.pid, &exec.command));
            let output = command.kill_on_drop(true).output().await.map_err(|cause| cause.to_string())?;
            let said = String::from_utf8_lossy(&output.stderr);
            if output.status.success() { Ok(()) } else { Err(format!("{}: {said}", output.status)) }
        } else {
            Err("the probe has no action".to_owned())
        }
    }

    fn at(&self, port: &Port) -> Result<SocketAddr, String> {
        let number = port_number(port, std::iter::once(self.container));
        let number = number.ok_or_else(|| format!("the container has no port {port:?}"))?;
        Ok(SocketAddr::from((self.address, number)))
    }
}

async fn http(at: SocketAddr, get: &HttpGet) -> Result<(), String> {
    let within = |cause: std::io::Error| format!("http://{at}{}: {cause}", get.path);
    let mut stream = TcpStream::connect(at).await.map_err(within)?;
    let path = if get.path.is_empty() { "/" } else { &get.path };
    let request = format!("GET {path} HTTP/1.0\r\nHost: {at}\r\nUser-Agent: kube-probe/1.30\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(within)?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await.map_err(within)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
    match status {
        Some(200..=399) => Ok(()),
        Some(status) => {
            let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            Err(format!("http://{at}{path}: status {status}: {}", body.trim()))
        }
        None => Err(format!("http://{at}{path}: the answer is not HTTP")),
    }
}

async fn grpc(at: SocketAddr, probe: &Grpc) -> Result<(), String> {
    let within = |cause: &dyn std::error::Error| format!("grpc://{at}: {cause}");
    let endpoint =
        tonic::transport::Endpoint::from_shared(format!("http://{at}")).map_err(|cause| within(&cause))?;
    let channel = endpoint.connect().await.map_err(|cause| within(&cause))?;
    let request = HealthCheckRequest { service: probe.service.clone() };
    let answer = HealthClient::new(channel).check(request).await.map_err(|cause| within(&cause))?;
    match answer.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        status => Err(format!("grpc://{at}: {status:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_decides_after_its_thresholds() {
        let probe = r#"{"tcpSocket": {"port": 1}, "successThreshold": 2, "failureThreshold": 3}"#;
        let probe: Probe = serde_json::from_str(probe).expect("a probe");
        let mut verdict = Verdict::default();
        let mut check = |is_success, expected| assert_eq!(verdict.add(&probe, is_success), expected);
        check(true, None);
        check(true, Some(true));
        check(false, None);
        check(false, None);
        check(true, None);
        check(false, None);
        check(false, None);
        check(false, Some(false));
        check(true, None);
    }
}
