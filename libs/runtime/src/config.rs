//! Configuration given on the command line or in a file: the `X.config` / `X.config-file` pairs.

use std::path::{Path, PathBuf};

/// Largest configuration file that is read, in bytes: far larger than real ones, and small enough to read into memory.
const MAX_BYTES: u64 = 16 << 20;

/// Why the configuration of a pair of flags cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadConfigError {
    /// Both flags of a pair were given.
    #[error("--{0} and --{0}-file are both given: give one of them")]
    Both(String),
    /// The file cannot be read.
    #[error("--{flag}-file={}: cannot be read: {source}", path.display())]
    Read {
        /// The flag of the pair, without dashes.
        flag: String,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The file is larger than 16 MiB.
    #[error("--{flag}-file={}: the file is larger than 16 MiB", path.display())]
    TooLarge {
        /// The flag of the pair, without dashes.
        flag: String,
        /// The file.
        path: PathBuf,
    },
    /// The text contains `$(NAME)`, but the environment has no such variable.
    #[error("{origin}: {source}")]
    Unset {
        /// See [`config_origin`].
        origin: String,
        /// The variable.
        source: UnsetVariable,
    },
}

/// A text contains `$(NAME)`, but there is no variable with this name.
#[derive(Debug, thiserror::Error)]
#[error("contains $({0}), but the environment variable {0} is not set: set it")]
pub struct UnsetVariable(pub String);

/// The flag of a pair that gives the text, for errors about the text: `--FLAG-file=PATH`, or `--FLAG`.
///
/// ```
/// assert_eq!(runtime::config_origin("objstore.config", None), "--objstore.config");
/// let file = std::path::Path::new("bucket.yaml");
/// assert_eq!(runtime::config_origin("objstore.config", Some(file)), "--objstore.config-file=bucket.yaml");
/// ```
pub fn config_origin(flag: &str, file: Option<&Path>) -> String {
    match file {
        Some(path) => format!("--{flag}-file={}", path.display()),
        None => format!("--{flag}"),
    }
}

/// Loads the configuration of a pair of flags, `--FLAG` (the text itself) and `--FLAG-file` (the path of a file), and
/// replaces `$(NAME)` from the environment; `None` where neither flag was given.
///
/// # Errors
/// Both flags were given; the file cannot be read, is not valid UTF-8 or is larger than 16 MiB; or a variable is not set.
pub fn load_config(
    flag: &str,
    content: Option<&str>,
    file: Option<&Path>,
) -> Result<Option<String>, LoadConfigError> {
    let text = match (content, file) {
        (Some(_), Some(_)) => return Err(LoadConfigError::Both(flag.to_owned())),
        (Some(content), None) => content.to_owned(),
        (None, Some(path)) => read_bounded(flag, path)?,
        (None, None) => return Ok(None),
    };
    let expanded = expand_env(&text, |name| std::env::var(name).ok());
    expanded.map(Some).map_err(|source| LoadConfigError::Unset { origin: config_origin(flag, file), source })
}

fn read_bounded(flag: &str, path: &Path) -> Result<String, LoadConfigError> {
    use std::io::Read;
    let read = || {
        let mut text = String::new();
        std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|source| LoadConfigError::Read {
        flag: flag.to_owned(),
        path: path.to_owned(),
        source,
    })?;
    if text.len() as u64 > MAX_BYTES {
        return Err(LoadConfigError::TooLarge { flag: flag.to_owned(), path: path.to_owned() });
    }
    Ok(text)
}

/// Replaces each `$(NAME)` by the value that `lookup` returns; other uses of `$` stay as they are.
///
/// A name consists of letters, digits and underscores, and does not begin with a digit.
///
/// # Errors
/// The first name for which `lookup` returns `None`.
pub fn expand_env(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, UnsetVariable> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("$(") {
        let inner = &rest[start + 2..];
        let length = inner.bytes().take_while(|b| *b == b'_' || b.is_ascii_alphanumeric()).count();
        let name = &inner[..length];
        let is_name = !name.is_empty() && !name.as_bytes()[0].is_ascii_digit();
        if is_name && inner[length..].starts_with(')') {
            out.push_str(&rest[..start]);
            out.push_str(&lookup(name).ok_or_else(|| UnsetVariable(name.to_owned()))?);
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
        assert_eq!(error, "contains $(MISSING), but the environment variable MISSING is not set: set it");
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
        assert!(both.starts_with("--objstore.config and --objstore.config-file are both given"), "{both}");
        let absent = load_config("objstore.config", None, Some(&dir.path().join("no"))).unwrap_err();
        assert!(absent.to_string().contains("--objstore.config-file"), "{absent}");
    }
}
