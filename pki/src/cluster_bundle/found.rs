//! Reads a bundle back, whichever format it has: what is in it decides, not what it is called.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use identity::{Secret, read_bounded};
use serde_json::Value;

use crate::{
    TOKEN_PREFIX,
    cluster_bundle::{LAST_LINE, annotations},
    error::PkiError,
};

/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Files of a folder that are read.
const MAX_FILES: usize = 64;

/// A part of a bundle, and where it was found.
#[derive(Debug)]
pub(crate) struct Part<T> {
    pub(crate) found_in: String,
    pub(crate) content: T,
}

/// Which token a bundle was written with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenDescription {
    pub(crate) id: String,
    /// In UTC, as the inventory writes times.
    pub(crate) expires_at: String,
}

/// What was found in the files of a bundle.
#[derive(Debug, Default)]
pub(crate) struct FoundBundle {
    /// Configurations of gateways.
    pub(crate) gateways: Vec<Part<Value>>,
    /// Configurations of scrapers and of Prometheus.
    pub(crate) scrapers: Vec<Part<Value>>,
    /// Values of the Helm chart.
    pub(crate) values: Vec<Part<Value>>,
    pub(crate) tokens: Vec<Part<Secret<String>>>,
    pub(crate) descriptions: Vec<TokenDescription>,
    /// What is created, such as `ConfigMap eu-1-gateway`.
    pub(crate) created: Vec<String>,
}

impl FoundBundle {
    /// Reads files, and all files of folders.
    ///
    /// # Errors
    /// A file cannot be read, is too large, or is not YAML.
    pub(crate) fn read(paths: &[PathBuf]) -> Result<Self, PkiError> {
        let mut found = Self::default();
        for path in paths {
            if !path.is_dir() {
                found.read_file(path)?;
                continue;
            }
            let entries = fs::read_dir(path).map_err(PkiError::io("read", path))?;
            let mut files: Vec<PathBuf> =
                entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|file| file.is_file()).collect();
            if files.len() > MAX_FILES {
                return Err(PkiError::Usage(format!(
                    "{}: has {} files, expected a bundle",
                    path.display(),
                    files.len()
                )));
            }
            files.sort();
            files.iter().try_for_each(|file| found.read_file(file))?;
        }
        Ok(found)
    }

    fn read_file(&mut self, path: &Path) -> Result<(), PkiError> {
        let name = path.display().to_string();
        let wrong = |why: String| PkiError::Usage(format!("{name}: {why}"));
        let bytes = Secret::new(read_bounded(path, MAX_FILE_BYTES).map_err(PkiError::io("read", path))?);
        let text = std::str::from_utf8(bytes.expose()).map_err(|_| wrong("not valid UTF-8".into()))?;
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        if let Some(end) = text.lines().find_map(|line| line.strip_prefix(LAST_LINE))
            && last != Some(end)
        {
            return Err(wrong(format!("is cut off: its last line is not {end:?}; copy it again, whole")));
        }
        if text.starts_with(TOKEN_PREFIX) {
            self.tokens.push(Part { found_in: name, content: Secret::new(text.to_owned()) });
            return Ok(());
        }
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("service") => self.created.push(format!("unit {}", file_name(path))),
            Some("yaml" | "yml" | "json") | None => {
                // A text without a mapping, such as the one for people, has nothing that is read.
                let is_text = path.extension().is_none() && !text.contains("\nkind:");
                if !is_text {
                    documents(text).map_err(wrong)?.into_iter().for_each(|value| self.sort(&name, value));
                }
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Sorts a document by what it is.
    fn sort(&mut self, found_in: &str, value: Value) {
        let part = |content| Part { found_in: found_in.to_owned(), content };
        if value["apiVersion"].is_string() && value["kind"].is_string() {
            self.sort_object(&value);
        } else if value["role"] == "cluster" {
            self.gateways.push(part(value));
        } else if value["scrape_configs"].is_array() {
            self.scrapers.push(part(value));
        } else if let Some(services) = value["services"].as_object() {
            self.created.extend(services.keys().map(|name| format!("container {name}")));
        } else if value["token"]["id"].is_string() {
            self.descriptions.extend(described(&value["token"]["id"], &value["token"]["expires_at"]));
        } else if value["cluster"].is_string() {
            self.values.push(part(value));
        }
    }

    /// Sorts an object of Kubernetes, and looks into ConfigMaps and Secrets.
    fn sort_object(&mut self, object: &Value) {
        let kind = object["kind"].as_str().unwrap_or_default();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let object_name = format!("{kind} {name}").escape_debug().to_string();
        let texts = |field: &str| -> Vec<(String, String)> {
            let entries = object[field].as_object().into_iter().flatten();
            entries.filter_map(|(key, text)| Some((key.clone(), text.as_str()?.to_owned()))).collect()
        };
        match kind {
            "ConfigMap" => {
                for (key, text) in texts("data") {
                    for value in documents(&text).unwrap_or_default() {
                        if value["role"] == "cluster" || value["scrape_configs"].is_array() {
                            self.sort(&format!("{object_name}, {key}"), value);
                        }
                    }
                }
            }
            "Secret" => {
                let decoded = texts("data").into_iter().filter_map(|(key, text)| {
                    let bytes = STANDARD.decode(text.trim()).ok()?;
                    Some((key, String::from_utf8(bytes).ok()?))
                });
                for (key, text) in texts("stringData").into_iter().chain(decoded) {
                    if text.starts_with(TOKEN_PREFIX) {
                        let found_in = format!("{object_name}, {key}");
                        self.tokens.push(Part { found_in, content: Secret::new(text) });
                    }
                }
                let annotations = &object["metadata"]["annotations"];
                self.descriptions.extend(described(
                    &annotations[annotations::TOKEN_ID],
                    &annotations[annotations::TOKEN_END],
                ));
            }
            _ => {}
        }
        self.created.push(object_name);
    }
}

/// The tokens that a bundle was written with; several ids have commas between them.
fn described(ids: &Value, expires_at: &Value) -> Vec<TokenDescription> {
    let (Some(ids), Some(expires_at)) = (ids.as_str(), expires_at.as_str()) else { return Vec::new() };
    let describe = |id: &str| TokenDescription { id: id.to_owned(), expires_at: expires_at.to_owned() };
    ids.split(',').map(describe).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The documents of a YAML text. The error is one line.
fn documents(text: &str) -> Result<Vec<Value>, String> {
    serde_saphyr::from_multiple::<Value>(text).map_err(|error| {
        let error = error.without_snippet().to_string();
        format!("is not valid YAML: {}", error.lines().next().unwrap_or_default())
    })
}
