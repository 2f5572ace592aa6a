//! Store names in messages.

/// Prefixes a message of or about a store with its name. Transports add their address as a prefix themselves;
/// the name is not repeated.
pub(crate) fn with_store_name(name: &str, message: &str) -> String {
    format!("store {name}: {}", without_store_name(name, message))
}

/// Removes the name of the store from the start of a message.
pub(crate) fn without_store_name<'a>(name: &str, message: &'a str) -> &'a str {
    message.strip_prefix(name).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(message)
}
