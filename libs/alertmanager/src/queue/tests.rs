//! The queue with few alerts, and against a simple model with random ones.

use std::time::Duration;

use httpclient::HttpEndpointsConfig;
use model::Labels;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::config::AlertmanagerGroup;

const NOW: Timestamp = Timestamp::from_millis(1_000_000);

fn alert(name: &str, starts_at: i64, ends_at: i64) -> Alert {
    Alert {
        labels: Labels::from_pairs([("alertname", name)]).unwrap(),
        annotations: Labels::empty(),
        starts_at: Timestamp::from_millis(starts_at),
        ends_at: NOW.offset_millis(ends_at),
        generator_url: String::new(),
    }
}

fn firing(name: &str) -> Alert {
    alert(name, 0, 60_000)
}

fn resolved(name: &str) -> Alert {
    alert(name, 0, -1)
}

fn config(groups: usize, capacity: usize) -> NotifierConfig {
    let group = |number: usize| AlertmanagerGroup {
        members: vec![HttpEndpointsConfig::from_url(&format!("http://am-{number}"), 9093).unwrap()],
        timeout: Duration::from_secs(1),
    };
    NotifierConfig { groups: (0..groups).map(group).collect(), capacity, ..NotifierConfig::default() }
}

fn queue(groups: usize, capacity: usize) -> Queue {
    Queue::new(&config(groups, capacity), Vec::new())
}

fn names(batch: Option<&Batch>) -> String {
    let name = |alert: &Arc<Alert>| {
        let end = if alert.is_resolved(NOW) { "-" } else { "" };
        format!("{}{end}", alert.labels.value("alertname"))
    };
    batch.map_or(String::new(), |batch| batch.alerts.iter().map(name).collect())
}

/// Takes a batch and notes that it was taken.
fn sends(queue: &mut Queue, reader: ReaderId, most: usize) -> String {
    let batch = queue.take(reader, most);
    if let Some(batch) = &batch {
        queue.done(reader, batch, true);
    }
    names(batch.as_ref())
}

#[test]
fn every_alertmanager_gets_every_alert_and_one_of_each_group_is_enough() {
    let mut queue = queue(2, 10);
    let [a, b, c] = [0, 0, 1].map(|group| queue.add_reader(group));
    queue.push(vec![firing("x"), firing("y"), firing("z")], NOW);
    assert_eq!(sends(&mut queue, a, 2), "xy");
    assert_eq!((sends(&mut queue, a, 2).as_str(), sends(&mut queue, a, 2).as_str()), ("z", ""));
    assert_eq!(queue.waiting(), 3);
    assert_eq!(sends(&mut queue, c, 64), "xyz");
    assert_eq!((queue.waiting(), queue.take_counts().sent), (0, 3));
    assert_eq!(sends(&mut queue, b, 64), "xyz");
    assert!(queue.entries.is_empty() && queue.by_key.is_empty() && queue.bytes == 0);
}

#[test]
fn a_copy_replaces_the_older_one_but_a_resolution_never_replaces_a_firing() {
    let mut queue = queue(1, 10);
    let a = queue.add_reader(0);
    let newer = Alert { generator_url: "new".into(), ..firing("x") };
    queue.push(vec![firing("x"), firing("y"), resolved("x"), newer], NOW);
    assert_eq!(queue.waiting(), 3);
    let batch = queue.take(a, 64).unwrap();
    assert_eq!((names(Some(&batch)).as_str(), batch.alerts[0].generator_url.as_str()), ("xyx-", "new"));
    // Copies of what is being sent are sent after it.
    queue.push(vec![resolved("x"), alert("x", 5, 60_000)], NOW);
    queue.done(a, &batch, true);
    assert_eq!(sends(&mut queue, a, 64), "x-x");
    assert_eq!((queue.waiting(), sends(&mut queue, a, 64).as_str()), (0, ""));
}

#[test]
fn alerts_that_could_not_be_sent_are_taken_again() {
    let mut queue = queue(1, 10);
    let a = queue.add_reader(0);
    queue.push(vec![firing("x")], NOW);
    assert_eq!(names(queue.take(a, 64).as_ref()), "x");
    queue.failed(a);
    queue.push(vec![firing("y")], NOW);
    assert_eq!(sends(&mut queue, a, 64), "xy");
}

#[test]
fn the_oldest_alerts_are_dropped_when_the_queue_is_full() {
    let mut own = queue(1, 3);
    let [a, slow] = [0, 0].map(|group| own.add_reader(group));
    own.push(vec![firing("v"), firing("w"), firing("x"), firing("y"), firing("z")], NOW);
    assert_eq!(own.take_counts(), QueueCounts { pushed: 5, dropped: 2, ..QueueCounts::default() });
    assert_eq!(sends(&mut own, a, 64), "xyz");
    // What is sent and waits for a slow one is dropped first, and is not counted.
    own.push(vec![firing("q")], NOW);
    assert_eq!(own.take_counts(), QueueCounts { pushed: 1, sent: 3, ..QueueCounts::default() });
    assert_eq!(sends(&mut own, slow, 64), "yzq");
    let large = Alert { generator_url: "x".repeat(1_000), ..firing("large") };
    let mut own = Queue::new(&NotifierConfig { capacity_bytes: 1_500, ..config(1, 9) }, Vec::new());
    own.push(vec![large.clone(), firing("x"), large], NOW);
    assert_eq!((own.take_counts().dropped, own.waiting()), (0, 2));
    own.push(vec![Alert { generator_url: "x".repeat(1_000), ..firing("other") }], NOW);
    assert_eq!((own.take_counts().dropped, own.waiting()), (1, 2));
}

#[test]
fn an_alert_that_all_of_a_group_refuse_is_dropped_but_not_before_a_group_has_alertmanagers() {
    let mut queue = queue(2, 9);
    let a = queue.add_reader(0);
    queue.push(vec![firing("x")], NOW);
    let batch = queue.take(a, 64).unwrap();
    queue.done(a, &batch, false);
    assert_eq!((queue.waiting(), queue.take_counts().refused), (1, 0));
    let b = queue.add_reader(1);
    assert_eq!(sends(&mut queue, b, 64), "x");
    assert_eq!((queue.waiting(), queue.take_counts().refused), (0, 1));
}

#[test]
fn an_alertmanager_that_is_removed_is_not_waited_for() {
    let mut queue = queue(1, 9);
    let [a, b] = [0, 0].map(|group| queue.add_reader(group));
    queue.push(vec![firing("x")], NOW);
    assert_eq!(sends(&mut queue, a, 64), "x");
    assert_eq!(queue.entries.len(), 1);
    queue.remove_reader(b);
    assert!(queue.entries.is_empty() && queue.take(b, 1).is_none());
}

#[test]
fn large_alerts_are_sent_in_several_requests() {
    let mut queue = queue(1, 9);
    let a = queue.add_reader(0);
    let large = |name: &str| Alert { generator_url: "x".repeat(3 << 20), ..firing(name) };
    queue.push(vec![firing("a"), large("b"), large("c"), firing("d")], NOW);
    assert_eq!([(); 3].map(|()| sends(&mut queue, a, 64)), ["ab", "cd", ""]);
}

#[test]
fn after_a_restart_a_group_gets_only_what_it_has_not_taken() {
    let config = config(2, 9);
    let mut before = Queue::new(&config, Vec::new());
    let a = before.add_reader(0);
    before.push(vec![firing("x")], NOW);
    let mut journal = BTreeMap::new();
    replay(&mut journal, before.take_changes(false));
    assert_eq!(sends(&mut before, a, 64), "x");
    replay(&mut journal, before.take_changes(false));
    before.push(vec![resolved("x")], NOW);
    replay(&mut journal, before.take_changes(true));
    let mut after = Queue::new(&config, journal.into_values().collect());
    let [a, b] = [0, 1].map(|group| after.add_reader(group));
    assert_eq!(sends(&mut after, a, 64), "x-");
    assert_eq!(sends(&mut after, b, 64), "xx-");
    assert_eq!((after.waiting(), after.entries.len()), (0, 0));
    // All groups of the next configuration have it.
    let entry = JournalEntry {
        id: 7,
        is_resolved: false,
        alert: Arc::new(firing("y")),
        taken: vec![config.groups[0].key()],
    };
    let one = NotifierConfig { groups: config.groups[..1].to_vec(), ..config };
    assert_eq!(Queue::new(&one, vec![entry]).waiting(), 0);
}

/// The alerts that a journal has after these changes.
fn replay(journal: &mut BTreeMap<u64, JournalEntry>, changes: Changes) {
    if changes.is_all {
        journal.clear();
    }
    changes.removed.iter().for_each(|id| drop(journal.remove(id)));
    journal.extend(changes.added.into_iter().map(|entry| (entry.id, entry)));
    for (group, id) in changes.taken.iter().flat_map(|(group, ids)| ids.iter().map(move |id| (group, id))) {
        let entry = journal.get_mut(id).unwrap();
        if !entry.taken.contains(group) {
            entry.taken.push(group.clone());
        }
    }
}

#[test]
fn random_work_loses_no_alert_and_the_journal_has_what_waits() {
    for seed in 0..200 {
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let groups = random.random_range(1..3);
        let mut own = queue(groups, 1_000);
        // Reader, group, and what is being sent.
        let mut readers: Vec<(ReaderId, usize, Option<Batch>)> = Vec::new();
        // For each alert the groups that have it, and the newest copy that was given.
        let mut newest: BTreeMap<(String, bool), (u64, Vec<u64>)> = BTreeMap::new();
        let (mut journal, mut version) = (BTreeMap::new(), 0);
        for step in 0..300 {
            match random.random_range(0..10) {
                0 if readers.len() < 4 => {
                    let group = random.random_range(0..groups);
                    readers.push((own.add_reader(group), group, None));
                }
                1 if !readers.is_empty() && step % 5 == 0 => {
                    let (id, _, _) = readers.swap_remove(random.random_range(0..readers.len()));
                    own.remove_reader(id);
                }
                2..5 => {
                    version += 1;
                    let name = ["a", "b", "c", "d"][random.random_range(0..4)];
                    let is_resolved = random.random_bool(0.3);
                    let mut alert = if is_resolved { resolved(name) } else { firing(name) };
                    alert.generator_url = version.to_string();
                    newest.entry((name.to_owned(), is_resolved)).or_insert_with(|| (0, vec![0; groups])).0 =
                        version;
                    own.push(vec![alert], NOW);
                }
                5 => replay(&mut journal, own.take_changes(random.random_bool(0.1))),
                _ if readers.is_empty() => {}
                _ => {
                    let at = random.random_range(0..readers.len());
                    let (id, group, sending) = &mut readers[at];
                    match sending.take() {
                        None => *sending = own.take(*id, random.random_range(1..4)),
                        Some(_) if random.random_bool(0.3) => own.failed(*id),
                        Some(batch) => {
                            own.done(*id, &batch, true);
                            for alert in &batch.alerts {
                                let key =
                                    (alert.labels.value("alertname").to_owned(), alert.is_resolved(NOW));
                                let seen = &mut newest.get_mut(&key).unwrap().1[*group];
                                *seen = (*seen).max(alert.generator_url.parse().unwrap());
                            }
                        }
                    }
                }
            }
        }
        replay(&mut journal, own.take_changes(false));
        let counts = own.take_counts();
        assert_eq!((counts.dropped, counts.refused), (0, 0));
        let unsent: Vec<&Entry> = own.entries.values().filter(|entry| !entry.is_sent()).collect();
        assert_eq!(unsent.len(), own.waiting());
        assert_eq!(
            journal.values().map(|entry| &entry.alert).collect::<Vec<_>>(),
            unsent.iter().map(|entry| &entry.alert).collect::<Vec<_>>()
        );
        // The newest copy of each alert was sent to all groups, or waits.
        for ((name, is_resolved), (version, seen)) in newest {
            let has = |entry: &&&Entry| entry.alert.generator_url == version.to_string();
            let waits = unsent.iter().find(has).is_some();
            assert!(
                waits || seen.iter().all(|seen| *seen == version),
                "{name} {is_resolved} {version} {seen:?}"
            );
        }
        // A queue with this journal sends to each group what it has not taken.
        let mut next = Queue::new(&config(groups, 1_000), journal.into_values().collect());
        assert_eq!(next.waiting(), unsent.len());
        for group in 0..groups {
            let reader = next.add_reader(group);
            let expected = unsent.iter().filter(|entry| !entry.has(group)).count();
            assert_eq!(next.take(reader, 64).map_or(0, |batch| batch.alerts.len()), expected);
        }
    }
}
