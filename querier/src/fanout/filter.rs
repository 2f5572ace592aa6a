//! Restricts the stores of a request (`storeMatch[]`).

use model::Matcher;

/// The label that `storeMatch[]` selectors match.
const ADDRESS: &str = "__address__";

/// Selectors for store addresses. A store is asked if one selector matches. Without selectors all stores are
/// asked.
#[derive(Clone, Debug, Default)]
pub struct StoreFilter {
    selectors: Vec<Vec<Matcher>>,
}

impl StoreFilter {
    /// Creates a filter. Matchers for labels other than `__address__` are ignored.
    pub fn new(selectors: Vec<Vec<Matcher>>) -> Self {
        Self { selectors }
    }

    /// Whether every store may be asked.
    pub(crate) fn allows_all(&self) -> bool {
        self.selectors.is_empty()
    }

    /// Whether the store with this name may be asked.
    pub fn allows(&self, name: &str) -> bool {
        let matches = |selector: &Vec<Matcher>| {
            selector.iter().filter(|m| m.name() == ADDRESS).all(|m| m.matches(name))
        };
        self.selectors.is_empty() || self.selectors.iter().any(matches)
    }
}
