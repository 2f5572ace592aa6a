//! What a session reports about the targets: only what the observability gateway does not know yet.

use std::collections::BTreeMap;

use proto::isthmus::mesh::v1::{Target, TargetNames, Targets, from_cluster::Message};

/// The targets as one session has reported them.
pub(super) struct TargetReport {
    /// Whether the observability gateway accepts single targets.
    takes_single: bool,
    /// By name; `None` before the first report.
    sent: Option<BTreeMap<String, Target>>,
}

impl TargetReport {
    /// Nothing is reported yet.
    pub(super) fn new(takes_single: bool) -> Self {
        Self { takes_single, sent: None }
    }

    /// Whether the targets must be repeated although nothing has changed.
    pub(super) fn must_repeat(&self) -> bool {
        !self.takes_single
    }

    /// The messages that report these targets. The time of a check alone is no change.
    pub(super) fn messages(&mut self, present: Targets) -> Vec<Message> {
        if !self.takes_single {
            return vec![Message::Targets(present)];
        }
        let present: BTreeMap<String, Target> =
            present.targets.into_iter().map(|target| (target.name.clone(), target)).collect();
        let sent = self.sent.get_or_insert_default();
        let mut messages = Vec::new();
        if sent.is_empty() || !sent.keys().eq(present.keys()) {
            messages.push(Message::TargetNames(TargetNames { names: present.keys().cloned().collect() }));
        }
        let is_new = |target: &Target| match sent.get(&target.name) {
            Some(known) => *known != Target { last_check: known.last_check, ..target.clone() },
            None => true,
        };
        messages.extend(present.values().filter(|target| is_new(target)).cloned().map(Message::Target));
        // A target that is not reported again keeps the time at which it was.
        self.sent = Some(present);
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str, healthy: bool, checked: i64) -> Target {
        let last_check = Some(prost_types::Timestamp { seconds: checked, nanos: 0 });
        Target { name: name.to_owned(), healthy, last_check, ..Target::default() }
    }

    fn shown(messages: Vec<Message>) -> Vec<String> {
        let show = |message| match message {
            Message::TargetNames(TargetNames { names }) => format!("names {}", names.join(" ")),
            Message::Target(target) => format!("{} {}", target.name, target.healthy),
            Message::Targets(targets) => format!("{} targets", targets.targets.len()),
            other => format!("{other:?}"),
        };
        messages.into_iter().map(show).collect()
    }

    #[test]
    fn only_changes_are_reported() {
        let mut report = TargetReport::new(true);
        let mut messages = |targets: Vec<Target>| shown(report.messages(Targets { targets }));
        assert_eq!(messages(vec![]), ["names "], "a session without targets says so");
        assert_eq!(
            messages(vec![target("a", true, 1), target("b", false, 1)]),
            ["names a b", "a true", "b false"]
        );
        assert_eq!(messages(vec![target("a", true, 2), target("b", false, 2)]), [""; 0]);
        assert_eq!(messages(vec![target("a", true, 3), target("b", true, 3)]), ["b true"]);
        assert_eq!(messages(vec![target("b", true, 4), target("c", true, 4)]), ["names b c", "c true"]);
        let mut old = TargetReport::new(false);
        assert_eq!(shown(old.messages(Targets { targets: vec![target("a", true, 1)] })), ["1 targets"]);
        assert!(old.must_repeat());
    }
}
