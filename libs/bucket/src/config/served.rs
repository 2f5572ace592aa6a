//! The buckets of a role that serves several of them.

use model::Labels;
use runtime::yaml::{Mistakes, YamlNode, YamlValue};

use crate::config::fields::ConfigNotes;
use crate::config::{BucketConfig, ObjstoreConfigError, read_with};

/// A bucket whose blocks are served.
#[derive(Debug)]
pub struct ServedBucket {
    /// The bucket.
    pub config: BucketConfig,
    /// The labels that each of its blocks must have, so that those who write into it cannot claim other labels. Empty: any block.
    pub required_labels: Labels,
}

impl ServedBucket {
    /// Parses one objstore configuration, or a list of them. Each may have `required_labels`, a mapping of external labels, in
    /// addition to the fields of Thanos. `$(NAME)` was replaced before.
    ///
    /// ```
    /// let yaml = "- {type: FILESYSTEM, config: {directory: /a}, prefix: eu-1, required_labels: {cluster: eu-1}}\n\
    ///             - {type: FILESYSTEM, config: {directory: /b}}";
    /// let buckets = bucket::ServedBucket::parse_all(yaml).unwrap();
    /// assert_eq!(buckets[0].required_labels.get("cluster"), Some("eu-1"));
    /// assert_eq!(buckets[1].config.bucket_name(), "/b");
    /// let error = bucket::ServedBucket::parse_all("- {type: S4, config: {}}").unwrap_err().to_string();
    /// assert!(error.contains("[0].type: \"S4\" is unknown"), "{error}");
    /// ```
    ///
    /// # Errors
    /// All mistakes.
    pub fn parse_all(yaml: &str) -> Result<Vec<Self>, ObjstoreConfigError> {
        let root = YamlNode::parse(yaml).map_err(|mistake| ObjstoreConfigError::new(vec![mistake]))?;
        let mistakes = Mistakes::default();
        let buckets: Vec<Self> = match &root.value {
            YamlValue::List(items) => {
                if items.is_empty() {
                    mistakes.add(root.line, "", "the list has no bucket");
                }
                let read = |(index, node): (usize, &YamlNode)| read(&format!("[{index}]"), node, &mistakes);
                items.iter().enumerate().filter_map(read).collect()
            }
            _ => read("", &root, &mistakes).into_iter().collect(),
        };
        let mistakes = mistakes.into_sorted();
        if mistakes.is_empty() { Ok(buckets) } else { Err(ObjstoreConfigError::new(mistakes)) }
    }
}

fn read(path: &str, node: &YamlNode, mistakes: &Mistakes) -> Option<ServedBucket> {
    let warnings = Mistakes::default();
    let mut required_labels = Labels::empty();
    let parsed = read_with(path, node, &ConfigNotes { mistakes, warnings: &warnings }, |fields| {
        if let Some(labels) = fields.optional("required_labels", labels_of) {
            required_labels = labels;
        }
    });
    let (provider, prefix) = parsed?;
    let config = BucketConfig { provider, prefix, warnings: warnings.into_sorted() };
    Some(ServedBucket { config, required_labels })
}

fn labels_of(node: &YamlNode) -> Result<Labels, String> {
    let YamlValue::Map(entries) = &node.value else {
        return Err(format!("expected a mapping of labels, found {}", node.kind()));
    };
    let pairs = entries.iter().map(|(name, value)| Ok((name.name().to_owned(), value.scalar()?)));
    let pairs = pairs.collect::<Result<Vec<(String, String)>, String>>()?;
    Labels::from_pairs(pairs).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bucket_is_a_list_of_one_and_mistakes_name_the_item() {
        let one =
            ServedBucket::parse_all("type: FILESYSTEM\nconfig: {directory: /a}\nrequired_labels: {n: 1}")
                .unwrap();
        assert_eq!((one.len(), one[0].required_labels.get("n")), (1, Some("1")));
        let check = |yaml: &str, words: &str| {
            let error = ServedBucket::parse_all(yaml).unwrap_err().to_string();
            assert!(error.contains(words), "{yaml}: {error}");
        };
        check("[]", "the list has no bucket");
        check("- {type: FILESYSTEM, config: {directory: /a}, extra: 1}", "[0].extra: unknown field");
        check(
            "- {type: FILESYSTEM, config: {directory: /a}, required_labels: [a]}",
            "expected a mapping of labels",
        );
        check(
            "- {type: FILESYSTEM, config: {directory: /a}}\n- {type: S3, config: {bukcet: x}}",
            "[1].config.bukcet",
        );
    }

    #[test]
    fn other_roles_do_not_know_required_labels() {
        let error = BucketConfig::parse("type: FILESYSTEM\nconfig: {directory: /a}\nrequired_labels: {}")
            .unwrap_err();
        assert!(error.to_string().contains("unknown field"), "{error}");
    }
}
