//! Checks passwords against bcrypt hashes, which takes tens of milliseconds on purpose, and remembers the results.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use tokio::sync::Semaphore;

/// Results that are remembered.
const REMEMBERED: usize = 100;

/// Compared with the password of a user that does not exist, so that an answer takes as long as for one that does.
const NOBODY: &str = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";

/// Checks passwords, one at a time.
pub(super) struct PasswordCheck {
    /// Results are remembered under this key, not under passwords.
    key: hmac::Key,
    results: Mutex<HashMap<Vec<u8>, bool>>,
    one_at_a_time: Arc<Semaphore>,
}

impl PasswordCheck {
    pub(super) fn new() -> Result<Self, String> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.map_err(|_| "the system has no random numbers".to_owned())?;
        Ok(Self { key, results: Mutex::default(), one_at_a_time: Arc::new(Semaphore::new(1)) })
    }

    /// Whether one of `users` has this name and password.
    pub(super) async fn is_valid(&self, users: &[(String, String)], name: &str, password: &str) -> bool {
        let hash = users.iter().find(|(user, _)| user == name).map(|(_, hash)| hash.as_str());
        let known = hash.is_some();
        let hash = hash.unwrap_or(NOBODY).to_owned();
        let id = self.id(&[name, &hash, password]);
        if let Some(valid) = self.results().get(&id) {
            return *valid && known;
        }
        let Ok(permit) = Arc::clone(&self.one_at_a_time).acquire_owned().await else { return false };
        let password = password.to_owned();
        let checked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            bcrypt::verify(password, &hash).unwrap_or(false)
        });
        let valid = checked.await.unwrap_or(false) && known;
        let mut results = self.results();
        if results.len() >= REMEMBERED
            && let Some(any) = results.keys().next().cloned()
        {
            results.remove(&any);
        }
        results.insert(id, valid);
        valid
    }

    fn results(&self) -> std::sync::MutexGuard<'_, HashMap<Vec<u8>, bool>> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn id(&self, parts: &[&str]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&part.len().to_le_bytes());
            context.update(part.as_bytes());
        }
        context.sign().as_ref().to_vec()
    }
}
