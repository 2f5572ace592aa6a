//! `label_replace` and `label_join`.

use budget::Budget;
use model::{LabelsBuilder, METRIC_NAME, Regex};

use crate::error::QueryError;
use crate::value::column::Row;

/// `label_replace(v, destination, replacement, source, expression)`.
#[derive(Debug)]
pub(crate) struct LabelReplace {
    destination: String,
    replacement: String,
    source: String,
    regex: Regex,
}

impl LabelReplace {
    /// Checks the arguments and compiles the expression.
    pub(crate) fn new(
        destination: &str,
        replacement: &str,
        source: &str,
        regex: &str,
    ) -> Result<Self, QueryError> {
        // The whole expression is anchored, and a dot matches a newline.
        let compiled = Regex::with_groups(regex).map_err(|_| Self::invalid_regex(regex))?;
        if destination.is_empty() {
            return Err(QueryError::execution(format!(
                "invalid destination label name in label_replace(): {destination}"
            )));
        }
        Ok(Self {
            destination: destination.to_owned(),
            replacement: replacement.to_owned(),
            source: source.to_owned(),
            regex: compiled,
        })
    }

    /// Memory of the compiled expression and of its runs, in bytes.
    pub(crate) fn regex_bytes(&self) -> usize {
        self.regex.size_bytes()
    }

    /// The error for an invalid expression.
    pub(crate) fn invalid_regex(regex: &str) -> QueryError {
        QueryError::execution(format!("invalid regular expression in label_replace(): {regex}"))
    }

    /// Sets the destination if the expression matches.
    ///
    /// # Errors
    /// If the new value exceeds the memory budget of the query.
    pub(crate) fn apply(&self, row: &mut Row, budget: &Budget) -> Result<(), QueryError> {
        if let Some(groups) = self.regex.groups(row.labels.value(&self.source)) {
            // The replacement may name a group many times.
            budget.check_room(groups.expanded_bytes(&self.replacement) as u64)?;
            let text = groups.expand(&self.replacement);
            set_label(row, &self.destination, &text);
        }
        Ok(())
    }
}

/// `label_join(v, destination, separator, sources...)`.
#[derive(Debug)]
pub(crate) struct LabelJoin {
    destination: String,
    separator: String,
    sources: Vec<String>,
}

impl LabelJoin {
    /// Checks the arguments.
    pub(crate) fn new(destination: &str, separator: &str, sources: &[&str]) -> Result<Self, QueryError> {
        if let Some(bad) = sources.iter().find(|s| s.is_empty()) {
            return Err(QueryError::execution(format!("invalid source label name in label_join(): {bad}")));
        }
        if destination.is_empty() {
            return Err(QueryError::execution(format!(
                "invalid destination label name in label_join(): {destination}"
            )));
        }
        Ok(Self {
            destination: destination.to_owned(),
            separator: separator.to_owned(),
            sources: sources.iter().map(|s| (*s).to_owned()).collect(),
        })
    }

    /// Sets the destination.
    ///
    /// # Errors
    /// If the new value exceeds the memory budget of the query.
    pub(crate) fn apply(&self, row: &mut Row, budget: &Budget) -> Result<(), QueryError> {
        let values: Vec<&str> = self.sources.iter().map(|s| row.labels.value(s)).collect();
        let bytes = values.iter().map(|value| value.len() + self.separator.len()).sum::<usize>();
        budget.check_room(bytes as u64)?;
        let text = values.join(&self.separator);
        set_label(row, &self.destination, &text);
        Ok(())
    }
}

fn set_label(row: &mut Row, name: &str, value: &str) {
    row.labels = row.labels.to_builder().set(name, value).build();
    if name == METRIC_NAME {
        row.drop_name = false;
    }
}

/// The labels of `row` without those that are removed at the end of a query: metric name, type and unit.
pub(crate) fn without_reserved(labels: &model::Labels) -> model::Labels {
    labels.without(is_reserved)
}

/// Whether a label is the metric's name, type or unit.
pub(crate) fn is_reserved(name: &str) -> bool {
    name == METRIC_NAME || name == "__type__" || name == "__unit__"
}

/// Copies the labels named in `include` from the "one" side, as `group_left(...)` requires.
pub(crate) fn include(builder: &mut LabelsBuilder, from: &model::Labels, include: &[String]) {
    for name in include {
        builder.set(name, from.value(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::QUERIES;
    use crate::value::column::Column;
    use budget::{BudgetLimits, Interrupt, TotalBudget};
    use model::Labels;

    fn budget(bytes: u64) -> Budget {
        Budget::new(&TotalBudget::unlimited(&QUERIES), BudgetLimits::bytes(bytes), Interrupt::new())
    }

    fn replaced(replacement: &str, regex: &str) -> Option<String> {
        let labels = Labels::from_pairs([("src", "source-value-10")]).unwrap();
        let mut row = Row::new(labels, Column::absent(1));
        LabelReplace::new("dst", replacement, "src", regex).unwrap().apply(&mut row, &budget(1000)).unwrap();
        row.labels.get("dst").map(str::to_owned)
    }

    #[test]
    fn groups_are_inserted_into_the_replacement() {
        assert_eq!(replaced("a-$1-$$", "source-value-(.*)").as_deref(), Some("a-10-$"));
        assert_eq!(replaced("${1}x$9", "(.*)-10").as_deref(), Some("source-valuex"));
        assert_eq!(replaced("$n!", "(?P<n>.*)-value.*").as_deref(), Some("source!"));
        assert_eq!(replaced("$ ${1", "(.*)").as_deref(), Some("$ ${1"));
        assert_eq!(replaced("x", "value"), None, "the expression is anchored");
    }

    #[test]
    fn joined_values_are_separated() {
        let labels = Labels::from_pairs([("a", "1"), ("b", "2")]).unwrap();
        let mut row = Row::new(labels, Column::absent(1));
        LabelJoin::new("c", "-", &["a", "none", "b"]).unwrap().apply(&mut row, &budget(1000)).unwrap();
        assert_eq!(row.labels.get("c"), Some("1--2"));
    }

    #[test]
    fn values_beyond_the_budget_are_rejected_before_they_are_built() {
        let labels = Labels::from_pairs([("a", &*"x".repeat(1 << 20))]).unwrap();
        let mut row = Row::new(labels, Column::absent(1));
        let budget = budget(10 << 20);
        let replace = LabelReplace::new("b", &"$1".repeat(200_000), "a", "(.*)").unwrap();
        let error = replace.apply(&mut row, &budget).unwrap_err().to_string();
        assert!(error.contains("209715200000 bytes, more than max_bytes=10485760"), "{error}");
        let join = LabelJoin::new("b", "", &["a"; 11]).unwrap();
        assert!(join.apply(&mut row, &budget).unwrap_err().to_string().contains("max_bytes"));
        LabelJoin::new("b", "", &["a"; 9]).unwrap().apply(&mut row, &budget).unwrap();
        assert_eq!(row.labels.value("b").len(), 9 << 20);
    }
}
