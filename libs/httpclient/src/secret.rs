//! Passwords and tokens.

use std::fmt;
use std::path::{Path, PathBuf};

/// A password, token or name: a text, or the content of a file, which is read for each request.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The text itself.
    Text(String),
    /// A file.
    File(PathBuf),
}

impl Secret {
    /// The text now. White space at the ends of a file is not part of it.
    ///
    /// # Errors
    /// The file cannot be read, or is not valid UTF-8.
    pub fn text(&self) -> Result<String, String> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => read(path),
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    let bytes = tls::read_file(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("{}: is not valid UTF-8", path.display()))?;
    Ok(text.trim().to_owned())
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text"),
            Self::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_again_and_texts_are_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let secret = Secret::File(path.clone());
        assert!(secret.text().unwrap_err().contains("token: cannot be read"));
        for token in ["one", "two"] {
            std::fs::write(&path, format!(" {token}\n")).unwrap();
            assert_eq!(secret.text().unwrap(), token);
        }
        std::fs::write(&path, b"\xff").unwrap();
        assert!(secret.text().unwrap_err().contains("is not valid UTF-8"));
        assert_eq!(format!("{:?}", Secret::Text("hidden".to_owned())), "Text");
    }
}
