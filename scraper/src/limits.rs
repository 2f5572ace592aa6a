//! Limits on the labels of a series.

use model::Labels;

use crate::rules::ScrapeRules;

/// The limit that a series exceeds, as a text.
pub(crate) fn exceeded(labels: &Labels, rules: &ScrapeRules) -> Option<String> {
    let is_over = |value: usize, limit: usize| limit > 0 && value > limit;
    let metric = shortened(labels.metric_name());
    if is_over(labels.len(), rules.label_limit) {
        return Some(format!(
            "label_limit exceeded (metric: {metric}, number of labels: {}, limit: {})",
            labels.len(),
            rules.label_limit
        ));
    }
    labels.iter().find_map(|label| {
        let name = shortened(label.name);
        if is_over(label.name.len(), rules.label_name_length_limit) {
            return Some(format!(
                "label_name_length_limit exceeded (metric: {metric}, label name: {name}, length: {}, limit: {})",
                label.name.len(),
                rules.label_name_length_limit
            ));
        }
        is_over(label.value.len(), rules.label_value_length_limit).then(|| {
            format!(
                "label_value_length_limit exceeded (metric: {metric}, label name: {name}, value: {:?}, length: {}, limit: {})",
                shortened(label.value),
                label.value.len(),
                rules.label_value_length_limit
            )
        })
    })
}

/// The first 50 characters.
fn shortened(text: &str) -> String {
    text.chars().take(50).collect()
}
