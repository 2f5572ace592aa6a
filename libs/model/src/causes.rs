//! The chain of causes of an error.
//!
//! It is in this crate because it needs only `std`, and because every crate that reports errors of a transport (which
//! hide "connection refused" under several layers) may depend on this one.

use std::error::Error;
use std::iter::successors;

/// An error and its causes, from the outermost to the innermost.
pub fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |error| {
        let error: &'a (dyn Error + 'static) = *error;
        error.source()
    })
}

/// The innermost cause of an error, or the error itself where it has no cause.
pub fn root_cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    causes(error).last().unwrap_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Self>>,
    }

    #[test]
    fn the_chain_goes_from_the_outermost_to_the_innermost_error() {
        let inner = Layer { text: "connection refused", source: None };
        let error = Layer { text: "transport error", source: Some(Box::new(inner)) };
        let texts: Vec<String> = causes(&error).map(ToString::to_string).collect();
        assert_eq!(texts, ["transport error", "connection refused"]);
        assert_eq!(root_cause(&error).to_string(), "connection refused");
        assert_eq!(root_cause(root_cause(&error)).to_string(), "connection refused");
    }
}
