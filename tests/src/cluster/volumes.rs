//! Volumes as folders of this machine.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use crate::cluster::objects::Object;
use crate::cluster::state::{Kube, Pod};
use crate::cluster::volume_spec::{KeyVolume, Volume};

/// The mode of a file for which none is set.
const DEFAULT_MODE: u32 = 0o644;

/// The files of a volume by their path: the mode and the bytes.
type Files = BTreeMap<String, (u32, Vec<u8>)>;

/// The volumes of a pod.
#[derive(Default)]
pub(crate) struct Volumes {
    pub(crate) folders: BTreeMap<String, PathBuf>,
    /// What was written last into volumes of ConfigMaps and Secrets.
    written: BTreeMap<String, Files>,
    /// Counts the versions of such volumes.
    version: u32,
}

impl Volumes {
    /// Creates the volumes of `pod`, or what is missing of them, and writes changed ConfigMaps and Secrets.
    ///
    /// `folder` is that of the pod; `claims` contains the volumes that outlive pods.
    ///
    /// # Errors
    /// If a ConfigMap, a Secret or a claim does not exist, or if another pod uses the claim.
    pub(crate) fn update(
        &mut self,
        kube: &Kube,
        pod: &Pod,
        folder: &Path,
        claims: &Path,
    ) -> Result<(), String> {
        for volume in &pod.spec.volumes {
            let at = |cause: std::io::Error| format!("volume {}: {cause}", volume.name);
            let group = pod.spec.security_context.fs_group;
            let within = folder.join("volumes").join(&volume.name);
            let path = if let Some(claim) = &volume.persistent_volume_claim {
                check_claim(kube, pod, &claim.claim_name)?;
                let path = claims.join(&kube.name).join(&pod.namespace).join(&claim.claim_name);
                create(&path, 0o755, group).map_err(at)?;
                path
            } else if volume.empty_dir.is_some() {
                create(&within, 0o777, group).map_err(at)?;
                within
            } else {
                let files = files(kube, &pod.namespace, volume)?;
                create(&within, 0o755, group).map_err(at)?;
                if self.written.get(&volume.name) != Some(&files) {
                    self.version += 1;
                    write(&within, self.version, &files, group).map_err(at)?;
                    self.written.insert(volume.name.clone(), files);
                }
                within
            };
            self.folders.insert(volume.name.clone(), path);
        }
        Ok(())
    }
}

/// Whether a volume is read-only in every container.
pub(crate) fn is_read_only(volume: &Volume) -> bool {
    match &volume.persistent_volume_claim {
        Some(claim) => claim.read_only,
        None => volume.empty_dir.is_none(),
    }
}

/// A volume that only one pod may use is not attached to a second one, which would be on another machine.
fn check_claim(kube: &Kube, pod: &Pod, name: &str) -> Result<(), String> {
    let Some(Object::Claim(claim)) = kube.object("PersistentVolumeClaim", &pod.namespace, name) else {
        return Err(format!("PersistentVolumeClaim {name} does not exist"));
    };
    let uses = |other: &&Pod| {
        let mut claims =
            other.spec.volumes.iter().filter_map(|volume| volume.persistent_volume_claim.as_ref());
        other.namespace == pod.namespace && claims.any(|claim| claim.claim_name == name)
    };
    let earlier = kube.pods.iter().filter(|other| other.number < pod.number).find(uses);
    match earlier {
        Some(other) if !claim.is_shared => {
            Err(format!("PersistentVolumeClaim {name} is in use by {}", other.name))
        }
        _ => Ok(()),
    }
}

/// Creates a folder if it does not exist. The group of the pod may write into it.
fn create(path: &Path, mode: u32, group: Option<u32>) -> std::io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    if group.is_some() {
        chown(path, None, group)?;
    }
    let mode = if group.is_some() { mode | 0o2770 } else { mode };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// The files of a volume of ConfigMaps and Secrets.
fn files(kube: &Kube, namespace: &str, volume: &Volume) -> Result<Files, String> {
    let mut all = Files::new();
    let mut add = |kind: &str, source: &Option<KeyVolume>, mode: Option<u32>| {
        let Some(source) = source else { return Ok(()) };
        let mode = source.default_mode.or(mode).unwrap_or(DEFAULT_MODE);
        let Some(files) = kube.files(kind, namespace, &source.name) else {
            let missing = format!("volume {}: {kind} {} does not exist", volume.name, source.name);
            return if source.optional { Ok(()) } else { Err(missing) };
        };
        if source.items.is_empty() {
            all.extend(files.iter().map(|(key, bytes)| (key.clone(), (mode, bytes.clone()))));
        }
        for item in &source.items {
            match files.get(&item.key) {
                Some(bytes) => {
                    all.insert(item.path.clone(), (item.mode.unwrap_or(mode), bytes.clone()));
                }
                None if source.optional => {}
                None => {
                    return Err(format!(
                        "volume {}: {kind} {} has no key {}",
                        volume.name, source.name, item.key
                    ));
                }
            }
        }
        Ok(())
    };
    add("ConfigMap", &volume.config_map, None)?;
    add("Secret", &volume.secret, None)?;
    for source in volume.projected.iter().flat_map(|projected| &projected.sources) {
        let mode = volume.projected.as_ref().and_then(|projected| projected.default_mode);
        add("ConfigMap", &source.config_map, mode)?;
        add("Secret", &source.secret, mode)?;
    }
    Ok(all)
}

/// Replaces the files of a volume in one step, as the kubelet does: they are in a folder that `..data` leads to.
fn write(volume: &Path, version: u32, files: &Files, group: Option<u32>) -> std::io::Result<()> {
    let name = format!("..{version}");
    let folder = volume.join(&name);
    create(&folder, 0o755, group)?;
    let mut entries: Vec<&str> = Vec::new();
    for (path, (mode, bytes)) in files {
        let file = folder.join(path);
        if let Some(parent) = file.parent() {
            create(parent, 0o755, group)?;
        }
        fs::write(&file, bytes)?;
        chown(&file, None, group)?;
        let mode = if group.is_some() { mode | 0o440 } else { *mode };
        fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
        entries.extend(path.split('/').next());
    }
    let previous = fs::read_link(volume.join("..data")).ok();
    symlink(&name, volume.join("..next"))?;
    fs::rename(volume.join("..next"), volume.join("..data"))?;
    for entry in fs::read_dir(volume)? {
        let entry = entry?.file_name();
        let is_gone =
            entry.to_str().is_some_and(|entry| !entry.starts_with("..") && !entries.contains(&entry));
        if is_gone {
            fs::remove_file(volume.join(entry))?;
        }
    }
    for entry in entries {
        let link = volume.join(entry);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(entry), link)?;
        }
    }
    match previous {
        Some(previous) => fs::remove_dir_all(volume.join(previous)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(volume: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(volume)
            .expect("a folder")
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| !name.starts_with(".."))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_replaced_in_one_step() {
        let dir = tempfile::tempdir().expect("a folder");
        let volume = dir.path();
        let files = |all: &[(&str, &str)]| -> Files {
            all.iter().map(|(path, text)| ((*path).to_owned(), (0o600, text.as_bytes().to_vec()))).collect()
        };
        write(volume, 1, &files(&[("a", "1"), ("deep/b", "2")]), None).expect("written");
        let open = fs::File::open(volume.join("a")).expect("a file");
        write(volume, 2, &files(&[("a", "3"), ("c", "4")]), None).expect("written");
        assert_eq!(listed(volume), ["a", "c"]);
        assert_eq!(fs::read_to_string(volume.join("a")).expect("a file"), "3");
        assert_eq!(std::io::read_to_string(open).expect("the old file"), "1");
        assert_eq!(fs::metadata(volume.join("c")).expect("a file").permissions().mode() & 0o777, 0o600);
        assert!(!volume.join("..1").exists());
    }
}
