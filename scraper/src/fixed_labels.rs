//! External labels that something else than the file decides.

use std::path::Path;

use runtime::ConfigMistakes;

use crate::config::PrometheusConfig;

/// An external label that a flag or a certificate decides. The file may have it, too, with the same value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedLabel {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// What decides it, as the subject of a sentence, such as `--replica`.
    pub source: &'static str,
}

/// Adds labels to the external labels of a file.
///
/// # Errors
/// The file has one of them with another value. Each mistake has its line.
pub(crate) fn fix_labels(
    fixed: &[FixedLabel],
    config: &mut PrometheusConfig,
    file: &Path,
) -> Result<(), ConfigMistakes> {
    let mut mistakes = ConfigMistakes::default();
    let mut labels = config.global.external_labels.to_builder();
    for FixedLabel { name, value, source } in fixed {
        match config.global.external_labels.get(name) {
            Some(other) if other != value => {
                let known = config.global.external_label_lines.iter().find(|(label, _)| label == name);
                let line = known.map_or_else(String::new, |(_, line)| format!("line {line}: "));
                mistakes.push(format!(
                    "{}: {line}global.external_labels.{name}: is {other:?}, but {source} says {value:?}; remove the label \
                     from the file, or write {value:?}",
                    file.display()
                ));
            }
            Some(_) => {}
            None => drop(labels.set(name, value)),
        }
    }
    config.global.external_labels = labels.build();
    mistakes.or_ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed() -> [FixedLabel; 2] {
        let label = |name, value: &str, source| FixedLabel { name, value: value.to_owned(), source };
        [label("cluster", "eu-1", "the certificate"), label("replica", "a", "--replica")]
    }

    fn apply(text: &str) -> Result<String, ConfigMistakes> {
        let path = Path::new("prometheus.yml");
        let mut config = PrometheusConfig::parse(text.to_owned(), path).unwrap();
        fix_labels(&fixed(), &mut config, path)?;
        Ok(config.global.external_labels.to_string())
    }

    #[test]
    fn labels_that_the_file_lacks_are_added() {
        let both = r#"{cluster="eu-1", replica="a"}"#;
        assert_eq!(apply("scrape_configs: []").unwrap(), both);
        assert_eq!(apply("global: {external_labels: {replica: a}}").unwrap(), both);
        assert_eq!(
            apply("global: {external_labels: {team: x}}").unwrap(),
            r#"{cluster="eu-1", replica="a", team="x"}"#
        );
    }

    #[test]
    fn other_values_in_the_file_are_refused_with_line_and_remedy() {
        let text = "global:\n  external_labels:\n    replica: b\n    cluster: us-1\n";
        assert_eq!(
            apply(text).unwrap_err().lines(),
            [
                "prometheus.yml: line 4: global.external_labels.cluster: is \"us-1\", but the certificate says \"eu-1\"; remove the \
                 label from the file, or write \"eu-1\"",
                "prometheus.yml: line 3: global.external_labels.replica: is \"b\", but --replica says \"a\"; remove the label from \
                 the file, or write \"a\"",
            ]
        );
    }
}
