//! The whole file.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use remotewrite::RemoteWriteConfig;
use runtime::ConfigMistakes;
use runtime::yaml::{Mistake, Mistakes, YamlFields, YamlNode, YamlValue};

use crate::config::global::GlobalConfig;
use crate::config::job::ScrapeConfig;
use crate::config::protocol::NameValidation;
use crate::config::shown::without_secrets;
use crate::config::storage::StorageConfig;
use crate::config::values::text;

/// Largest file that is read, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// A `prometheus.yml`. What it says of rules and alerts is refused by name, because nothing here evaluates them.
#[derive(Clone, Debug)]
pub struct PrometheusConfig {
    /// The text of the file as it may be shown, without secrets.
    pub shown: String,
    /// What holds for all scrape configurations.
    pub global: GlobalConfig,
    /// The scrape configurations, also those of `scrape_config_files`.
    pub scrape_configs: Vec<Arc<ScrapeConfig>>,
    /// Where samples are sent.
    pub remote_write: Vec<RemoteWriteConfig>,
    /// How samples are kept.
    pub storage: StorageConfig,
    /// What is accepted and has no effect or may surprise, for the log.
    pub warnings: Vec<String>,
}

impl PrometheusConfig {
    /// Reads a file, and the files that it names in `scrape_config_files`.
    ///
    /// # Errors
    /// All mistakes, each with its file, line and field.
    pub fn load(path: &Path) -> Result<Self, ConfigMistakes> {
        let text = read_file(path).map_err(ConfigMistakes::from)?;
        Self::parse(text, path)
    }

    /// Reads the text of the file at `path`, which paths in it are relative to.
    ///
    /// # Errors
    /// See [`PrometheusConfig::load`].
    pub fn parse(text: String, path: &Path) -> Result<Self, ConfigMistakes> {
        let mut found = Found::default();
        let mistakes = Mistakes::default();
        let mut warnings = Vec::new();
        let root = match YamlNode::parse(&text) {
            Ok(root) => root,
            Err(mistake) => {
                found.note(path, vec![mistake]);
                return Err(found.mistakes.into_iter().collect());
            }
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut fields = YamlFields::new("", &root, &mistakes);
        let global = fields.node("global");
        let global =
            global.map(|node| GlobalConfig::read(node, &mistakes, &mut warnings)).unwrap_or_default();
        let mut jobs = Jobs { global: &global, names: HashMap::new(), configs: Vec::new() };
        jobs.read(&mut fields, path, folder, &mistakes);
        let included = read_included(&mut fields, folder, &mistakes);
        let storage = fields.node("storage").map(|node| StorageConfig::read(node, &mistakes));
        let remote_write = fields.list("remote_write", |path, node| {
            RemoteWriteConfig::read(
                path,
                node,
                global.validation == NameValidation::Legacy,
                folder,
                &mistakes,
            )
        });
        check_names(&fields, &remote_write);
        read_others(&mut fields, &mut warnings);
        fields.finish();
        found.note(path, mistakes.into_sorted());
        for file in included {
            jobs.read_file(&file, &mut found);
        }
        if !found.mistakes.is_empty() {
            return Err(found.mistakes.into_iter().collect());
        }
        let scrape_configs = jobs.configs.into_iter().map(Arc::new).collect();
        let storage = storage.unwrap_or_default();
        let shown = without_secrets(&text);
        Ok(Self { shown, scrape_configs, remote_write, storage, warnings, global })
    }
}

/// The mistakes of all files.
#[derive(Default)]
struct Found {
    mistakes: Vec<String>,
}

impl Found {
    fn note(&mut self, file: &Path, mistakes: Vec<Mistake>) {
        self.mistakes.extend(mistakes.iter().map(|mistake| format!("{}: {mistake}", file.display())));
    }
}

/// The scrape configurations of all files.
struct Jobs<'a> {
    global: &'a GlobalConfig,
    /// The file of each name.
    names: HashMap<String, PathBuf>,
    configs: Vec<ScrapeConfig>,
}

impl Jobs<'_> {
    fn read(&mut self, fields: &mut YamlFields<'_>, file: &Path, folder: &Path, mistakes: &Mistakes) {
        let read = fields.list("scrape_configs", |path, node| {
            let config = ScrapeConfig::read(path.clone(), node, self.global, folder, mistakes)?;
            if let Some(first) = self.names.insert(config.job_name.clone(), file.to_owned()) {
                let place = if first == file { String::new() } else { format!(" in {}", first.display()) };
                let text = format!("{:?} is the name of another one{place}: rename it", config.job_name);
                mistakes.add(node.line, format!("{path}.job_name"), text);
            }
            Some(config)
        });
        self.configs.extend(read);
    }

    /// Reads a file that has scrape configurations only.
    fn read_file(&mut self, file: &Path, found: &mut Found) {
        let text = match read_file(file) {
            Ok(text) => text,
            Err(why) => return found.mistakes.push(why),
        };
        let root = match YamlNode::parse(&text) {
            Ok(root) => root,
            Err(mistake) => return found.note(file, vec![mistake]),
        };
        let mistakes = Mistakes::default();
        let mut fields = YamlFields::new("", &root, &mistakes);
        self.read(&mut fields, file, file.parent().unwrap_or(Path::new("")), &mistakes);
        fields.finish();
        found.note(file, mistakes.into_sorted());
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
    match read {
        Ok(read) if read as u64 > MAX_BYTES => Err(format!("{}: is larger than 16 MiB", path.display())),
        Ok(_) => Ok(text),
        Err(cause) => Err(format!("{}: cannot be read: {cause}", path.display())),
    }
}

/// The files of `scrape_config_files`, sorted.
fn read_included(fields: &mut YamlFields<'_>, folder: &Path, mistakes: &Mistakes) -> BTreeSet<PathBuf> {
    let listed = fields.list("scrape_config_files", |path, node| {
        let read = text(node).and_then(|text| {
            let is_whole = text.split_once('*').is_none_or(|(_, rest)| !rest.contains('/'));
            match is_whole {
                true => Ok(runtime::matching_files(&folder.join(text))),
                false => Err(format!("{text:?} may contain * only in its last part")),
            }
        });
        read.map_err(|why| mistakes.add(node.line, path, why)).ok()
    });
    listed.into_iter().flatten().collect()
}

fn check_names(fields: &YamlFields<'_>, remote_write: &[RemoteWriteConfig]) {
    for (at, config) in remote_write.iter().enumerate() {
        let is_same = |other: &RemoteWriteConfig| other.name.is_some() && other.name == config.name;
        if remote_write[..at].iter().any(is_same) {
            let name = config.name.as_deref().unwrap_or_default();
            fields.wrong("remote_write", format!("two entries have the name {name:?}: rename one"));
        }
    }
}

/// Sections that are not about scraping.
fn read_others(fields: &mut YamlFields<'_>, warnings: &mut Vec<String>) {
    let is_empty = |node: &YamlNode| match &node.value {
        YamlValue::List(items) => items.is_empty(),
        YamlValue::Map(entries) => entries.is_empty(),
        _ => false,
    };
    if fields.node("rule_files").is_some_and(|node| !is_empty(node)) {
        fields.wrong("rule_files", "rules are not evaluated here; remove it and give the rules to a ruler, or take Prometheus with the sidecar");
    }
    // Without rules, there are no alerts. The file that Prometheus comes with has this section.
    if fields.node("alerting").is_some_and(|node| !is_empty(node)) {
        warnings.push("alerting: has no effect, because no rules are evaluated here".to_owned());
    }
    if fields.node("runtime").is_some() {
        warnings.push("runtime: has no effect, because it is about the garbage collection of Go".to_owned());
    }
    if fields.node("remote_read").is_some_and(|node| !is_empty(node)) {
        fields.wrong(
            "remote_read",
            "is not known here; add the other store to the querier, or take Prometheus with the sidecar",
        );
    }
    if fields.node("tracing").is_some() {
        fields.wrong("tracing", "is not known here; use --tracing.config");
    }
    if fields.node("otlp").is_some_and(|node| !is_empty(node)) {
        fields.wrong(
            "otlp",
            "is not known here, because OTLP is not received; take Prometheus with the sidecar",
        );
    }
}
