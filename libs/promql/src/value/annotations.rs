//! What a query reports about its answer.

/// Warnings and infos about an answer, in Prometheus' words. Each ends with `(line:column)` of the expression it is about.
/// Without duplicates, in alphabetic order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// The answer may be wrong: `PromQL warning: ...`.
    pub warnings: Vec<String>,
    /// The query may not mean what its author thinks: `PromQL info: ...`.
    pub infos: Vec<String>,
    /// How many warnings and infos were left out: the first 1000 of each kind are kept. Counted up to 10,000 each.
    pub omitted: (usize, usize),
}

impl Annotations {
    /// At most `limit` of each kind, as the HTTP API shows them. A last line counts those left out.
    pub fn limited(mut self, limit: usize) -> Self {
        let (warnings, infos) = std::mem::take(&mut self.omitted);
        for (lines, kind, omitted) in
            [(&mut self.warnings, "warning", warnings), (&mut self.infos, "info", infos)]
        {
            let more = lines.len().saturating_sub(limit) + omitted;
            if more > 0 {
                lines.truncate(limit);
                lines.push(format!("{more} more {kind} annotations omitted"));
            }
        }
        self
    }
}
