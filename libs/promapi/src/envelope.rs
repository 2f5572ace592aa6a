//! What stands around every answer: status, data, error, warnings.

use http::StatusCode;

use crate::json::write_string;
use crate::params::ParamError;

/// Most warnings, and most infos, that an answer lists; one line then tells how many were left out.
const MAX_ANNOTATIONS: usize = 10;

/// The kind of an error, which decides the HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    /// Parameters or expression make no sense.
    BadData,
    /// The query failed while it ran.
    Execution,
    /// The client went away.
    Canceled,
    /// The query took too long.
    Timeout,
    /// A fault of the server or its storage.
    Internal,
    /// Not now: still starting, or switched off.
    Unavailable,
    /// No such thing.
    NotFound,
    /// No such form of an answer.
    NotAcceptable,
}

impl ErrorType {
    /// The word in `errorType`.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadData => "bad_data",
            Self::Execution => "execution",
            Self::Canceled => "canceled",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::NotFound => "not_found",
            Self::NotAcceptable => "not_acceptable",
        }
    }

    /// The status as Prometheus has it. 499 is nginx' "client closed request".
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadData => StatusCode::BAD_REQUEST,
            Self::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Canceled => StatusCode::from_u16(499).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
            Self::Timeout => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal | Self::Unavailable => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
        }
    }
}

/// An answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", kind.name())]
pub struct ApiError {
    /// Its kind.
    pub kind: ErrorType,
    /// What went wrong, for the one who asked.
    pub message: String,
}

impl ApiError {
    /// An error of a kind.
    pub fn new(kind: ErrorType, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The JSON body of the answer.
    pub fn body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.message.len());
        out.extend_from_slice(br#"{"status":"error","errorType":""#);
        out.extend_from_slice(self.kind.name().as_bytes());
        out.extend_from_slice(br#"","error":"#);
        write_string(&mut out, &self.message);
        out.push(b'}');
        out
    }
}

impl From<ParamError> for ApiError {
    fn from(error: ParamError) -> Self {
        Self::new(ErrorType::BadData, error.to_string())
    }
}

/// Writes the envelope of a success around data that the caller writes between begin and end.
///
/// ```
/// use promapi::Envelope;
///
/// let mut out = Vec::new();
/// Envelope::begin(&mut out);
/// out.extend_from_slice(b"[1,2]");
/// Envelope::end(&mut out, &["slow store".to_owned()], &[]);
/// assert_eq!(out, br#"{"status":"success","data":[1,2],"warnings":["slow store"]}"#);
/// ```
#[derive(Debug)]
pub struct Envelope;

impl Envelope {
    /// Writes what stands before the data.
    pub fn begin(out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"status":"success","data":"#);
    }

    /// Writes what stands after the data; of warnings and infos at most ten each.
    pub fn end(out: &mut Vec<u8>, warnings: &[String], infos: &[String]) {
        write_annotations(out, "warnings", "warning", warnings);
        write_annotations(out, "infos", "info", infos);
        out.push(b'}');
    }

    /// A whole success whose data is plain: the value as `serde_json` writes it, HTML escaped as everywhere.
    ///
    /// # Errors
    /// The value has maps with keys that are no strings, or a serializer of its own that fails.
    pub fn of(
        data: &impl serde::Serialize,
        warnings: &[String],
        infos: &[String],
    ) -> Result<Vec<u8>, serde_json::Error> {
        let mut out = Vec::new();
        Self::begin(&mut out);
        data.serialize(&mut serde_json::Serializer::with_formatter(&mut out, HtmlSafe))?;
        Self::end(&mut out, warnings, infos);
        Ok(out)
    }
}

/// `serde_json`'s compact form with the HTML characters of strings escaped.
struct HtmlSafe;

impl serde_json::ser::Formatter for HtmlSafe {
    fn write_string_fragment<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> std::io::Result<()> {
        let mut quoted = Vec::with_capacity(fragment.len() + 2);
        // A fragment has nothing that JSON itself must escape, so only the HTML characters change.
        write_string(&mut quoted, fragment);
        writer.write_all(&quoted[1..quoted.len() - 1])
    }
}

fn write_annotations(out: &mut Vec<u8>, key: &str, noun: &str, annotations: &[String]) {
    if annotations.is_empty() {
        return;
    }
    out.extend_from_slice(format!(",\"{key}\":[").as_bytes());
    for (i, text) in annotations.iter().take(MAX_ANNOTATIONS).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_string(out, text);
    }
    if annotations.len() > MAX_ANNOTATIONS {
        let left_out = annotations.len() - MAX_ANNOTATIONS;
        out.push(b',');
        write_string(out, &format!("{left_out} more {noun} annotations omitted"));
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_status_of_their_kind() {
        let error = ApiError::new(ErrorType::Execution, "found duplicate series for <a>");
        assert_eq!(error.kind.status(), 422);
        assert_eq!(ErrorType::Canceled.status().as_u16(), 499);
        let expected = br#"{"status":"error","errorType":"execution","error":"found duplicate series for \u003ca\u003e"}"#;
        assert_eq!(error.body(), expected);
    }

    #[test]
    fn the_eleventh_warning_is_a_count() {
        let warnings: Vec<String> = (0..12).map(|i| format!("w{i}")).collect();
        let body = Envelope::of(&["a&b"], &warnings, &["i".to_owned()]).unwrap();
        let text = String::from_utf8(body).unwrap();
        assert!(text.starts_with(r#"{"status":"success","data":["a\u0026b"],"warnings":["w0","#), "{text}");
        assert!(text.ends_with(r#""w9","2 more warning annotations omitted"],"infos":["i"]}"#), "{text}");
    }
}
