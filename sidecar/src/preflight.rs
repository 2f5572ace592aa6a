//! Checks the flags of the running Prometheus: are uploads safe with them?

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use runtime::{format_duration, parse_duration};

/// The block duration that stores and compactors expect.
const USUAL_RANGE: Duration = Duration::from_secs(2 * 3600);

/// Minimum local retention in block ranges: a block is cut half a range late, and there must be time to retry
/// an upload.
const RANGES_KEPT: u32 = 3;

/// The default retention of Prometheus.
const DEFAULT_RETENTION: Duration = Duration::from_secs(15 * 24 * 3600);

/// The requirements of uploads.
#[derive(Clone, Debug)]
pub(crate) struct Preflight {
    /// The list of uploaded blocks, as the sidecar writes it.
    pub(crate) uploaded_file: PathBuf,
    /// `--shipper.ignore-unequal-block-size`.
    pub(crate) ignore_unequal_block_size: bool,
}

/// The settings of a Prometheus that meets the requirements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fit {
    /// Duration of its blocks.
    pub(crate) block_range: Duration,
    /// Warnings for the operator, one line each.
    pub(crate) warnings: Vec<String>,
}

impl Preflight {
    /// Checks the flags of Prometheus. A version that does not report them (2.x before 2.2) is accepted
    /// unchecked.
    ///
    /// # Errors
    /// The problem and the flag that fixes it, in one line.
    pub(crate) fn check(&self, flags: Option<&BTreeMap<String, String>>) -> Result<Fit, String> {
        let mut fit = Fit { block_range: USUAL_RANGE, warnings: Vec::new() };
        let Some(flags) = flags else {
            fit.warnings.push(
                "this Prometheus does not report its flags; make sure that its compaction is off".to_owned(),
            );
            return Ok(fit);
        };
        let flag = |name: &str| flags.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let length = |name: &str| flag(name).and_then(|value| parse_duration(value).ok());
        let delays = self.check_delay(flag("storage.tsdb.delay-compact-file.path"))?;
        let min = length("storage.tsdb.min-block-duration").unwrap_or(USUAL_RANGE);
        // Without the flag, Prometheus uses a tenth of its retention.
        let max = length("storage.tsdb.max-block-duration").filter(|max| !max.is_zero());
        if max != Some(min) && !delays {
            self.check_compaction(min, max, &mut fit)?;
        }
        if min != USUAL_RANGE {
            let min = format_duration(min);
            fit.warnings.push(format!("Prometheus cuts blocks of {min}, stores and compactors expect 2h"));
        }
        let retention = ["storage.tsdb.retention.time", "storage.tsdb.retention"];
        let given = retention.iter().find_map(|name| length(name).filter(|kept| !kept.is_zero()));
        let has_size = flag("storage.tsdb.retention.size")
            .is_some_and(|size| size.trim_end_matches(|c: char| !c.is_ascii_digit()) != "0");
        let kept = given.or((!has_size).then_some(DEFAULT_RETENTION));
        let least = min * RANGES_KEPT;
        if let Some(kept) = kept.filter(|kept| *kept < least) {
            return Err(format!(
                "Prometheus keeps its blocks for {}, which is too short to upload them safely; start Prometheus with \
                 --storage.tsdb.retention.time={} or more",
                format_duration(kept),
                format_duration(least)
            ));
        }
        fit.block_range = min;
        Ok(fit)
    }

    /// Whether Prometheus delays compaction until blocks are uploaded.
    fn check_delay(&self, theirs: Option<&str>) -> Result<bool, String> {
        let Some(theirs) = theirs else { return Ok(false) };
        if is_same_file(Path::new(theirs), &self.uploaded_file) {
            return Ok(true);
        }
        Err(format!(
            "Prometheus reads the list of uploaded blocks from {theirs}, but the sidecar writes it to {}; start Prometheus with \
             --storage.tsdb.delay-compact-file.path={0}, or set --tsdb.path and --shipper.meta-file-name of the sidecar",
            self.uploaded_file.display()
        ))
    }

    fn check_compaction(&self, min: Duration, max: Option<Duration>, fit: &mut Fit) -> Result<(), String> {
        let max = max.map_or_else(|| "unset".to_owned(), format_duration);
        let min = format_duration(min);
        let found =
            format!("Prometheus compacts its blocks (min-block-duration {min}, max-block-duration {max})");
        if self.ignore_unequal_block_size {
            fit.warnings.push(format!(
                "{found}, as --shipper.ignore-unequal-block-size permits: a block that is compacted while the sidecar is \
                 down is uploaded with all blocks in it, also those that are in the bucket"
            ));
            return Ok(());
        }
        Err(format!(
            "{found}, but compaction must be off for uploads; start Prometheus with \
             --storage.tsdb.min-block-duration={min} --storage.tsdb.max-block-duration={min}, or, if it has that flag, \
             with --storage.tsdb.delay-compact-file.path={}",
            self.uploaded_file.display()
        ))
    }
}

/// Whether two paths are the same file, as far as can be checked: a container may have the directory under
/// the same path or not at all.
fn is_same_file(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    clean(a) == clean(b) || real(a).is_some_and(|a| Some(a) == real(b))
}

/// The path without `.` and `..`, as `filepath.Clean` of Go returns it.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ignore: bool, flags: &[(&str, &str)]) -> Result<Fit, String> {
        let preflight = Preflight {
            uploaded_file: "/data/thanos.shipper.json".into(),
            ignore_unequal_block_size: ignore,
        };
        let flags = flags.iter().map(|(name, value)| (format!("storage.tsdb.{name}"), (*value).to_owned()));
        preflight.check(Some(&flags.collect()))
    }

    const OFF: [(&str, &str); 2] = [("min-block-duration", "2h"), ("max-block-duration", "2h")];

    #[test]
    fn prometheus_without_compaction_and_with_enough_retention_is_accepted() {
        let fine = Fit { block_range: USUAL_RANGE, warnings: Vec::new() };
        assert_eq!(check(false, &OFF), Ok(fine.clone()));
        let delayed = [
            ("min-block-duration", "2h"),
            ("max-block-duration", "36h"),
            ("delay-compact-file.path", "/data/./x/../thanos.shipper.json"),
        ];
        assert_eq!(check(false, &delayed), Ok(fine.clone()));
        for kept in [
            ("retention.time", "6h"),
            ("retention", "1d"),
            ("retention.time", "0s"),
            ("retention.size", "1GB"),
        ] {
            assert_eq!(check(false, &[OFF[0], OFF[1], kept]), Ok(fine.clone()), "{kept:?}");
        }
    }

    #[test]
    fn errors_name_the_flag_that_fixes_them() {
        let refused = |flags: &[(&str, &str)], what: &str, mend: &str| {
            let error = check(false, flags).expect_err(what);
            assert!(error.contains(what) && error.contains(mend), "{error}");
        };
        refused(
            &[("min-block-duration", "2h"), ("max-block-duration", "36h")],
            "max-block-duration 1d12h",
            "--storage.tsdb.max-block-duration=2h",
        );
        refused(
            &[("min-block-duration", "2h"), ("max-block-duration", "0s")],
            "unset",
            "/data/thanos.shipper.json",
        );
        refused(
            &[OFF[0], OFF[1], ("delay-compact-file.path", "/other.json")],
            "/other.json",
            "delay-compact-file.path=/data/thanos.shipper.json",
        );
        refused(&[OFF[0], OFF[1], ("retention.time", "4h")], "4h", "--storage.tsdb.retention.time=6h");
        refused(&[OFF[0], OFF[1], ("retention.time", "0s"), ("retention", "2h")], "for 2h", "6h");
    }

    #[test]
    fn unusual_settings_cause_warnings() {
        let warned = |fit: Result<Fit, String>, what: &str| {
            let warnings = fit.expect("it fits").warnings;
            assert!(warnings.len() == 1 && warnings[0].contains(what), "{warnings:?}");
        };
        warned(check(true, &[("min-block-duration", "2h"), ("max-block-duration", "36h")]), "ignore-unequal");
        warned(check(false, &[("min-block-duration", "1h"), ("max-block-duration", "1h")]), "1h");
        let preflight = Preflight { uploaded_file: "x".into(), ignore_unequal_block_size: false };
        warned(preflight.check(None), "does not report its flags");
    }
}
