//! The results of one series of the "many" side and its partners.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::ops::Range;

use budget::Reservation;
use model::Labels;
use xxhash_rust::xxh64::Xxh64;

use crate::error::QueryError;
use crate::eval::binary::naming::Naming;
use crate::eval::binary::rule::OperatorRule;
use crate::eval::binary::{Bits, bit_bytes};
use crate::syntax::ast::Cardinality;
use crate::value::column::{Column, Row, is_absent};
use crate::value::notes::Notes;

/// The index of a missing partner, which the value of a `fill` modifier replaces.
const MISSING: u32 = u32::MAX;

/// An error, and the step at which it occurs.
pub(super) type JoinProblem = (usize, String);

/// Series of the "one" side that match the same series. At most one of them has a value at each step.
#[derive(Debug, Default)]
pub(super) struct Partners {
    /// Their labels.
    pub(super) ones: Vec<Labels>,
    /// At each step, the value of the first series that has one; without steps while there is no series.
    pub(super) column: Column,
    /// At each step, the index of that series, or [`MISSING`]; empty while at most one series has values.
    pub(super) owners: Vec<u32>,
}

/// For each result of many-to-one matching, by its group and the hash of its labels, the steps at which it exists. A second
/// result with the same labels at one of these steps is an error.
#[derive(Debug)]
pub(super) struct JoinedSeries {
    steps: HashMap<(usize, u64), Bits>,
    reserved: Reservation,
}

/// A result that is not complete yet.
struct UnfinishedRow {
    labels: Labels,
    column: Column,
    /// For many-to-one matching, its entry of [`JoinedSeries`].
    made: Option<((usize, u64), Bits)>,
}

/// The results of one series.
pub(super) struct JoinResults<'a> {
    naming: &'a Naming,
    made: &'a mut JoinedSeries,
    /// For the memory of the results.
    in_progress: &'a mut Reservation,
    group: usize,
    many: &'a Labels,
    list: Vec<UnfinishedRow>,
    /// The index of the result with certain labels, and of the result of a certain partner, if there are several partners.
    by_labels: HashMap<Labels, usize>,
    by_owner: HashMap<u32, usize>,
}

impl Partners {
    /// No series; the value of a `fill` modifier at each step.
    pub(super) fn missing(fill: f64, steps: usize) -> Self {
        Self { ones: Vec::new(), column: Column::constant(fill, steps), owners: Vec::new() }
    }

    /// Sets the value of a `fill` modifier at steps where no series has a value.
    pub(super) fn fill(&mut self, fill: f64, reserved: &mut Reservation) -> Result<(), QueryError> {
        let steps = self.column.len();
        for step in 0..steps {
            if self.column.has(step) {
                continue;
            }
            if self.owners.is_empty() {
                reserved.add(4 * steps as u64)?;
                self.owners.resize(steps, 0);
            }
            self.column.floats[step] = fill;
            self.owners[step] = MISSING;
        }
        Ok(())
    }

    /// Keeps only values of series at steps that are not in `matched`.
    pub(super) fn keep_unmatched(&mut self, matched: &Bits) {
        for step in 0..self.column.len() {
            if matched.get(step) || self.owners.get(step) == Some(&MISSING) {
                self.column.clear(step);
            }
        }
    }

    /// Ranges of steps before `end` whose values come from one series, and the index of that series.
    fn stretches(&self, end: usize) -> impl Iterator<Item = (Range<usize>, u32)> {
        let end = end.min(self.column.len());
        // A single series has no owners.
        let single = self.owners.is_empty().then_some((0..end, 0));
        let mut first = 0;
        let turns = self.owners.get(..end).unwrap_or_default().chunk_by(|a, b| a == b).map(move |turn| {
            let stretch = first..first + turn.len();
            first = stretch.end;
            (stretch, turn[0])
        });
        single.into_iter().chain(turns)
    }
}

impl JoinedSeries {
    pub(super) fn new(reserved: Reservation) -> Self {
        Self { steps: HashMap::new(), reserved }
    }

    fn take(&mut self, key: (usize, u64), steps: usize) -> Result<Bits, QueryError> {
        match self.steps.remove(&key) {
            Some(bits) => Ok(bits),
            None => {
                self.reserved.add((2 * size_of::<(usize, u64, Bits)>() + bit_bytes(steps)) as u64)?;
                Ok(Bits::default())
            }
        }
    }
}

impl<'a> JoinResults<'a> {
    /// No results yet for a series, given by its group and its labels.
    pub(super) fn new(
        naming: &'a Naming,
        made: &'a mut JoinedSeries,
        in_progress: &'a mut Reservation,
        (group, many): (usize, &'a Labels),
    ) -> Self {
        let (by_labels, by_owner) = (HashMap::new(), HashMap::new());
        JoinResults {
            naming,
            made,
            in_progress,
            group,
            many,
            list: Vec::with_capacity(1),
            by_labels,
            by_owner,
        }
    }

    /// Combines the values of the series with those of its partners at the steps before `end`. Returns the error at the first
    /// step that has one. `matched` are the steps at which a series of the group has found a partner.
    pub(super) fn combine(
        &mut self,
        rule: OperatorRule,
        many: &Column,
        partners: &Partners,
        end: usize,
        matched: &mut Bits,
        notes: &mut Notes,
    ) -> Result<Option<JoinProblem>, QueryError> {
        let one = &partners.column;
        let plain = many.histograms.is_empty() && one.histograms.is_empty();
        let both = |step: &usize| match plain {
            true => !is_absent(many.floats[*step]) && !is_absent(one.floats[*step]),
            false => many.has(*step) && one.has(*step),
        };
        for (stretch, owner) in partners.stretches(end) {
            let Some(first) = stretch.clone().find(both) else { continue };
            let place = self.place(owner, partners)?;
            let UnfinishedRow { column, made, .. } = &mut self.list[place];
            for step in (first..stretch.end).filter(both) {
                let combined = if plain {
                    rule.floats(many.floats[step], one.floats[step], &mut column.floats[step], notes)
                } else {
                    rule.cells(many.get(step), one.get(step), step, column, notes)
                };
                if !combined {
                    continue;
                }
                let matched_before = matched.set(step);
                let (again, advice) = match made {
                    Some((_, made)) => (made.set(step), "grouping labels must ensure unique matches"),
                    None => {
                        (matched_before, "many-to-one matching must be explicit (group_left/group_right)")
                    }
                };
                if again {
                    return Ok(Some((step, format!("multiple matches for labels: {advice}"))));
                }
            }
        }
        Ok(None)
    }

    /// Adds the results to `out`. Without `out`, they are dropped.
    pub(super) fn finish(self, drop_name: bool, mut out: Option<&mut Vec<Row>>) -> Result<(), QueryError> {
        for UnfinishedRow { labels, column, made } in self.list {
            self.made.steps.extend(made);
            match out.as_deref_mut().filter(|_| !column.is_empty()) {
                Some(out) => {
                    // Its floats are reserved already.
                    self.in_progress.add(column.size_bytes().saturating_sub(8 * column.len() as u64))?;
                    out.push(Row { labels, drop_name, column });
                }
                None => self.in_progress.release(begun_bytes(&labels, column.len())),
            }
        }
        Ok(())
    }

    /// The index of the result of a partner.
    fn place(&mut self, owner: u32, partners: &Partners) -> Result<usize, QueryError> {
        if let Some(place) = self.by_owner.get(&owner) {
            return Ok(*place);
        }
        let labels = match partners.ones.get(owner as usize) {
            Some(one) => self.naming.result(self.many, one),
            None => self.naming.result(self.many, &self.naming.signature.labels_of(self.many)),
        };
        if partners.owners.is_empty() {
            // There is no other partner that could have the same result.
            return self.begin(labels, partners.column.len());
        }
        let place = match self.by_labels.get(&labels) {
            Some(place) => *place,
            None => {
                self.by_labels.insert(labels.clone(), self.list.len());
                self.begin(labels, partners.column.len())?
            }
        };
        self.by_owner.insert(owner, place);
        Ok(place)
    }

    fn begin(&mut self, labels: Labels, steps: usize) -> Result<usize, QueryError> {
        self.in_progress.add(begun_bytes(&labels, steps))?;
        let made = match self.naming.cardinality {
            Cardinality::OneToOne => None,
            _ => {
                let key = (self.group, hash(&labels));
                Some((key, self.made.take(key, steps)?))
            }
        };
        self.list.push(UnfinishedRow { labels, column: Column::absent(steps), made });
        Ok(self.list.len() - 1)
    }
}

/// Memory in bytes of a result without histograms.
fn begun_bytes(labels: &Labels, steps: usize) -> u64 {
    (8 * steps + size_of::<Row>() + labels.size_bytes()) as u64
}

fn hash(labels: &Labels) -> u64 {
    let mut hasher = Xxh64::new(0);
    labels.hash(&mut hasher);
    hasher.finish()
}
