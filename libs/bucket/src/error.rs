//! Why an operation on a bucket failed, in one line that says what to do.

use std::fmt;

use model::{causes, root_cause};
use object_store::Error as StoreError;

/// What a caller may do about a [`BucketError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The object does not exist.
    NotFound,
    /// A condition was not met: the object exists already, or it changed since it was read.
    Conflict,
    /// The bucket does not exist.
    NoBucket,
    /// The store refused the credential, or the credential does not permit the operation.
    Denied,
    /// The store cannot be reached, is overloaded or failed. A later retry can succeed.
    Unavailable,
    /// This type of store does not support the operation.
    Unsupported,
    /// The configuration is wrong.
    Config,
    /// What was read is not what the store promised or what was written: its length, its content, or its presence.
    Corrupt,
    /// The object is larger than any object of this name may be.
    TooLarge,
    /// A local file cannot be read or written.
    Local,
}

/// Why an operation on a bucket failed.
///
/// Its text is one line: the operation, the object, the bucket, the reason, and what to do.
#[derive(Debug)]
pub struct BucketError(Box<ErrorDetails>);

#[derive(Debug)]
struct ErrorDetails {
    kind: ErrorKind,
    /// The operation, such as "get 01H.../meta.json".
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
        Self(Box::new(ErrorDetails { kind, action, bucket: bucket.to_owned(), reason, source: None }))
    }

    pub(crate) fn from_store(bucket: &str, action: String, source: StoreError) -> Self {
        let (kind, reason) = classify(&source);
        Self(Box::new(ErrorDetails { kind, action, bucket: bucket.to_owned(), reason, source: Some(source) }))
    }

    /// What a caller may do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.0.kind == ErrorKind::NotFound
    }

    /// Whether the store refused a write because of its condition, or for a reason that looks alike.
    pub(crate) fn refuses_conditions(&self) -> bool {
        let text = self.0.source.as_ref().map(ToString::to_string).unwrap_or_default();
        [NO_CONDITIONS, "status code: 400"].iter().any(|mark| text.contains(mark))
    }

    /// Whether the store refused a write because another write or removal of the same object is running. The object may
    /// not exist.
    pub(crate) fn is_concurrent_write(&self) -> bool {
        let text = self.0.source.as_ref().map(ToString::to_string).unwrap_or_default();
        self.0.kind == ErrorKind::Conflict && text.contains("status code: 409")
    }

    /// Whether the same operation can succeed later without a change by a person.
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Unavailable | ErrorKind::Corrupt)
    }

    /// The exit code of a program that exits for this reason: 2 if the configuration must be changed, otherwise 1.
    pub fn exit_code(&self) -> u8 {
        match self.0.kind {
            ErrorKind::Config | ErrorKind::Denied | ErrorKind::NoBucket | ErrorKind::Unsupported => {
                runtime::EXIT_USAGE
            }
            ErrorKind::NotFound
            | ErrorKind::Conflict
            | ErrorKind::Unavailable
            | ErrorKind::Corrupt
            | ErrorKind::TooLarge
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

/// Text of the error for a conditional write that the store answered with 501.
pub(crate) const NO_CONDITIONS: &str = "the store does not support conditional writes";

/// Begins the text of an error of a token service of Google, which says why it refused a credential.
pub(crate) const TOKEN_OF_GOOGLE: &str = "access token of Google";

/// The kind and the short reason of an error of the store.
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
            (ErrorKind::Conflict, "the object was changed, or exists already".to_owned())
        }
        StoreError::NotModified { .. } => (ErrorKind::Conflict, "the object was not changed".to_owned()),
        StoreError::Unauthenticated { source, .. } if source.to_string().starts_with(TOKEN_OF_GOOGLE) => {
            (ErrorKind::Denied, one_line(&source.to_string()))
        }
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => (
            ErrorKind::Denied,
            format!(
                "the store refused the credential ({}): check the keys in the objstore configuration and their permissions",
                server_code(&text).unwrap_or("access denied")
            ),
        ),
        StoreError::NotSupported { .. } | StoreError::NotImplemented { .. } => {
            (ErrorKind::Unsupported, "this type of object storage does not support the operation".to_owned())
        }
        StoreError::InvalidPath { .. } | StoreError::UnknownConfigurationKey { .. } => {
            (ErrorKind::Config, one_line(&text))
        }
        // While a container is created or removed, Azure's 404 is reported as a generic error.
        _ if names_missing_bucket(&text) => (
            ErrorKind::NoBucket,
            "the bucket does not exist: create it, or correct its name in the objstore configuration"
                .to_owned(),
        ),
        _ if asks_for_credential(&text) => (
            ErrorKind::Denied,
            "no credential is configured, and neither the environment nor the machine provides one: add it to the objstore configuration"
                .to_owned(),
        ),
        _ if is_wrong_region(&text) => (
            ErrorKind::Config,
            "the bucket is in another region: correct region and endpoint in the objstore configuration"
                .to_owned(),
        ),
        _ if ends_before_range(error, &text) => {
            (ErrorKind::Corrupt, "the object ends before the requested range".to_owned())
        }
        _ if is_bad_credential(&text) => (
            ErrorKind::Denied,
            format!(
                "the store refused the credential ({}): check the keys in the objstore configuration",
                server_code(&text).unwrap_or("access denied")
            ),
        ),
        _ => (ErrorKind::Unavailable, unavailable(error, &text)),
    }
}

/// Stores answer 416. For a local file only the innermost error says it.
fn ends_before_range(error: &StoreError, text: &str) -> bool {
    ["status code: 416", "InvalidRange", "Out of range of file"].iter().any(|mark| text.contains(mark))
        || causes(error).skip(1).any(|cause| cause.to_string().starts_with("Wanted range starting at"))
}

fn names_missing_bucket(text: &str) -> bool {
    ["NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist"]
        .iter()
        .any(|code| text.contains(code))
}

/// For listings, the library reports a refused credential as a generic error.
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

/// The addresses at which a machine in a cloud gets its own credential.
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

/// The reason with the innermost cause, which tells an operator whether the store was reached.
fn unavailable(error: &StoreError, text: &str) -> String {
    let cause = one_line(&root_cause(error).to_string());
    let is_unreachable = ["Connection refused", "error trying to connect", "dns error", "failed to lookup"]
        .iter()
        .any(|mark| text.contains(mark) || cause.contains(mark));
    let is_unreachable = is_unreachable || text.contains("HTTP error: error sending request");
    if is_unreachable {
        format!("the store cannot be reached ({cause}): check the endpoint and the network")
    } else if let Some(code) = server_code(text) {
        format!("the store answered {code}; retry later")
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
    fn errors_of_the_store_are_classified_by_their_text() {
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
    async fn a_range_past_the_end_of_a_local_file_is_corrupt() {
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
    fn only_errors_that_need_another_configuration_exit_with_code_2() {
        let code = |kind| BucketError::new(kind, "b", "a", "r").exit_code();
        for kind in [ErrorKind::Config, ErrorKind::Denied, ErrorKind::NoBucket, ErrorKind::Unsupported] {
            assert_eq!(code(kind), 2, "{kind:?}");
        }
        for kind in [
            ErrorKind::NotFound,
            ErrorKind::Conflict,
            ErrorKind::Unavailable,
            ErrorKind::Corrupt,
            ErrorKind::TooLarge,
        ] {
            assert_eq!(code(kind), 1, "{kind:?}");
        }
    }
}
