//! `--enable-feature`.

use clap::ValueEnum;
use querier::Feature;

/// Features of Prometheus that need no flag here.
const ALWAYS_ENABLED: &[&str] =
    &["native-histograms", "concurrent-rule-eval", "promql-at-modifier", "promql-negative-offset"];

/// The features of these names, and the names that have no effect. Thanos' ruler ignores names that it does not know, and operators pass
/// them on.
pub(super) fn known_features(names: &[String]) -> (Vec<Feature>, Vec<String>) {
    let (mut features, mut ignored) = (Vec::new(), Vec::new());
    for name in names.iter().filter(|name| !name.is_empty() && !ALWAYS_ENABLED.contains(&name.as_str())) {
        match Feature::from_str(name, false) {
            Ok(feature) => features.push(feature),
            Err(_) => ignored.push(name.clone()),
        }
    }
    (features, ignored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_an_effect_are_reported_and_those_of_settled_features_are_not() {
        let given = ["promql-at-modifier", "", "promql-experimental-functions", "xor2-encoding", "none-such"];
        let (features, ignored) = known_features(&given.map(str::to_owned));
        assert_eq!(features, [Feature::ExperimentalFunctions]);
        assert_eq!(ignored, ["xor2-encoding", "none-such"]);
    }
}
