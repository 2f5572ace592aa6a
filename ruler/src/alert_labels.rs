//! What becomes of the labels of an alert before it is sent.

use model::{Labels, Relabeling};
use runtime::yaml::{Mistakes, YamlNode, read_relabel_list};

/// The labels of alerts as they are sent.
#[derive(Clone, Debug)]
pub(crate) struct AlertLabels {
    external: Labels,
    /// `--alert.label-drop`.
    dropped: Vec<String>,
    /// `--alert.relabel-config`.
    relabeling: Relabeling,
}

impl AlertLabels {
    pub(crate) fn new(external: Labels, dropped: Vec<String>, relabeling: Relabeling) -> Self {
        Self { external, dropped, relabeling }
    }

    /// The labels of an alert as they are sent; `None` if relabelling drops it. External labels are added where the alert has none of
    /// their name, as in Prometheus. Thanos replaces those of the alert, such as the cluster that is in trouble.
    pub(crate) fn sent(&self, labels: &Labels) -> Option<Labels> {
        let external = self.external.without(|name| self.dropped.iter().any(|dropped| dropped == name));
        let labels = labels.without(|name| self.dropped.iter().any(|dropped| dropped == name));
        let sent = self.relabeling.apply(&external.extended(&labels))?;
        (!sent.is_empty()).then_some(sent)
    }
}

/// Reads the YAML of `--alert.relabel-config`: a list of rules, as in Prometheus.
///
/// # Errors
/// All mistakes, with their lines.
pub(crate) fn parse_relabeling(text: &str) -> Result<Relabeling, Vec<String>> {
    let node = YamlNode::parse(text).map_err(|mistake| vec![mistake.to_string()])?;
    let mistakes = Mistakes::default();
    let rules = read_relabel_list(&node, false, &mistakes);
    let mistakes = mistakes.into_sorted();
    if !mistakes.is_empty() {
        return Err(mistakes.iter().map(ToString::to_string).collect());
    }
    Relabeling::new(rules).map_err(|why| vec![why.to_string()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn external_labels_are_added_where_an_alert_has_none() {
        let external = labels(&[("cluster", "obs"), ("region", "eu"), ("replica", "a")]);
        let rules = "- {source_labels: [severity], regex: none, action: drop}\n- {regex: tmp_.*, action: labeldrop}\n";
        let dropped = vec!["replica".to_owned(), "secret".to_owned()];
        let sent = AlertLabels::new(external, dropped, parse_relabeling(rules).unwrap());
        let alert = labels(&[("alertname", "A"), ("cluster", "eu-1"), ("secret", "x"), ("tmp_y", "z")]);
        let expected = labels(&[("alertname", "A"), ("cluster", "eu-1"), ("region", "eu")]);
        assert_eq!(sent.sent(&alert), Some(expected));
        assert_eq!(sent.sent(&labels(&[("alertname", "A"), ("severity", "none")])), None);
    }

    #[test]
    fn mistakes_of_relabelling_have_lines() {
        let wrong = parse_relabeling("- action: x\n- target: y\n").unwrap_err();
        assert!(wrong[0].starts_with("line 1: [0].action: "), "{wrong:?}");
        assert!(
            wrong.iter().any(|mistake| mistake.starts_with("line 2: [1].target: unknown field")),
            "{wrong:?}"
        );
        assert_eq!(
            parse_relabeling("a: b").unwrap_err(),
            ["line 1: expected a list of rules, found a mapping"]
        );
        assert!(parse_relabeling("").unwrap().is_empty());
    }
}
