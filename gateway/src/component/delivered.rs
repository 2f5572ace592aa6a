//! An issuing CA that is delivered in a folder (`pki.issuer_dir`), such as a mounted Secret: it is taken over at the start and whenever it
//! changes.

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use pki::{Delivered, DeliveredIssuer, Issuer};
use runtime::RoleError;
use tokio::time::{Duration, MissedTickBehavior, interval};

use crate::config::ObservabilityRole;

/// How often the folder is looked at. Kubernetes updates a mounted Secret about once in a minute.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Takes over the issuing CA at the start, if one is delivered.
///
/// # Errors
/// It cannot be used, and there is no state directory from an earlier start. With one, the error is logged, and the CA there is used.
pub(super) fn take_over(role: &ObservabilityRole) -> Result<(), RoleError> {
    let Some(delivered) = &role.delivered else { return Ok(()) };
    match delivered.take_over(&role.pki_state, SystemTime::now()) {
        Ok(taken) => log(&taken),
        Err(error) if Issuer::open(&role.pki_state).is_ok() => {
            tracing::error!(error = %error, "the delivered issuing CA cannot be used, the one in use stays");
        }
        Err(error) => return Err(RoleError::wrong_configuration(format!("pki.issuer_dir: {error}"))),
    }
    Ok(())
}

/// Takes over what changes in the folder. A change is logged, and why it cannot be used.
pub(super) async fn watch(delivered: DeliveredIssuer, state: PathBuf) {
    let delivered = Arc::new(delivered);
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = None;
    loop {
        ticks.tick().await;
        let version = delivered.version();
        if seen.replace(version) == Some(version) {
            continue;
        }
        let (from, to) = (delivered.clone(), state.clone());
        let taken = tokio::task::spawn_blocking(move || from.take_over(&to, SystemTime::now())).await;
        let error = match taken {
            Ok(Ok(taken)) => {
                log(&taken);
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic.to_string(),
        };
        tracing::error!(error, "the delivered issuing CA cannot be used, the one in use stays");
    }
}

fn log(taken: &Delivered) {
    if taken.created {
        tracing::warn!("created a state directory with an empty inventory for the delivered issuing CA");
    }
    if taken.issuing_ca_until.is_some() {
        tracing::info!("uses the delivered issuing CA");
    }
    if let Some(sequence) = taken.bundle_sequence {
        tracing::info!(sequence, "uses the delivered trust bundle");
    }
}
