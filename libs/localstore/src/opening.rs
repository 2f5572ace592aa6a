//! The opening of a data folder, which may take longer than a start-up should.

use std::path::Path;
use std::time::{Duration, Instant};

use head::{Database, DatabaseOptions, HeadError, OpenedDatabase};
use runtime::{RoleError, Shutdown};
use tracing::{error, info, warn};

/// A data folder that cannot be opened is usually refused within this time, before anything is served.
const FIRST_LOOK: Duration = Duration::from_millis(500);

type Opening = tokio::task::JoinHandle<Result<(Database, OpenedDatabase), HeadError>>;

/// A data folder that is open, or is being opened. No other process can use it.
pub struct FolderOpening {
    state: OpeningState,
    began: Instant,
}

enum OpeningState {
    Opened(Box<(Database, OpenedDatabase)>),
    Going(Opening),
}

impl FolderOpening {
    /// Begins to open the folder of `--data-dir`.
    ///
    /// # Errors
    /// It cannot be opened, which was found at once.
    pub async fn begin(dir: &Path, options: DatabaseOptions) -> Result<Self, RoleError> {
        let (dir, began) = (dir.to_owned(), Instant::now());
        let mut opening: Opening = tokio::task::spawn_blocking(move || Database::open(&dir, options));
        let state = match tokio::time::timeout(FIRST_LOOK, &mut opening).await {
            Ok(opened) => OpeningState::Opened(Box::new(opened?.map_err(wrong_folder)?)),
            Err(_) => OpeningState::Going(opening),
        };
        Ok(Self { state, began })
    }

    /// Waits until it is open, and logs what was found; `None` if the shutdown came first.
    ///
    /// # Errors
    /// It cannot be opened.
    pub async fn finish(self, shutdown: &Shutdown) -> Result<Option<(Database, OpenedDatabase)>, RoleError> {
        let (database, opened) = match self.state {
            OpeningState::Opened(opened) => *opened,
            OpeningState::Going(opening) => match shutdown.until_triggered(opening).await {
                Some(opened) => opened?.map_err(wrong_folder)?,
                None => return Ok(None),
            },
        };
        report(&opened, self.began.elapsed());
        Ok(Some((database, opened)))
    }
}

fn wrong_folder(cause: HeadError) -> RoleError {
    match cause {
        HeadError::Locked(_) => RoleError::wrong_configuration(format!(
            "--data-dir: {cause}; stop it, or choose a folder of its own"
        )),
        cause => RoleError::failed(format!("--data-dir: {cause}")),
    }
}

/// Logs what was found when the data folder was opened.
fn report(opened: &OpenedDatabase, took: Duration) {
    let replay = &opened.replay;
    info!(samples = replay.samples, chunks = replay.chunks, ?took, "the data folder is open");
    for part in &replay.damaged {
        error!(
            file = %part.path.display(),
            at = part.at,
            lost_bytes = part.lost,
            reason = part.reason,
            "a file was damaged and is cut before the damage, its later samples are lost"
        );
    }
    for block in &opened.damaged {
        error!(error = %block, "a block cannot be read, answers over its time have a warning");
    }
    if replay.without_series > 0 || replay.damaged_records > 0 {
        warn!(
            samples = replay.without_series,
            records = replay.damaged_records,
            "parts of the write-ahead log could not be used"
        );
    }
}
