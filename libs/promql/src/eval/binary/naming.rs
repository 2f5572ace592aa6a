//! The labels of a join's results, and its error for two series that match the same one.

use model::Labels;

use crate::eval::binary::signature;
use crate::functions::label::{include, without_reserved};
use crate::plan::node::{Grouping, Join};
use crate::syntax::ast::Cardinality;
use crate::text::go_quoted;

/// The labels by which the series of a join match, and those of its results.
#[derive(Debug)]
pub(super) struct Naming {
    pub(super) cardinality: Cardinality,
    /// Series match if they are in the same group.
    pub(super) signature: Grouping,
    on: bool,
    labels: Vec<String>,
    include: Vec<String>,
    drop_names: bool,
}

impl Naming {
    pub(super) fn new(join: &Join) -> Self {
        let matching = &join.matching;
        Self {
            cardinality: matching.cardinality,
            signature: signature(matching),
            on: matching.on,
            labels: matching.labels.clone(),
            include: matching.include.clone(),
            drop_names: join.drop_names,
        }
    }

    /// The labels of the result of two series.
    pub(super) fn result(&self, many: &Labels, one: &Labels) -> Labels {
        let base = if self.drop_names { without_reserved(many) } else { many.clone() };
        let base = match (self.cardinality, self.on) {
            (Cardinality::OneToOne, true) => base.only(|name| self.labels.iter().any(|l| l == name)),
            (Cardinality::OneToOne, false) => base.without(|name| self.labels.iter().any(|l| l == name)),
            _ => base,
        };
        if self.include.is_empty() {
            return base;
        }
        let mut builder = base.to_builder();
        include(&mut builder, one, &self.include);
        builder.build()
    }

    /// The error for two series of one group of the "one" side that have a value at the same step.
    pub(super) fn duplicates(&self, a: &Labels, b: &Labels) -> String {
        let side = if self.cardinality == Cardinality::OneToMany { "left" } else { "right" };
        let (mut first, mut second) = (go_labels(a), go_labels(b));
        if first > second {
            std::mem::swap(&mut first, &mut second);
        }
        format!(
            "found duplicate series for the match group {} on the {side} hand-side of the operation: \
             [{first}, {second}];many-to-many matching not allowed: matching labels must be unique on one side",
            go_labels(&self.signature.labels_of(a))
        )
    }
}

/// A label set as Prometheus prints it here: with the metric name as a label.
fn go_labels(labels: &Labels) -> String {
    let pairs: Vec<String> =
        labels.iter().map(|l| format!("{}={}", go_label_name(l.name), go_quoted(l.value))).collect();
    format!("{{{}}}", pairs.join(", "))
}

/// A label name, quoted unless it is an identifier.
fn go_label_name(name: &str) -> String {
    let legacy = |(at, byte): (usize, u8)| {
        byte == b'_' || byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit())
    };
    if name.bytes().enumerate().all(legacy) { name.to_owned() } else { go_quoted(name) }
}
