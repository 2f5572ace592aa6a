//! Which build this is.

use std::fmt;

/// What is known about the running build.
///
/// The revision, branch and build date are taken from `ISTHMUS_REVISION`, `ISTHMUS_BRANCH` and
/// `ISTHMUS_BUILD_DATE` when the program is compiled, and `unknown` where they are not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The program's name.
    pub program: &'static str,
    /// The release, `1.2.3`.
    pub version: &'static str,
    /// The commit it was built from.
    pub revision: &'static str,
    /// The branch it was built from.
    pub branch: &'static str,
    /// When it was built.
    pub build_date: &'static str,
    /// The least Rust version it is built with.
    pub rustc: &'static str,
    /// Operating system and processor, `linux/x86_64`.
    pub platform: &'static str,
}

impl Version {
    /// This build.
    pub const CURRENT: Version = Version {
        program: "isthmus",
        version: env!("CARGO_PKG_VERSION"),
        revision: or_unknown(option_env!("ISTHMUS_REVISION")),
        branch: or_unknown(option_env!("ISTHMUS_BRANCH")),
        build_date: or_unknown(option_env!("ISTHMUS_BUILD_DATE")),
        rustc: env!("CARGO_PKG_RUST_VERSION"),
        platform: PLATFORM,
    };
}

const fn or_unknown(value: Option<&'static str>) -> &'static str {
    match value {
        Some(value) => value,
        None => "unknown",
    }
}

const PLATFORM: &str = if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
    "linux/x86_64"
} else if cfg!(all(target_os = "linux", target_arch = "aarch64")) {
    "linux/aarch64"
} else if cfg!(all(target_os = "macos", target_arch = "aarch64")) {
    "macos/aarch64"
} else {
    "other"
};

/// Several lines, as `--version` prints them.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Version { program, version, revision, branch, build_date, rustc, platform } = self;
        writeln!(f, "{program}, version {version} (branch: {branch}, revision: {revision})")?;
        writeln!(f, "  build date:       {build_date}")?;
        writeln!(f, "  rust version:     {rustc}")?;
        write!(f, "  platform:         {platform}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_printed_like_that_of_prometheus() {
        let text = Version::CURRENT.to_string();
        assert!(text.starts_with("isthmus, version 0."), "{text}");
        assert_eq!(text.lines().count(), 4);
    }
}
