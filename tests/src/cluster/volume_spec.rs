//! The volumes of a pod's specification, and where they are mounted. A kind of volume that is missing here is refused.

use serde::Deserialize;
use serde_json::Value;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct VolumeMount {
    pub(crate) name: String,
    pub(crate) mount_path: String,
    #[serde(default)]
    pub(crate) sub_path: String,
    #[serde(default)]
    pub(crate) read_only: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Volume {
    pub(crate) name: String,
    /// Its size and medium have no effect.
    pub(crate) empty_dir: Option<Value>,
    pub(crate) config_map: Option<KeyVolume>,
    pub(crate) secret: Option<KeyVolume>,
    pub(crate) projected: Option<Projected>,
    pub(crate) persistent_volume_claim: Option<ClaimVolume>,
}

impl Volume {
    /// A volume that is kept by a claim.
    pub(crate) fn of_claim(name: &str, claim: ClaimVolume) -> Self {
        Self {
            name: name.to_owned(),
            empty_dir: None,
            config_map: None,
            secret: None,
            projected: None,
            persistent_volume_claim: Some(claim),
        }
    }
}

/// A volume with the keys of a ConfigMap or of a Secret as files.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct KeyVolume {
    /// A ConfigMap has `name`, a Secret `secretName`; a projected Secret has `name`, too.
    #[serde(alias = "secretName")]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) items: Vec<KeyItem>,
    #[serde(default)]
    pub(crate) optional: bool,
    pub(crate) default_mode: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct KeyItem {
    pub(crate) key: String,
    pub(crate) path: String,
    pub(crate) mode: Option<u32>,
}

/// A volume with the files of several sources.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Projected {
    pub(crate) sources: Vec<ProjectedSource>,
    pub(crate) default_mode: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ProjectedSource {
    pub(crate) config_map: Option<KeyVolume>,
    pub(crate) secret: Option<KeyVolume>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ClaimVolume {
    pub(crate) claim_name: String,
    #[serde(default)]
    pub(crate) read_only: bool,
}
