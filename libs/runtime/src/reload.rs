//! Reloading of configuration, by SIGHUP or `POST /-/reload`.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use tracing::{error, info};

use crate::BoxError;

type Hook = Arc<dyn Fn() -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;

/// The list of what is reloaded; clones share it.
///
/// Hooks run one after the other in the order of registration, and two reloads never overlap. A hook that
/// fails leaves its part on the old configuration and does not stop the others.
#[derive(Clone, Default)]
pub struct Reload {
    hooks: Arc<Mutex<Vec<(String, Hook)>>>,
    running: Arc<tokio::sync::Mutex<()>>,
}

/// What could not be reloaded: one `name: cause` each, joined with `; `.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ReloadError(String);

impl Reload {
    /// A list without hooks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a hook under the name of what it reloads, such as a file's.
    pub fn register<F, Fut>(&self, name: impl Into<String>, hook: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let hook: Hook = Arc::new(move || Box::pin(hook()));
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner).push((name.into(), hook));
    }

    /// Runs all hooks.
    ///
    /// # Errors
    /// Names every hook that failed, with its cause; the others have taken effect.
    ///
    /// # Cancel safety
    /// A reload that is dropped stops between or inside hooks; run it in a task of its own.
    pub async fn run(&self) -> Result<(), ReloadError> {
        let _one_at_a_time = self.running.lock().await;
        let hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut failures = Vec::new();
        for (name, hook) in hooks {
            match hook().await {
                Ok(()) => info!(what = %name, "reloaded"),
                Err(cause) => {
                    error!(what = %name, error = %cause, "reload failed, the old configuration stays");
                    failures.push(format!("{name}: {cause}"));
                }
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(ReloadError(failures.join("; "))) }
    }
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_list().entries(hooks.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_failing_hook_is_named_and_does_not_stop_the_others() {
        let reload = Reload::new();
        let ran = Arc::new(AtomicUsize::new(0));
        reload.register("rules.yaml", || async { Err("line 3: no such field".into()) });
        reload.register("stores.yaml", {
            let ran = Arc::clone(&ran);
            move || {
                ran.fetch_add(1, Ordering::SeqCst);
                async { Ok(()) }
            }
        });
        let error = reload.run().await.unwrap_err();
        assert_eq!(error.to_string(), "rules.yaml: line 3: no such field");
        assert_eq!(ran.load(Ordering::SeqCst), 1);
    }
}
