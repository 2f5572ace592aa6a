//! Label names and values.

use std::collections::BTreeSet;

use head::DatabaseView;
use model::Labels;
use storeapi::{LabelsAnswer, StoreError};

use crate::question::Narrowed;

/// Names or values, and what is missing.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) values: BTreeSet<String>,
    pub(crate) warnings: Vec<String>,
}

impl Found {
    pub(crate) fn answer(self, limit: Option<usize>) -> LabelsAnswer {
        let values = self.values.into_iter().take(limit.unwrap_or(usize::MAX)).collect();
        LabelsAnswer { values, warnings: self.warnings, ..LabelsAnswer::default() }
    }
}

/// The names of all labels, whatever the range.
pub(crate) fn stored_names(view: &DatabaseView) -> BTreeSet<String> {
    let mut names = view.head().label_names();
    for block in view.blocks() {
        names.extend(block.block.index().label_names().map(|(name, _)| name.to_owned()));
    }
    names
}

/// The names of the labels of series that match; of all series without matchers.
pub(crate) fn names(narrowed: &Narrowed, view: &DatabaseView) -> Result<Found, StoreError> {
    if narrowed.matchers.is_empty() {
        let mut found = Found { values: BTreeSet::new(), warnings: Vec::new() };
        for block in view.blocks() {
            found.values.extend(block.block.index().label_names().map(|(name, _)| name.to_owned()));
        }
        if is_head_concerned(narrowed, view) {
            found.values.extend(view.head().label_names());
        }
        return Ok(found);
    }
    let mut found = Found::default();
    let add = |values: &mut BTreeSet<String>, labels: &Labels| {
        for label in labels {
            if !values.contains(label.name) {
                values.insert(label.name.to_owned());
            }
        }
        true
    };
    each_series(narrowed, view, &mut found, add);
    Ok(found)
}

/// The values of a label of series that match; of all series without matchers.
pub(crate) fn values(narrowed: &Narrowed, view: &DatabaseView, label: &str) -> Result<Found, StoreError> {
    let mut found = Found::default();
    if narrowed.matchers.is_empty() {
        for block in view.blocks() {
            match block.block.index().label_values(label) {
                Ok(values) => found.values.extend(values),
                Err(error) => found.warnings.push(error.to_string()),
            }
        }
        if is_head_concerned(narrowed, view) {
            found.values.extend(view.head().label_values(label));
        }
        return Ok(found);
    }
    let add = |values: &mut BTreeSet<String>, labels: &Labels| {
        if let Some(value) = labels.get(label)
            && !values.contains(value)
        {
            values.insert(value.to_owned());
        }
        true
    };
    each_series(narrowed, view, &mut found, add);
    Ok(found)
}

/// Has a value if at least one series matches.
pub(crate) fn any(narrowed: &Narrowed, view: &DatabaseView) -> Result<Found, StoreError> {
    let mut found = Found::default();
    let add = |values: &mut BTreeSet<String>, _: &Labels| {
        values.insert(String::new());
        false
    };
    each_series(narrowed, view, &mut found, add);
    Ok(found)
}

fn is_head_concerned(narrowed: &Narrowed, view: &DatabaseView) -> bool {
    view.head().stats().times.is_some_and(|times| times.overlaps(&narrowed.range))
}

/// Calls `add` for each series with samples in the range, until it returns false. A series may come several times.
fn each_series(
    narrowed: &Narrowed,
    view: &DatabaseView,
    found: &mut Found,
    add: impl Fn(&mut BTreeSet<String>, &Labels) -> bool,
) {
    for series in view.head().find(&narrowed.matchers) {
        if view.head().has_chunks(&series, narrowed.range) && !add(&mut found.values, series.labels()) {
            return;
        }
    }
    for block in view.blocks() {
        let selection = match block.block.select(&narrowed.matchers, narrowed.range) {
            Ok(selection) => selection,
            Err(error) => {
                found.warnings.push(error.to_string());
                continue;
            }
        };
        for series in selection {
            match series {
                Ok(series) if add(&mut found.values, &series.labels) => {}
                Ok(_) => return,
                Err(error) => {
                    found.warnings.push(error.to_string());
                    break;
                }
            }
        }
    }
}
