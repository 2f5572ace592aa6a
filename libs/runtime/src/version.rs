//! The version of the running build.

use std::fmt;
use std::sync::OnceLock;

/// The version of the running build, and how it was built.
///
/// The revision, branch and build date are taken from `ISTHMUS_REVISION`, `ISTHMUS_BRANCH` and
/// `ISTHMUS_BUILD_DATE` when the program is compiled. Where a variable is not set, revision and branch are those of the git
/// checkout ([`BuildVersion::set_checkout`]), or `unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildVersion {
    /// The release, such as `1.2.3`.
    pub version: &'static str,
    /// The commit it was built from.
    pub revision: &'static str,
    /// The branch it was built from.
    pub branch: &'static str,
    /// When it was built.
    pub build_date: &'static str,
    /// The compiler that built it.
    pub rustc: &'static str,
    /// The operating system, such as `linux`.
    pub os: &'static str,
    /// The processor architecture, such as `x86_64`.
    pub arch: &'static str,
}

impl BuildVersion {
    /// This build.
    pub fn current() -> Self {
        let (revision, branch) = CHECKOUT.get().copied().unwrap_or((None, None));
        Self {
            version: env!("CARGO_PKG_VERSION"),
            revision: or_unknown(option_env!("ISTHMUS_REVISION").or(revision)),
            branch: or_unknown(option_env!("ISTHMUS_BRANCH").or(branch)),
            build_date: or_unknown(option_env!("ISTHMUS_BUILD_DATE")),
            rustc: env!("RUNTIME_RUSTC_VERSION"),
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
        }
    }

    /// Sets revision and branch of the git checkout that the program was built from. The program calls it first, so that only
    /// the program is built again after a commit, and not this crate. A second call has no effect.
    pub fn set_checkout(revision: Option<&'static str>, branch: Option<&'static str>) {
        _ = CHECKOUT.set((revision, branch));
    }
}

/// Revision and branch.
static CHECKOUT: OnceLock<(Option<&'static str>, Option<&'static str>)> = OnceLock::new();

fn or_unknown(value: Option<&'static str>) -> &'static str {
    value.unwrap_or("unknown")
}

/// Several lines, as `--version` prints them after the name of the program.
impl fmt::Display for BuildVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, revision, branch, build_date, rustc, os, arch } = self;
        writeln!(f, "version {version} (branch: {branch}, revision: {revision})")?;
        writeln!(f, "  build date:       {build_date}")?;
        writeln!(f, "  rustc version:    {rustc}")?;
        write!(f, "  platform:         {os}/{arch}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_printed_as_prometheus_does() {
        let text = BuildVersion::current().to_string();
        assert!(text.starts_with("version 0."), "{text}");
        assert_eq!(text.lines().count(), 4);
        assert!(BuildVersion::current().rustc.starts_with("1."), "{text}");
    }
}
