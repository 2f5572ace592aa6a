//! Reloading of configuration, by SIGHUP or `POST /-/reload`.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use tracing::{error, info};

use crate::role_error::BoxError;

type ReloadHook = Arc<dyn Fn() -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;

/// The hooks that a reload runs; clones share them.
///
/// Hooks run one after the other in the order of registration, and two reloads never overlap. When a hook fails, its part
/// of the configuration stays as it was, and the other hooks still run.
#[derive(Clone, Default)]
pub struct Reload {
    hooks: Arc<Mutex<Vec<(String, ReloadHook)>>>,
    running: Arc<tokio::sync::Mutex<()>>,
}

/// The hooks that failed: `NAME: CAUSE` for each, joined with `; `.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ReloadError(String);

impl Reload {
    /// No hooks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a hook. `name` is what it reloads, such as the name of a file.
    pub fn register<F, Fut>(&self, name: impl Into<String>, hook: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let hook: ReloadHook = Arc::new(move || Box::pin(hook()));
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner).push((name.into(), hook));
    }

    /// Runs all hooks.
    ///
    /// # Errors
    /// The hooks that failed, with their causes; all others have taken effect.
    ///
    /// # Cancel safety
    /// A reload that is dropped stops between two hooks or inside one; run it in a task of its own.
    pub async fn run(&self) -> Result<(), ReloadError> {
        let _one_at_a_time = self.running.lock().await;
        let hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut failures = Vec::new();
        for (name, hook) in hooks {
            match hook().await {
                Ok(()) => info!(what = %name, "reloaded the configuration"),
                Err(cause) => {
                    error!(what = %name, error = %cause, "the reload failed, the old configuration stays in use");
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
    async fn a_failing_hook_is_named_and_the_other_hooks_still_run() {
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
