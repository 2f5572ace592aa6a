//! Merges scrape targets.
//!
//! Behaviour: `pkg/targets` of Thanos. Replica labels are removed before the targets are sorted, so that all equal
//! targets meet.

use promapi::TargetDiscovery;

/// Joins the targets without Alertmanagers, and merges those that differ only in replica labels. Of equal active targets the one in the
/// worst health is kept, among these the one that was scraped last.
pub(crate) fn merged(parts: Vec<TargetDiscovery>, replica_labels: &[String]) -> TargetDiscovery {
    let mut all = TargetDiscovery::default();
    for part in parts {
        all.active_targets.extend(part.active_targets);
        all.dropped_targets.extend(part.dropped_targets);
    }
    let is_replica = |name: &str| replica_labels.iter().any(|label| label == name);
    for target in &mut all.active_targets {
        target.labels = target.labels.without(is_replica);
        target.discovered_labels = target.discovered_labels.without(is_replica);
    }
    for target in &mut all.dropped_targets {
        target.discovered_labels = target.discovered_labels.without(is_replica);
    }
    all.active_targets.sort_by(|a, b| {
        let key = |t: &'_ promapi::ActiveTarget| (t.health, std::cmp::Reverse(t.last_scrape));
        (&a.scrape_url, &a.scrape_pool, &a.discovered_labels, &a.labels)
            .cmp(&(&b.scrape_url, &b.scrape_pool, &b.discovered_labels, &b.labels))
            .then_with(|| key(a).cmp(&key(b)))
    });
    all.active_targets.dedup_by(|later, first| {
        (&later.scrape_url, &later.scrape_pool, &later.discovered_labels, &later.labels)
            == (&first.scrape_url, &first.scrape_pool, &first.discovered_labels, &first.labels)
    });
    all.dropped_targets
        .sort_by(|a, b| (&a.discovered_labels, &a.scrape_pool).cmp(&(&b.discovered_labels, &b.scrape_pool)));
    all.dropped_targets.dedup();
    all
}

#[cfg(test)]
mod tests {
    use model::Labels;
    use promapi::{ActiveTarget, ApiTime, DroppedTarget, TargetHealth};

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn replicas_are_merged_and_the_worst_health_is_kept() {
        let active = |cluster: &str, replica: &str, health, at| ActiveTarget {
            labels: labels(&[("cluster", cluster), ("replica", replica)]),
            discovered_labels: labels(&[("__address__", "a:1"), ("cluster", cluster), ("replica", replica)]),
            scrape_url: "http://a:1/metrics".to_owned(),
            health,
            last_scrape: ApiTime::from_unix(at, 0),
            ..ActiveTarget::default()
        };
        let dropped = |replica: &str| DroppedTarget {
            discovered_labels: labels(&[("job", "x"), ("replica", replica)]),
            ..DroppedTarget::default()
        };
        let part = |active_targets, dropped_targets| TargetDiscovery {
            active_targets,
            dropped_targets,
            alertmanagers: None,
        };
        let parts = || {
            vec![
                part(vec![active("eu", "0", TargetHealth::Up, 9)], vec![dropped("0")]),
                part(vec![active("us", "0", TargetHealth::Up, 1)], vec![]),
                part(vec![active("eu", "1", TargetHealth::Down, 5)], vec![dropped("1")]),
                part(vec![active("us", "1", TargetHealth::Up, 2)], vec![]),
            ]
        };
        let all = merged(parts(), &["replica".to_owned()]);
        let found: Vec<_> = all
            .active_targets
            .iter()
            .map(|t| (t.labels.value("cluster"), t.labels.len(), t.health, t.last_scrape.to_unix().0))
            .collect();
        assert_eq!(found, [("eu", 1, TargetHealth::Down, 5), ("us", 1, TargetHealth::Up, 2)]);
        assert_eq!(all.dropped_targets.len(), 1);
        let all = merged(parts(), &[]);
        assert_eq!((all.active_targets.len(), all.dropped_targets.len()), (4, 2));
    }
}
