//! The labels of a target, attached to those of its samples.

use model::Labels;

/// The prefix of a label that a target exposes and has itself.
const EXPORTED: &str = "exported_";

/// Labels of a sample with those of its target. Where both have a label, that of the sample wins if it is `honored`; otherwise it
/// gets the prefix `exported_`, as often as is needed.
pub(crate) fn attach(exposed: &Labels, target: &Labels, honored: bool) -> Labels {
    let mut builder = exposed.to_builder();
    let mut conflicts: Vec<(&str, &str)> = Vec::new();
    let mut taken: Vec<String> = Vec::new();
    for label in target.iter() {
        match exposed.get(label.name) {
            Some(_) if honored => {}
            Some(value) => {
                conflicts.push((label.name, value));
                builder.set(label.name, label.value);
            }
            None => drop(builder.set(label.name, label.value)),
        }
    }
    // Short names first, so that the result does not depend on their order.
    conflicts.sort_by_key(|(name, _)| name.len());
    for (name, value) in conflicts {
        let mut renamed = format!("{EXPORTED}{name}");
        while exposed.get(&renamed).is_some() || target.get(&renamed).is_some() || taken.contains(&renamed) {
            renamed.insert_str(0, EXPORTED);
        }
        builder.set(&renamed, value);
        taken.push(renamed);
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn labels_of_the_target_win_unless_those_of_the_sample_are_honored() {
        let exposed = labels(&[("__name__", "up"), ("job", "own"), ("exported_job", "older"), ("x", "y")]);
        let target = labels(&[("instance", "a:1"), ("job", "t")]);
        assert_eq!(
            attach(&exposed, &target, false).to_string(),
            "up{exported_exported_job=\"own\", exported_job=\"older\", instance=\"a:1\", job=\"t\", x=\"y\"}"
        );
        assert_eq!(
            attach(&exposed, &target, true).to_string(),
            "up{exported_job=\"older\", instance=\"a:1\", job=\"own\", x=\"y\"}"
        );
        // Both names conflict: each gets a name of its own.
        let target = labels(&[("exported_job", "e"), ("job", "t")]);
        assert_eq!(
            attach(&exposed, &target, false).to_string(),
            "up{exported_exported_exported_job=\"older\", exported_exported_job=\"own\", exported_job=\"e\", job=\"t\", x=\"y\"}"
        );
    }
}
