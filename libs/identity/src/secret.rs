//! A value that never shows itself.

use std::fmt;

use zeroize::Zeroize;

/// Holds a secret (a key, a token, a passphrase), hides it from `Debug` and wipes it when dropped.
///
/// It has no `Display` and no `Serialize`, and its `Debug` prints the same three dots whatever it holds, so a
/// secret cannot slip into a log line or an error. Reading it takes the visible word [`expose`](Self::expose).
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes a value into custody.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// Shows the value. Keep what it returns away from logs, errors and command lines.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize + Clone> Clone for Secret<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(...)")
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_content() {
        let secret = Secret::new(String::from("canary-7f1d"));
        assert_eq!(format!("{secret:?} {:#?}", secret.clone()), "Secret(...) Secret(...)");
        assert_eq!(secret.expose(), "canary-7f1d");
    }
}
