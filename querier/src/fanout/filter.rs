//! Which stores a caller wants asked at all (`storeMatch[]`).

use model::Matcher;

/// The label that `storeMatch[]` selectors look at.
const ADDRESS: &str = "__address__";

/// Selectors on a store's address; a store that one of them matches is asked. Without any, all are.
#[derive(Clone, Debug, Default)]
pub struct StoreFilter {
    selectors: Vec<Vec<Matcher>>,
}

impl StoreFilter {
    /// Asks the stores that one of `selectors` matches. Matchers on anything but `__address__` are ignored.
    pub fn new(selectors: Vec<Vec<Matcher>>) -> Self {
        Self { selectors }
    }

    /// Whether the store of this name is to be asked.
    pub fn allows(&self, name: &str) -> bool {
        let holds = |selector: &Vec<Matcher>| {
            selector.iter().filter(|m| m.name() == ADDRESS).all(|m| m.matches(name))
        };
        self.selectors.is_empty() || self.selectors.iter().any(holds)
    }
}
