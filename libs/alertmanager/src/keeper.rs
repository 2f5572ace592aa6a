//! Writes what happens to the queue into the journal.

use std::time::Duration;

use runtime::Shutdown;
use tokio::sync::watch;
use tracing::{error, info};

use crate::journal::Journal;
use crate::shared::Shared;

/// The pause after a write that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Writes until `until`, and then once more. `saved` is the number of the last change that was written, or could not be.
///
/// Everything that happens during a write is in the next one, so that the queue never waits for the disk.
pub(crate) async fn keep(shared: &Shared, journal: Journal, saved: &watch::Sender<u64>, until: Shutdown) {
    let (mut version, mut journal) = (shared.version(), Some(journal));
    let mut is_failing = false;
    loop {
        let is_last = until.is_triggered();
        let number = *version.borrow_and_update();
        let Some(mut own) = journal.take() else { return };
        let changes = shared.look(|queue| queue.take_changes(own.wants_all()));
        if changes.is_empty() {
            journal = Some(own);
        } else {
            let written = tokio::task::spawn_blocking(move || {
                let result = own.write(&changes);
                (own, result)
            });
            // The task cannot be cancelled; if it panics, there is no journal any more.
            let Ok((own, result)) = written.await else { return };
            journal = Some(own);
            match result {
                Ok(()) if is_failing => info!("the queue of alerts can be written to the disk again"),
                Ok(()) => {}
                Err(cause) => {
                    shared.metrics().journal_failed();
                    if !is_failing {
                        error!(error = %cause, "the queue of alerts cannot be written to the disk: a restart would lose alerts that wait");
                    }
                }
            }
            is_failing = journal.as_ref().is_some_and(Journal::has_failed);
        }
        saved.send_replace(number);
        if is_last {
            return;
        }
        if is_failing {
            let _ = until.until_triggered(tokio::time::sleep(PAUSE)).await;
        } else {
            let _ = until.until_triggered(version.changed()).await;
        }
    }
}
