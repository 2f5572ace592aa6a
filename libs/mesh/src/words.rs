//! Errors of connections in words, without the names that libraries give to their states.

use std::{error::Error, io};

use h2::Reason;
use model::{causes, root_cause};
use tonic::Status;

/// What an error of a transport says, in one line: what the peer or this side did.
pub fn transport_words(error: &(dyn Error + 'static)) -> String {
    let mut closed = None;
    for cause in causes(error) {
        if let Some(error) = cause.downcast_ref::<h2::Error>() {
            return of_http2(error);
        }
        if let Some(words) = cause.downcast_ref::<io::Error>().and_then(|error| tls::explain("server", error))
        {
            return words;
        }
        if let Some(error) = cause.downcast_ref::<hyper::Error>() {
            if error.is_timeout() {
                closed = Some("the peer does not answer any more");
            } else if error.is_canceled() || error.is_closed() {
                closed = Some("the connection was closed");
            }
        }
    }
    let root = root_cause(error);
    match (root.downcast_ref::<Status>(), closed) {
        // A status displays the description of its code too; the message alone says what happened.
        (Some(status), _) => status.message().to_owned(),
        (None, Some(closed)) if root.is::<hyper::Error>() => closed.to_owned(),
        (None, _) => root.to_string(),
    }
}

fn of_http2(error: &h2::Error) -> String {
    if let Some(error) = error.get_io() {
        return match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
                "the peer closed the connection".to_owned()
            }
            _ => error.to_string(),
        };
    }
    match error.reason() {
        Some(Reason::CANCEL) => "the peer cancelled the request".to_owned(),
        Some(Reason::REFUSED_STREAM) => "the peer did not process the request".to_owned(),
        Some(Reason::NO_ERROR) if error.is_go_away() => "the peer is closing the connection".to_owned(),
        Some(reason) if error.is_reset() => format!("the peer reset the stream ({})", reason.description()),
        Some(reason) => format!("the connection was closed with an error ({})", reason.description()),
        None => "the request could not be sent".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_streams_are_reported_in_words() {
        let check =
            |error: &(dyn Error + 'static), expected: &str| assert_eq!(transport_words(error), expected);
        check(&h2::Error::from(Reason::CANCEL), "the peer cancelled the request");
        check(&h2::Error::from(Reason::REFUSED_STREAM), "the peer did not process the request");
        check(
            &Status::from_error(Box::new(h2::Error::from(Reason::CANCEL))),
            "the peer cancelled the request",
        );
        check(&Status::internal("bucket is gone"), "bucket is gone");
        check(&io::Error::other("no route to host"), "no route to host");
    }
}
