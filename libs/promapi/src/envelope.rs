//! The envelope of each answer: status, data, error, warnings.

use http::StatusCode;

use crate::json::write_string;
use crate::params::ParamError;

/// Maximum number of warnings, and of infos, in an answer. If there are more, one further line says how many
/// were omitted.
const MAX_ANNOTATIONS: usize = 10;

/// The kind of an error. It determines the HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    /// A parameter or the expression is invalid.
    BadData,
    /// The query failed during its execution.
    Execution,
    /// The client cancelled the request.
    Canceled,
    /// The query took too long.
    Timeout,
    /// The server or its storage failed.
    Internal,
    /// The server is starting, or the feature is disabled.
    Unavailable,
    /// The requested object does not exist.
    NotFound,
    /// The server cannot answer in the requested format.
    NotAcceptable,
}

impl ErrorType {
    /// The value of `errorType`.
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

    /// The HTTP status, as in Prometheus. 499 is "client closed request" of nginx.
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

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", kind.name())]
pub struct ApiError {
    /// The kind of the error.
    pub kind: ErrorType,
    /// The message for the user.
    pub message: String,
}

impl ApiError {
    /// Creates an error.
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

/// Writes the envelope of a successful answer. The caller writes the data between `begin` and `end`.
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
    /// Writes the part before the data.
    pub fn begin(out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"status":"success","data":"#);
    }

    /// Writes the part after the data, with at most ten warnings and ten infos.
    pub fn end(out: &mut Vec<u8>, warnings: &[String], infos: &[String]) {
        write_annotations(out, "warnings", "warning", warnings);
        write_annotations(out, "infos", "info", infos);
        out.push(b'}');
    }

    /// Writes a complete successful answer. The data is serialized by `serde_json`, with HTML characters
    /// escaped.
    ///
    /// # Errors
    /// A map key is not a string, or a custom serializer fails.
    pub fn of(
        data: &impl serde::Serialize,
        warnings: &[String],
        infos: &[String],
    ) -> Result<Vec<u8>, serde_json::Error> {
        let mut out = Vec::new();
        Self::begin(&mut out);
        Self::write(&mut out, data)?;
        Self::end(&mut out, warnings, infos);
        Ok(out)
    }

    /// Writes data, or a part of it, as [`of`](Self::of) does.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn write(out: &mut Vec<u8>, data: &impl serde::Serialize) -> Result<(), serde_json::Error> {
        data.serialize(&mut serde_json::Serializer::with_formatter(out, HtmlSafe))
    }
}

/// The compact format of `serde_json`, with the HTML characters of strings escaped.
struct HtmlSafe;

impl serde_json::ser::Formatter for HtmlSafe {
    fn write_string_fragment<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> std::io::Result<()> {
        let mut quoted = Vec::with_capacity(fragment.len() + 2);
        // A fragment contains no characters that JSON itself escapes, so only the HTML characters change.
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
    fn error_kind_determines_the_http_status() {
        let error = ApiError::new(ErrorType::Execution, "found duplicate series for <a>");
        assert_eq!(error.kind.status(), 422);
        assert_eq!(ErrorType::Canceled.status().as_u16(), 499);
        let expected = br#"{"status":"error","errorType":"execution","error":"found duplicate series for \u003ca\u003e"}"#;
        assert_eq!(error.body(), expected);
    }

    #[test]
    fn warnings_beyond_ten_are_counted() {
        let warnings: Vec<String> = (0..12).map(|i| format!("w{i}")).collect();
        let body = Envelope::of(&["a&b"], &warnings, &["i".to_owned()]).unwrap();
        let text = String::from_utf8(body).unwrap();
        assert!(text.starts_with(r#"{"status":"success","data":["a\u0026b"],"warnings":["w0","#), "{text}");
        assert!(text.ends_with(r#""w9","2 more warning annotations omitted"],"infos":["i"]}"#), "{text}");
    }
}
