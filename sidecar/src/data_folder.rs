//! Checks that `--tsdb.path` is the data directory of the Prometheus at `--prometheus.url`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::Timestamp;
use shipper::oldest_block;

/// What Prometheus reports about its data.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReportedData {
    /// The URL of Prometheus.
    pub(crate) url: String,
    /// Its data directory; `None` if it does not report it, or a relative one whose working directory is unknown.
    pub(crate) folder: Option<PathBuf>,
    /// Time of its oldest data, to the second.
    pub(crate) lowest: Option<Timestamp>,
}

impl ReportedData {
    /// Combines the flags of Prometheus with its working directory, on which a relative path depends.
    pub(crate) fn new(
        url: &str,
        flags: Option<&BTreeMap<String, String>>,
        working_directory: Option<&str>,
        lowest: Option<Timestamp>,
    ) -> Self {
        let path = flags.and_then(|flags| flags.get("storage.tsdb.path")).map(PathBuf::from);
        let folder = path.and_then(|path| match path.is_absolute() {
            true => Some(path),
            false => working_directory.map(|directory| Path::new(directory).join(path)),
        });
        Self { url: url.to_owned(), folder, lowest }
    }
}

/// The data directory of the sidecar, and what was found in it last.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    /// The problem that the last check found. Prometheus may load or remove a block during a check, so that only a problem
    /// that is found twice is reported.
    last: Option<String>,
}

impl DataFolder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, last: None }
    }

    /// A warning if this is not the data directory of Prometheus. The blocks decide where there are any, because containers
    /// may have one directory at different paths. Reads the directory on a thread for blocking work.
    pub(crate) async fn check(&mut self, reported: ReportedData) -> Option<String> {
        let path = self.path.clone();
        let found = tokio::task::spawn_blocking(move || mismatch(&path, &reported)).await.ok().flatten();
        let again = found.clone().filter(|found| self.last.as_ref() == Some(found));
        self.last = found;
        again
    }
}

/// Why `ours` is not the data directory of Prometheus; `None` if it may be.
fn mismatch(ours: &Path, reported: &ReportedData) -> Option<String> {
    let theirs = reported.folder.as_deref();
    let evidence = match oldest_block(ours) {
        // The shipper reports a directory that cannot be read.
        Err(_) => return None,
        Ok(_) if !ours.join("wal").is_dir() => Some("it has no write-ahead log".to_owned()),
        Ok(Some(oldest)) => {
            let (oldest, lowest) = (oldest.as_millis().div_euclid(1000), reported.lowest?);
            let lowest = lowest.as_millis().div_euclid(1000);
            if oldest == lowest {
                return None;
            }
            Some(format!("its oldest block begins at {oldest} s, but Prometheus reports {lowest} s"))
        }
        Ok(None) => None,
    };
    let is_same = |theirs: &Path| {
        let real = |path: &Path| path.canonicalize().ok();
        ours == theirs || real(theirs).is_some_and(|theirs| Some(theirs) == real(ours))
    };
    let evidence = match evidence {
        Some(evidence) => evidence,
        None if theirs.is_none_or(is_same) => return None,
        None => "the paths differ".to_owned(),
    };
    let theirs = theirs.map_or_else(String::new, |theirs| format!(", which is {}", theirs.display()));
    Some(format!(
        "--tsdb.path {} is not the data directory of the Prometheus at {}{theirs}: {evidence}; set --prometheus.url and \
         --tsdb.path to the same Prometheus",
        ours.display(),
        reported.url
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;
    use tsdb::{BlockMeta, META_FILE, Ulid};

    use super::*;

    fn reported(folder: Option<&Path>, lowest_millis: i64) -> ReportedData {
        let lowest = Some(Timestamp::from_millis(lowest_millis));
        ReportedData { url: "http://p:9090".to_owned(), folder: folder.map(Path::to_owned), lowest }
    }

    fn with_wal() -> TempDir {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("wal")).unwrap();
        dir
    }

    fn add_block(dir: &Path, min_millis: i64) {
        let id = Ulid(min_millis as u128);
        let meta =
            BlockMeta::new(id, Timestamp::from_millis(min_millis), Timestamp::from_millis(min_millis + 1));
        let block = dir.join(id.to_string());
        fs::create_dir(&block).unwrap();
        fs::write(block.join(META_FILE), meta.to_json()).unwrap();
    }

    #[test]
    fn relative_path_is_relative_to_the_working_directory_of_prometheus() {
        let flags = |path: &str| BTreeMap::from([("storage.tsdb.path".to_owned(), path.to_owned())]);
        let folder = |path, directory| ReportedData::new("", Some(&flags(path)), directory, None).folder;
        assert_eq!(folder("data/", Some("/prometheus")), Some("/prometheus/data".into()));
        assert_eq!(folder("data/", None), None);
        assert_eq!(folder("/data", Some("/prometheus")), Some("/data".into()));
    }

    #[test]
    fn paths_decide_where_there_are_no_blocks() {
        let (ours, other) = (with_wal(), with_wal());
        assert_eq!(mismatch(ours.path(), &reported(Some(ours.path()), 0)), None);
        assert_eq!(
            mismatch(
                ours.path(),
                &reported(Some(&ours.path().join("../").join(ours.path().file_name().unwrap())), 0)
            ),
            None
        );
        assert_eq!(mismatch(ours.path(), &reported(None, 0)), None);
        assert_eq!(mismatch(Path::new("/no/such/folder"), &reported(None, 0)), None);
        let text = mismatch(ours.path(), &reported(Some(other.path()), 0)).unwrap();
        assert!(
            text.contains(&other.path().display().to_string()) && text.contains("the paths differ"),
            "{text}"
        );
        let empty = TempDir::new().unwrap();
        let text = mismatch(empty.path(), &reported(Some(empty.path()), 0)).unwrap();
        assert!(text.contains("no write-ahead log"), "{text}");
    }

    #[tokio::test]
    async fn blocks_decide_before_paths_and_a_problem_must_be_found_twice() {
        let (ours, other) = (with_wal(), with_wal());
        add_block(ours.path(), 7_200_500);
        add_block(ours.path(), 14_400_000);
        let mut folder = DataFolder::new(ours.path().to_owned());
        for _ in 0..2 {
            assert_eq!(folder.check(reported(Some(other.path()), 7_200_000)).await, None, "the same blocks");
        }
        assert_eq!(folder.check(reported(Some(ours.path()), 3_600_000)).await, None, "found once");
        let text = folder.check(reported(Some(ours.path()), 3_600_000)).await.unwrap();
        assert!(text.contains("begins at 7200 s, but Prometheus reports 3600 s"), "{text}");
        assert!(text.contains("http://p:9090"), "{text}");
        assert_eq!(folder.check(reported(Some(ours.path()), 7_200_000)).await, None);
    }
}
