//! The credentials that the client shows to its Prometheus.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use tls::{Loaded, Watched, read_file};

/// A password or token: a text, or the content of a file that is read again when it changes.
#[derive(Clone)]
pub enum Credential {
    /// The text itself.
    Text(Arc<str>),
    /// A file.
    File(Arc<Watched<String>>),
}

impl Credential {
    /// The content of a file, without white space at its ends.
    ///
    /// # Errors
    /// The file cannot be read, or is not valid UTF-8.
    pub fn file(path: &Path) -> Result<Self, String> {
        let path: PathBuf = path.to_owned();
        let load = move || {
            let bytes = read_file(&path)?;
            let text =
                std::str::from_utf8(&bytes).map_err(|_| format!("{}: is not valid UTF-8", path.display()))?;
            Ok(Loaded { value: text.trim().to_owned(), files: vec![path.clone()] })
        };
        Watched::load("--prometheus.http-client", load).map(|file| Self::File(Arc::new(file)))
    }

    fn with_text<T>(&self, read: impl FnOnce(&str) -> T) -> T {
        match self {
            Self::Text(text) => read(text),
            Self::File(file) => read(&file.current()),
        }
    }
}

/// How the client proves who it is.
#[derive(Clone)]
pub enum Authorization {
    /// User and password (RFC 7617).
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: Credential,
    },
    /// A token (RFC 6750).
    Bearer(Credential),
}

impl Authorization {
    /// The header of a request.
    ///
    /// # Errors
    /// The credential contains characters that a header cannot have.
    pub(super) fn header(&self) -> Result<HeaderValue, http::Error> {
        let text = match self {
            Self::Basic { username, password } => password
                .with_text(|password| format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))),
            Self::Bearer(token) => token.with_text(|token| format!("Bearer {token}")),
        };
        let mut value = HeaderValue::try_from(text)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic",
            Self::Bearer(_) => "Bearer",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_sent_as_they_are_in_their_file_now() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "open:sesame\n").unwrap();
        let password = Credential::file(&path).unwrap();
        let basic = Authorization::Basic { username: "Aladdin".to_owned(), password };
        assert_eq!(basic.header().unwrap(), "Basic QWxhZGRpbjpvcGVuOnNlc2FtZQ==");
        std::fs::write(&path, "x").unwrap();
        assert_eq!(basic.header().unwrap(), "Basic QWxhZGRpbjp4");
        let token = Authorization::Bearer(Credential::Text("t0ken".into()));
        assert_eq!(token.header().unwrap(), "Bearer t0ken");
        assert!(Authorization::Bearer(Credential::Text("a\nb".into())).header().is_err());
        assert!(format!("{basic:?}{token:?}").find("t0ken").is_none());
        let missing = Credential::file(&folder.path().join("none")).map(drop).unwrap_err();
        assert!(missing.contains("none: cannot be read"), "{missing}");
    }
}
