//! A value that is never printed.

use std::fmt;

use zeroize::Zeroize;

/// A secret (a key, a token, a passphrase). It is hidden from `Debug` and overwritten in memory when dropped.
///
/// It has no `Display` and no `Serialize`, and its `Debug` prints the same text for every value, so a secret
/// cannot get into a log line or an error by accident. Only [`expose`](Self::expose) reads it.
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Wraps a value.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// Returns the value. Do not put it into logs, errors or command lines.
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
    fn debug_does_not_print_the_secret() {
        let secret = Secret::new(String::from("canary-7f1d"));
        assert_eq!(format!("{secret:?} {:#?}", secret.clone()), "Secret(...) Secret(...)");
        assert_eq!(secret.expose(), "canary-7f1d");
    }
}
