//! A client of the admin socket.

use std::{io, path::Path, time::Duration};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::admin::{report::ErrorReport, socket_path};
use crate::task;

/// Largest answer, in bytes: 1,000 targets with their labels.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Time limit of a request. A connection test waits for several handshakes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Sends a request to the gateway with this data directory, and returns its answer.
///
/// # Errors
/// One line that says what to do.
pub(crate) async fn ask<T: DeserializeOwned>(
    data_dir: &Path,
    method: Method,
    path: &str,
) -> Result<T, String> {
    let asking = tokio::time::timeout(TIMEOUT, request(data_dir, method, path));
    let answer = asking.await.map_err(|_| format!("no answer within {} s", TIMEOUT.as_secs()))??;
    serde_json::from_slice(&answer)
        .map_err(|error| format!("the gateway's answer cannot be read, is it of another version? {error}"))
}

async fn request(data_dir: &Path, method: Method, path: &str) -> Result<Bytes, String> {
    let socket = socket_path(data_dir);
    let stream = UnixStream::connect(&socket).await.map_err(|error| not_reached(&socket, &error))?;
    let lost = |error: hyper::Error| format!("{}: {error}", socket.display());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
    let driver = task::spawn(async move { drop(connection.await) });
    let request = Request::builder().method(method).uri(path).header(http::header::HOST, "gateway");
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(lost)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
    driver.abort();
    let body = body.map_err(|error| format!("{}: {error}", socket.display()))?.to_bytes();
    if status.is_success() {
        return Ok(body);
    }
    let refused: Result<ErrorReport, _> = serde_json::from_slice(&body);
    Err(refused.map_or_else(|_| format!("the gateway answered {status}"), |refused| refused.error))
}

fn not_reached(socket: &Path, error: &io::Error) -> String {
    let socket = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!("{socket}: no gateway runs with this data directory; give its --data-dir or --config")
        }
        io::ErrorKind::ConnectionRefused => format!("{socket}: the gateway has stopped"),
        io::ErrorKind::PermissionDenied => {
            format!("{socket}: only the user who runs the gateway, and root, may use it")
        }
        _ => format!("{socket}: {error}"),
    }
}
