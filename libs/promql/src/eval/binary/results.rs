//! The results of a series of the "many" side and the partners that it has.

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

/// Stands for a partner that is not there, where a value stands in for it.
const NOBODY: u32 = u32::MAX;

/// Something that is wrong, and the step at which it is.
pub(super) type JoinProblem = (usize, String);

/// Series of the "one" side that match the same series. At most one of them counts at each step.
#[derive(Debug, Default)]
pub(super) struct Partners {
    /// Their labels.
    pub(super) ones: Vec<Labels>,
    /// At each step the value of the first that has one; without steps while there is no series.
    pub(super) column: Column,
    /// The place of that series, or [`NOBODY`]; empty while there is one series at most that has all the values.
    pub(super) owners: Vec<u32>,
}

/// For each result of several-to-one matching, by its group and the hash of its labels, the steps at which it has been made:
/// it might be made again at any time.
#[derive(Debug)]
pub(super) struct JoinedSeries {
    steps: HashMap<(usize, u64), Bits>,
    reserved: Reservation,
}

/// A result under way.
struct UnfinishedRow {
    labels: Labels,
    column: Column,
    /// Where the steps at which it has been made belong, and these.
    made: Option<((usize, u64), Bits)>,
}

/// The results of one series.
pub(super) struct JoinResults<'a> {
    naming: &'a Naming,
    made: &'a mut JoinedSeries,
    /// Holds the results.
    in_progress: &'a mut Reservation,
    group: usize,
    many: &'a Labels,
    list: Vec<UnfinishedRow>,
    /// Which of them has certain labels, and which a certain partner leads to, where there are several partners.
    by_labels: HashMap<Labels, usize>,
    by_owner: HashMap<u32, usize>,
}

impl Partners {
    /// No series, and a value that stands in for it at each step.
    pub(super) fn nobody(fill: f64, steps: usize) -> Self {
        Self { ones: Vec::new(), column: Column::constant(fill, steps), owners: Vec::new() }
    }

    /// Puts a value where no series has any.
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
            self.owners[step] = NOBODY;
        }
        Ok(())
    }

    /// Leaves only what series have at steps that are not among these.
    pub(super) fn keep_unmatched(&mut self, matched: &Bits) {
        for step in 0..self.column.len() {
            if matched.get(step) || self.owners.get(step) == Some(&NOBODY) {
                self.column.clear(step);
            }
        }
    }

    /// Stretches of the steps before `end` whose value is that of one series, and the place of that.
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
    /// No results yet of a series, which is told by its group and its labels.
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

    /// Combines the values of the series with those of its partners at the steps before `end`, and tells what is wrong at the
    /// first step at which something is. `matched` are the steps at which some series of the group has found a partner.
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

    /// Hands the series that came out to `out`; where there is none, nothing is to come out.
    pub(super) fn finish(self, drop_name: bool, mut out: Option<&mut Vec<Row>>) -> Result<(), QueryError> {
        for UnfinishedRow { labels, column, made } in self.list {
            self.made.steps.extend(made);
            match out.as_deref_mut().filter(|_| !column.is_empty()) {
                Some(out) => {
                    // Its floats are held already.
                    self.in_progress.add(column.size_bytes().saturating_sub(8 * column.len() as u64))?;
                    out.push(Row { labels, drop_name, column });
                }
                None => self.in_progress.release(begun_bytes(&labels, column.len())),
            }
        }
        Ok(())
    }

    /// The place of the result that a partner leads to.
    fn place(&mut self, owner: u32, partners: &Partners) -> Result<usize, QueryError> {
        if let Some(place) = self.by_owner.get(&owner) {
            return Ok(*place);
        }
        let labels = match partners.ones.get(owner as usize) {
            Some(one) => self.naming.result(self.many, one),
            None => self.naming.result(self.many, &self.naming.signature.labels_of(self.many)),
        };
        if partners.owners.is_empty() {
            // There is no other that might lead to the same.
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

/// Memory in bytes of a result that has no histogram.
fn begun_bytes(labels: &Labels, steps: usize) -> u64 {
    (8 * steps + size_of::<Row>() + labels.size_bytes()) as u64
}

fn hash(labels: &Labels) -> u64 {
    let mut hasher = Xxh64::new(0);
    labels.hash(&mut hasher);
    hasher.finish()
}
