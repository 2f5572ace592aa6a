//! Configuration given on the command line or in a file: the `X.config` / `X.config-file` pairs.

use std::path::{Path, PathBuf};

/// Largest configuration file that is read, in bytes: well above any real one, well below harm.
const MAX_BYTES: u64 = 16 << 20;

/// Why a configuration cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Both flags of a pair were given.
    #[error("--{0} and --{0}-file exclude each other: give one of them")]
    Both(String),
    /// The file cannot be read.
    #[error("read {} (--{flag}-file): {source}", path.display())]
    Read {
        /// The flag of the pair, without dashes.
        flag: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is larger than 16 MiB.
    #[error("{} (--{flag}-file) is larger than 16 MiB", path.display())]
    TooLarge {
        /// The flag of the pair, without dashes.
        flag: String,
        /// The file.
        path: PathBuf,
    },
    /// `$(NAME)` stands in the text, but the environment has no such variable.
    #[error("environment variable {0} is used as $({0}), but it is not set")]
    Unset(String),
}

/// The content of a pair of flags `--FLAG` (the content itself) and `--FLAG-file` (its path), with
/// `$(NAME)` replaced from the environment; `None` where neither was given.
///
/// # Errors
/// Both given, file unreadable, not UTF-8 or above 16 MiB, or a variable that is not set.
pub fn load_config(
    flag: &str,
    content: Option<&str>,
    file: Option<&Path>,
) -> Result<Option<String>, ConfigError> {
    let text = match (content, file) {
        (Some(_), Some(_)) => return Err(ConfigError::Both(flag.to_owned())),
        (Some(content), None) => content.to_owned(),
        (None, Some(path)) => read_bounded(flag, path)?,
        (None, None) => return Ok(None),
    };
    expand_env(&text, |name| std::env::var(name).ok()).map(Some)
}

fn read_bounded(flag: &str, path: &Path) -> Result<String, ConfigError> {
    use std::io::Read;
    let read = || {
        let mut text = String::new();
        std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|source| ConfigError::Read {
        flag: flag.to_owned(),
        path: path.to_owned(),
        source,
    })?;
    if text.len() as u64 > MAX_BYTES {
        return Err(ConfigError::TooLarge { flag: flag.to_owned(), path: path.to_owned() });
    }
    Ok(text)
}

/// Replaces each `$(NAME)` by what `lookup` says; other uses of `$` stay as they are.
///
/// A name is letters, digits and underscores, not starting with a digit.
///
/// # Errors
/// [`ConfigError::Unset`] for the first name that `lookup` does not know.
pub fn expand_env(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, ConfigError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("$(") {
        let inner = &rest[start + 2..];
        let length = inner.bytes().take_while(|b| *b == b'_' || b.is_ascii_alphanumeric()).count();
        let name = &inner[..length];
        let is_name = !name.is_empty() && !name.as_bytes()[0].is_ascii_digit();
        if is_name && inner[length..].starts_with(')') {
            out.push_str(&rest[..start]);
            out.push_str(&lookup(name).ok_or_else(|| ConfigError::Unset(name.to_owned()))?);
            rest = &inner[length + 1..];
        } else {
            out.push_str(&rest[..start + 2]);
            rest = inner;
        }
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_and_other_dollars_stay() {
        let lookup = |name: &str| (name == "A_1").then(|| "x$(B)".to_owned());
        let check = |text: &str, expected: &str| assert_eq!(expand_env(text, lookup).unwrap(), expected);
        check("a: $(A_1)-$(A_1)", "a: x$(B)-x$(B)");
        check("$A_1 ${A_1} $( $(1) $() $(A-1) $", "$A_1 ${A_1} $( $(1) $() $(A-1) $");
        let error = expand_env("k: $(MISSING)", lookup).unwrap_err().to_string();
        assert_eq!(error, "environment variable MISSING is used as $(MISSING), but it is not set");
    }

    #[test]
    fn a_pair_of_flags_gives_one_content() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("objstore.yaml");
        std::fs::write(&file, "type: S3").unwrap();
        assert_eq!(load_config("objstore.config", None, None).unwrap(), None);
        let content = load_config("objstore.config", Some("type: GCS"), None).unwrap();
        assert_eq!(content.as_deref(), Some("type: GCS"));
        let content = load_config("objstore.config", None, Some(&file)).unwrap();
        assert_eq!(content.as_deref(), Some("type: S3"));
        let both = load_config("objstore.config", Some("x"), Some(&file)).unwrap_err().to_string();
        assert!(both.starts_with("--objstore.config and --objstore.config-file exclude"), "{both}");
        let absent = load_config("objstore.config", None, Some(&dir.path().join("no"))).unwrap_err();
        assert!(absent.to_string().contains("--objstore.config-file"), "{absent}");
    }
}
