//! `info(v, selector)`: adds the labels of info series, such as `target_info`, to the series of a vector.
//!
//! The vector is read first. Its instances and jobs decide which info series are requested ([`Identities`]).
//!
//! Behaviour: `combineWithInfoSeries` in Prometheus 3.14's `promql/info.go`.

use std::collections::{BTreeMap, HashMap};

use budget::{Budget, Reservation};
use model::{Labels, METRIC_NAME, Matcher};

use crate::error::QueryError;
use crate::eval::identity::{IDENTIFYING, Identities};
use crate::eval::operator::{KeptRows, Operator, OperatorContext};
use crate::plan::node::InfoCall;
use crate::value::column::{Column, Row};

/// The info series of one metric by their instance and job, each list in the order of arrival.
type InfoMetric<'a> = HashMap<[&'a str; 2], Vec<&'a Row>>;

/// Adds labels to series. Its second input ends after the first.
#[derive(Debug)]
pub(crate) struct InfoOperator {
    names: Vec<Matcher>,
    matchers: Vec<Matcher>,
    base: KeptRows,
    infos: KeptRows,
    in_progress: Reservation,
}

impl InfoOperator {
    /// An operator that reserves memory for its inputs in `base` and `infos`, and for its results in `in_progress`.
    pub(crate) fn new(
        call: &InfoCall,
        base: Reservation,
        infos: Reservation,
        in_progress: Reservation,
    ) -> Self {
        Self {
            names: call.names.clone(),
            matchers: call.matchers.clone(),
            base: KeptRows::new(base),
            infos: KeptRows::new(infos),
            in_progress,
        }
    }

    /// The identities whose info series are needed, once the first input has ended.
    ///
    /// # Errors
    /// If they take more memory than the budget allows, or if the query is interrupted.
    pub(crate) fn identities(&mut self, budget: &Budget) -> Result<Identities, QueryError> {
        let mut identities = Identities::default();
        for row in &self.base.rows {
            budget.check()?;
            if !is_info(&self.names, &row.labels) {
                self.in_progress.add(identities.add(&row.labels))?;
            }
        }
        Ok(identities)
    }

    /// Whether a label of an info series is added: one that the selector names, or any label if it names none.
    fn adds(&self, name: &str) -> bool {
        name != METRIC_NAME && (self.matchers.is_empty() || self.matchers.iter().any(|m| m.name() == name))
    }

    fn finish(&mut self, cx: &mut OperatorContext<'_>, out: &mut Vec<Row>) -> Result<(), QueryError> {
        let (base, mut reserved) = self.base.take();
        let (infos, _infos_reserved) = self.infos.take();
        // In the order of names, so that labels are added in a fixed order.
        let mut metrics: BTreeMap<&str, InfoMetric<'_>> = BTreeMap::new();
        for row in &infos {
            let metric = metrics.entry(row.labels.metric_name()).or_default();
            metric.entry(identity(&row.labels)).or_default().push(row);
        }
        refuse_duplicates(cx, &base, &metrics)?;
        let mut in_progress = self.in_progress.new_empty();
        for row in base {
            cx.budget.check()?;
            let bytes = row.size_bytes();
            if is_info(&self.names, &row.labels) {
                // An info series in the vector is not changed.
                out.push(row);
                continue;
            }
            let mine: Vec<&[&Row]> = metrics
                .values()
                .filter_map(|metric| metric.get(&identity(&row.labels)))
                .map(Vec::as_slice)
                .collect();
            self.enrich(cx, &row, &mine, &mut in_progress, out)?;
            drop(row);
            reserved.release(bytes);
        }
        self.in_progress.release(u64::MAX);
        Ok(())
    }

    /// Adds to one series, at each step, the labels of the newest info series of each name.
    fn enrich(
        &self,
        cx: &mut OperatorContext<'_>,
        row: &Row,
        infos: &[&[&Row]],
        in_progress: &mut Reservation,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        // Info series seldom change, so the labels for each choice of them are computed once.
        let mut made: HashMap<Vec<Option<usize>>, Option<usize>> = HashMap::new();
        let mut known: HashMap<Labels, usize> = HashMap::new();
        for step in (0..cx.steps.count).filter(|step| row.column.has(*step)) {
            let choice: Vec<Option<usize>> = infos.iter().map(|series| newest(series, step)).collect();
            let place = match made.get(&choice) {
                Some(place) => *place,
                None => {
                    let chosen = infos.iter().zip(&choice).filter_map(|(series, at)| at.map(|at| series[at]));
                    let place = match self.labels(&row.labels, chosen)? {
                        None => None,
                        Some(labels) => Some(match known.get(&labels) {
                            Some(place) => *place,
                            None => {
                                cx.budget.check()?;
                                let column = Column::absent(cx.steps.count);
                                let enriched =
                                    Row { labels: labels.clone(), drop_name: row.drop_name, column };
                                in_progress.add(enriched.size_bytes())?;
                                out.push(enriched);
                                known.insert(labels, out.len() - 1);
                                out.len() - 1
                            }
                        }),
                    };
                    made.insert(choice, place);
                    place
                }
            };
            if let Some(place) = place {
                out[place].column.set(step, row.column.get(step));
            }
        }
        Ok(())
    }

    /// The labels of a series with those of its info series. `None` if it has no info series but the selector requires one.
    fn labels<'a>(
        &self,
        base: &Labels,
        infos: impl Iterator<Item = &'a Row>,
    ) -> Result<Option<Labels>, QueryError> {
        let mut added: BTreeMap<&str, &str> = BTreeMap::new();
        let mut any = false;
        for info in infos {
            any = true;
            for label in info.labels.iter().filter(|label| self.adds(label.name)) {
                match added.get(label.name) {
                    Some(value) if *value != label.value => {
                        return Err(QueryError::execution(format!("conflicting label: {}", label.name)));
                    }
                    _ if base.get(label.name).is_some() => {}
                    _ => {
                        added.insert(label.name, label.value);
                    }
                }
            }
        }
        if !any && self.matchers.iter().any(|matcher| !matcher.matches_empty()) {
            return Ok(None);
        }
        let mut builder = base.to_builder();
        for (name, value) in added {
            builder.set(name, value);
        }
        Ok(Some(builder.build()))
    }
}

/// Whether a series is an info series itself.
fn is_info(names: &[Matcher], labels: &Labels) -> bool {
    names.iter().all(|matcher| matcher.matches(labels.metric_name()))
}

fn identity(labels: &Labels) -> [&str; 2] {
    IDENTIFYING.map(|name| labels.value(name))
}

/// The time of the sample of an info series at a step. The values of info series are the times of their samples.
fn time(row: &Row, step: usize) -> Option<f64> {
    row.column.has(step).then(|| row.column.floats[step])
}

/// The index of the series whose sample at a step is newest; `None` if none has a sample.
fn newest(series: &[&Row], step: usize) -> Option<usize> {
    let times = series.iter().enumerate().filter_map(|(at, row)| Some((time(row, step)?, at)));
    times.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, at)| at)
}

/// Rejects two info series of one metric and identity whose newest samples have the same time, at the steps at which the
/// vector has any value. That no series of the vector has that identity does not matter.
fn refuse_duplicates(
    cx: &mut OperatorContext<'_>,
    base: &[Row],
    metrics: &BTreeMap<&str, InfoMetric<'_>>,
) -> Result<(), QueryError> {
    let several = || metrics.values().flat_map(HashMap::values).filter(|series| series.len() > 1);
    if several().next().is_none() {
        return Ok(());
    }
    let mut any = vec![false; cx.steps.count];
    for row in base {
        cx.budget.check()?;
        for (step, any) in any.iter_mut().enumerate() {
            *any = *any || row.column.has(step);
        }
    }
    for step in (0..cx.steps.count).filter(|step| any[*step]) {
        for series in several() {
            cx.budget.check()?;
            let mut best: Option<(&Row, f64)> = None;
            for &row in series {
                let Some(time) = time(row, step) else { continue };
                match best {
                    Some((known, newest)) if newest == time => {
                        let millis = (time * 1000.0).round();
                        return Err(QueryError::execution(format!(
                            "found duplicate series for info metric: existing {} @ {millis}, new {} @ {millis}",
                            known.labels, row.labels
                        )));
                    }
                    Some((_, newest)) if newest > time => {}
                    _ => best = Some((row, time)),
                }
            }
        }
    }
    Ok(())
}

impl Operator for InfoOperator {
    fn push(
        &mut self,
        _cx: &mut OperatorContext<'_>,
        input: usize,
        rows: Vec<Row>,
        _out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        if input == 0 { self.base.extend(rows) } else { self.infos.extend(rows) }
    }

    fn end(
        &mut self,
        cx: &mut OperatorContext<'_>,
        input: usize,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        if input == 0 { Ok(()) } else { self.finish(cx, out) }
    }
}
