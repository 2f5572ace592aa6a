//! Why an operation on a bucket did not happen, in one line that says what to do.

use std::fmt;

use model::{causes, root_cause};
use object_store::Error as StoreError;

/// What a caller may do about a [`BucketError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The object is not there.
    NotFound,
    /// The object is there already, or changed since it was read: a condition was not met.
    Conflict,
    /// The bucket itself is not there.
    NoBucket,
    /// The store refuses the credential, or the credential may not do this.
    Denied,
    /// The store cannot be reached, is overloaded or failed; trying again later can help.
    Unavailable,
    /// This type of store cannot do this.
    Unsupported,
    /// The configuration cannot work, whatever the store says.
    Config,
    /// What was read is not what was promised.
    Corrupt,
    /// A local file cannot be read or written.
    Local,
}

/// Why an operation on a bucket did not happen.
///
/// Its text is one line: what was being done, to which object of which bucket, why not, and what to do.
#[derive(Debug)]
pub struct BucketError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    /// What was being done, such as "get 01H.../meta.json".
    action: String,
    bucket: String,
    reason: String,
    source: Option<StoreError>,
}

impl BucketError {
    pub(crate) fn new(
        kind: ErrorKind,
        bucket: &str,
        action: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        let (action, reason) = (action.into(), reason.into());
        Self(Box::new(Inner { kind, action, bucket: bucket.to_owned(), reason, source: None }))
    }

    pub(crate) fn from_store(bucket: &str, action: String, source: StoreError) -> Self {
        let (kind, reason) = classify(&source);
        Self(Box::new(Inner { kind, action, bucket: bucket.to_owned(), reason, source: Some(source) }))
    }

    /// What a caller may do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        self.0.kind == ErrorKind::NotFound
    }

    /// Whether doing the same again later can help, with nothing changed by hand.
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Unavailable | ErrorKind::Corrupt)
    }

    /// The exit code of a program that ends for this reason: 2 for what the configuration must change, 1 else.
    pub fn exit_code(&self) -> u8 {
        match self.0.kind {
            ErrorKind::Config | ErrorKind::Denied | ErrorKind::NoBucket | ErrorKind::Unsupported => {
                runtime::EXIT_USAGE
            }
            ErrorKind::NotFound
            | ErrorKind::Conflict
            | ErrorKind::Unavailable
            | ErrorKind::Corrupt
            | ErrorKind::Local => runtime::EXIT_ERROR,
        }
    }
}

impl fmt::Display for BucketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in bucket {:?}: {}", self.0.action, self.0.bucket, self.0.reason)
    }
}

impl std::error::Error for BucketError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| source as _)
    }
}

impl From<BucketError> for runtime::RoleError {
    fn from(error: BucketError) -> Self {
        Self::with_exit_code(error.exit_code(), error)
    }
}

/// The kind of a store's error and its reason in a few words.
fn classify(error: &StoreError) -> (ErrorKind, String) {
    let text = error.to_string();
    match error {
        StoreError::NotFound { .. } if names_missing_bucket(&text) => (
            ErrorKind::NoBucket,
            "the bucket does not exist: create it, or correct its name in the objstore configuration"
                .to_owned(),
        ),
        StoreError::NotFound { .. } => (ErrorKind::NotFound, "the object does not exist".to_owned()),
        StoreError::AlreadyExists { .. } => (ErrorKind::Conflict, "the object exists already".to_owned()),
        StoreError::Precondition { .. } => {
            (ErrorKind::Conflict, "the object changed, or exists already".to_owned())
        }
        StoreError::NotModified { .. } => (ErrorKind::Conflict, "the object did not change".to_owned()),
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => (
            ErrorKind::Denied,
            format!(
                "the store refuses the credential ({}): check the keys in the objstore configuration and what they may do",
                server_code(&text).unwrap_or("access denied")
            ),
        ),
        StoreError::NotSupported { .. } | StoreError::NotImplemented { .. } => {
            (ErrorKind::Unsupported, "this type of object storage cannot do this".to_owned())
        }
        StoreError::InvalidPath { .. } | StoreError::UnknownConfigurationKey { .. } => {
            (ErrorKind::Config, one_line(&text))
        }
        // Azure answers 404 to a request for a container that is being made or removed as a generic error.
        _ if names_missing_bucket(&text) => (
            ErrorKind::NoBucket,
            "the bucket does not exist: create it, or correct its name in the objstore configuration"
                .to_owned(),
        ),
        _ if asks_for_credential(&text) => (
            ErrorKind::Denied,
            "no credential is configured, and neither the environment nor the machine gives one: add it to the objstore configuration"
                .to_owned(),
        ),
        _ if is_wrong_region(&text) => (
            ErrorKind::Config,
            "the bucket is in another region: correct region and endpoint in the objstore configuration"
                .to_owned(),
        ),
        _ if ends_before_range(error, &text) => {
            (ErrorKind::Corrupt, "the object ends before the range does".to_owned())
        }
        _ if is_bad_credential(&text) => (
            ErrorKind::Denied,
            format!(
                "the store refuses the credential ({}): check the keys in the objstore configuration",
                server_code(&text).unwrap_or("access denied")
            ),
        ),
        _ => (ErrorKind::Unavailable, unavailable(error, &text)),
    }
}

/// Stores answer 416; the local one says so in the innermost error.
fn ends_before_range(error: &StoreError, text: &str) -> bool {
    ["status code: 416", "InvalidRange", "Out of range of file"].iter().any(|mark| text.contains(mark))
        || causes(error).skip(1).any(|cause| cause.to_string().starts_with("Wanted range starting at"))
}

fn names_missing_bucket(text: &str) -> bool {
    ["NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist"]
        .iter()
        .any(|code| text.contains(code))
}

/// Listings are refused by the store's library without saying that it was a refusal.
fn is_bad_credential(text: &str) -> bool {
    let marks = [
        "status code: 401",
        "status code: 403",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidToken",
    ];
    marks.iter().any(|mark| text.contains(mark))
}

/// The addresses at which machines in clouds are asked for their own credential.
fn asks_for_credential(text: &str) -> bool {
    ["//169.254.169.254", "//169.254.170.2", "//metadata.google.internal"]
        .iter()
        .any(|host| text.contains(host))
}

fn is_wrong_region(text: &str) -> bool {
    let marks = ["AuthorizationHeaderMalformed", "PermanentRedirect", "incorrectly configured region"];
    marks.iter().any(|mark| text.contains(mark))
}

/// The content of `<Code>` in an XML answer.
fn server_code(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    (code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric())).then_some(code)
}

/// Says whether the store was reached at all: the innermost cause is what an operator can act on.
fn unavailable(error: &StoreError, text: &str) -> String {
    let cause = one_line(&root_cause(error).to_string());
    let is_unreachable = ["Connection refused", "error trying to connect", "dns error", "failed to lookup"]
        .iter()
        .any(|mark| text.contains(mark) || cause.contains(mark));
    let is_unreachable = is_unreachable || text.contains("HTTP error: error sending request");
    if is_unreachable {
        format!("the store cannot be reached ({cause}): check the endpoint and the network")
    } else if let Some(code) = server_code(text) {
        format!("the store answered {code}; trying again later can help")
    } else {
        cause
    }
}

/// The first 300 characters of a text, without line breaks.
fn one_line(text: &str) -> String {
    let line: Vec<&str> = text.split_whitespace().collect();
    let line = line.join(" ");
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_follows_from_what_the_store_said() {
        let check = |text: &str, kind: ErrorKind, words: &str| {
            let error = StoreError::Generic { store: "S3", source: text.into() };
            let error = BucketError::from_store("b", "list \"\"".to_owned(), error);
            assert_eq!(error.kind(), kind, "{error}");
            let line = error.to_string();
            assert!(line.starts_with("list \"\" in bucket \"b\": ") && line.contains(words), "{line}");
            assert!(!line.contains('\n') && line.len() < 400, "{line}");
        };
        let status = |status: &str, code: &str| {
            format!(
                "Error performing list request: Server returned non-2xx status code: {status}: <Error>\n<Code>{code}</Code></Error>"
            )
        };
        check(&status("403 Forbidden", "AuthorizationFailure"), ErrorKind::Denied, "(AuthorizationFailure)");
        check(&status("404 Not Found", "NoSuchBucket"), ErrorKind::NoBucket, "create it");
        check(&status("400 Bad Request", "AuthorizationHeaderMalformed"), ErrorKind::Config, "region");
        check(&status("416 Range Not Satisfiable", "InvalidRange"), ErrorKind::Corrupt, "ends before");
        check(&status("503 Slow Down", "SlowDown"), ErrorKind::Unavailable, "answered SlowDown");
        check(
            "Error performing PUT http://169.254.169.254/latest/api/token: error sending request",
            ErrorKind::Denied,
            "no credential is configured",
        );
        check(&"x\n".repeat(1000), ErrorKind::Unavailable, "x x");
    }

    #[tokio::test]
    async fn a_range_behind_the_end_of_a_local_file_is_damage() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("cut"), "0123456789").expect("a file");
        let store = object_store::local::LocalFileSystem::new_with_prefix(dir.path()).expect("a store");
        let bucket = crate::Bucket::new(std::sync::Arc::new(store));
        for range in [10..12, 100..200, 5..20] {
            let error = bucket.get_range("cut", range.clone()).await.expect_err("it ends earlier");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{range:?}: {error}");
            let error = bucket.get_ranges("cut", &[0..1, range.clone()]).await.expect_err("it ends earlier");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{range:?}: {error}");
        }
    }

    #[test]
    fn the_exit_code_tells_configuration_from_weather() {
        let code = |kind| BucketError::new(kind, "b", "a", "r").exit_code();
        for kind in [ErrorKind::Config, ErrorKind::Denied, ErrorKind::NoBucket, ErrorKind::Unsupported] {
            assert_eq!(code(kind), 2, "{kind:?}");
        }
        for kind in [ErrorKind::NotFound, ErrorKind::Conflict, ErrorKind::Unavailable, ErrorKind::Corrupt] {
            assert_eq!(code(kind), 1, "{kind:?}");
        }
    }
}
