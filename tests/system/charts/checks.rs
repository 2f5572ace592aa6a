//! What is checked about objects that are applied together. Kubernetes, and the validation of single objects, accept these faults.

mod arguments;
mod kinds;
mod monitors;
mod ports;
mod quantities;
mod references;
mod security;
mod selectors;

use serde_json::Value;

use crate::charts::objects::committed;
use crate::charts::render::all;

/// A check: the faults that it finds.
pub(super) type Check = fn(&[Value]) -> Vec<String>;

/// All checks with their names.
pub(super) const CHECKS: &[(&str, Check)] = &[
    ("kinds", kinds::check),
    ("selectors", selectors::check),
    ("ports", ports::check),
    ("probes", ports::check_probes),
    ("references", references::check),
    ("volumes", references::check_volumes),
    ("quantities", quantities::check),
    ("security", security::check),
    ("monitors", monitors::check),
    ("arguments", arguments::check),
];

#[test]
fn the_objects_of_every_set_pass_every_check() {
    for (chart, set) in all() {
        let objects = committed(chart, set);
        for (name, check) in CHECKS {
            let faults = check(&objects);
            assert!(faults.is_empty(), "{chart} {set}: {name}: {faults:#?}");
        }
    }
}
