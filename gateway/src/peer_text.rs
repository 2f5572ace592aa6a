//! Text that a peer sent, made safe for logs, errors and the directory.

/// Longest text of a peer that is kept, in characters.
pub(crate) const MAX_CHARS: usize = 500;

/// Cuts `text` to [`MAX_CHARS`] and replaces each control character with a space, so that a peer can neither flood
/// a log nor forge a line of it.
pub(crate) fn bounded(text: &str) -> String {
    text.chars().take(MAX_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
