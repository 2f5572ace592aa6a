//! Reads the rule files again.

use std::sync::Arc;

use rules::{RuleFile, RuleFileOptions};
use runtime::BoxError;
use tracing::{info, warn};

use crate::facts::Begun;
use crate::last_reload::LastReload;
use crate::manager::RuleManager;
use crate::rule_files::{RuleFiles, read_rule_files};

/// The rule files, and the rules in use.
pub(crate) struct Reloading {
    pub(crate) patterns: Vec<String>,
    pub(crate) options: RuleFileOptions,
    pub(crate) last: Arc<LastReload>,
    pub(crate) begun: Arc<Begun>,
    /// What was read before the rules began. It is locked while rules are applied.
    pub(crate) waiting: tokio::sync::Mutex<Option<Vec<(String, RuleFile)>>>,
}

impl Reloading {
    /// Reads the files again and applies them.
    ///
    /// # Errors
    /// Every mistake of every file; the rules stay as they are.
    pub(crate) async fn reload(self: Arc<Self>) -> Result<(), BoxError> {
        let this = Arc::clone(&self);
        let read =
            tokio::task::spawn_blocking(move || read_rule_files(&this.patterns, &this.options)).await?;
        self.last.set(read.is_ok());
        self.apply(read?).await;
        Ok(())
    }

    /// Applies what was read, now or when the rules begin.
    pub(crate) async fn apply(&self, read: RuleFiles) {
        log_read(&read);
        let mut waiting = self.waiting.lock().await;
        match self.begun.manager.get() {
            Some(manager) => manager.apply(read.files).await,
            None => *waiting = Some(read.files),
        }
    }

    /// Begins to evaluate the rules.
    pub(crate) async fn begin(&self, manager: Arc<RuleManager>) {
        let mut waiting = self.waiting.lock().await;
        let files = waiting.take().unwrap_or_default();
        // Rules begin once.
        let manager = self.begun.manager.get_or_init(|| manager);
        manager.apply(files).await;
    }
}

fn log_read(read: &RuleFiles) {
    read.warnings.iter().for_each(|warning| warn!("{warning}"));
    let groups = || read.files.iter().flat_map(|(_, file)| &file.groups);
    let rules: usize = groups().map(|group| group.rules.len()).sum();
    info!(files = read.files.len(), groups = groups().count(), rules, "read the rule files");
}
