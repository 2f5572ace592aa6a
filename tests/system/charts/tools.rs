//! The tools that render and validate, which `./tests/run` installs.

use std::path::PathBuf;
use std::process::Command;

/// Oldest and newest version of Kubernetes that the charts support. The oldest is also in `kubeVersion` of the charts.
pub(super) const KUBERNETES: [&str; 2] = ["1.28", "1.37"];

/// Helm 3 and Helm 4, and the `kubectl` that is delivered with them.
pub(super) const VERSIONS: [&str; 2] = ["v32", "v37"];

/// The folder of the tools; `None` without them, after a line that says so.
pub(crate) fn folder() -> Option<PathBuf> {
    let tools = std::env::var_os("ISTHMUS_EMULATORS").map(PathBuf::from).or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
        Some(cache.join("isthmus-tests"))
    })?;
    let folder = tools.join("kubernetes");
    if folder.join("v37/helm").is_file() {
        return Some(folder);
    }
    println!("skipped: there is no helm in {}; ./tests/run installs it", folder.display());
    None
}

/// Runs a tool; standard output if it succeeded, or else standard error.
pub(super) fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{}{}", text(&output.stdout), text(&output.stderr))),
    }
}
