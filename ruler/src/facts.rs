//! What the API and the lists report about the ruler.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use alertmanager::Notifier;
use localstore::{LocalData, LocalLists};
use promapi::{Alertmanager, AlertmanagerDiscovery, RuleGroup, TargetDiscovery};
use querier::ApiFacts;
use runtime::format_duration;

use crate::last_reload::LastReload;
use crate::manager::RuleManager;

/// What the API reports.
pub(crate) struct Facts {
    pub(crate) flags: BTreeMap<String, String>,
    pub(crate) data: LocalData,
    pub(crate) last_reload: Arc<LastReload>,
    pub(crate) retention: Duration,
}

impl ApiFacts for Facts {
    fn flags(&self) -> BTreeMap<String, String> {
        self.flags.clone()
    }

    fn unready(&self) -> Option<String> {
        self.data.database().err().map(|error| error.message().to_owned())
    }

    fn last_reload(&self) -> (bool, Option<SystemTime>) {
        let (is_successful, at) = self.last_reload.get();
        (is_successful, Some(at))
    }

    fn retention(&self) -> String {
        format_duration(self.retention)
    }
}

/// What begins when the data folder is open.
#[derive(Default)]
pub(crate) struct Begun {
    pub(crate) manager: OnceLock<Arc<RuleManager>>,
    pub(crate) notifier: OnceLock<Arc<Notifier>>,
}

/// The lists of the ruler: rules, and the Alertmanagers that it sends to.
pub(crate) struct RulerLists(pub(crate) Arc<Begun>);

impl LocalLists for RulerLists {
    fn targets(&self) -> TargetDiscovery {
        let urls = self.0.notifier.get().map(|notifier| notifier.alertmanagers()).unwrap_or_default();
        let active = urls.into_iter().map(|url| Alertmanager { url }).collect();
        let alertmanagers =
            Some(AlertmanagerDiscovery { active_alertmanagers: active, ..Default::default() });
        TargetDiscovery { alertmanagers, ..TargetDiscovery::default() }
    }

    fn rules(&self) -> Vec<RuleGroup> {
        self.0.manager.get().map(|manager| manager.list()).unwrap_or_default()
    }
}
