//! `info(v, selector)`: adds the labels of info series, such as `target_info`, to the series of a vector.
//!
//! Behaviour: Prometheus 3.14's `promql/info.go`.

use std::collections::{BTreeMap, HashMap, HashSet};

use model::{Labels, METRIC_NAME, Matcher};

use super::budget::Hold;
use super::column::{Column, Row};
use super::operator::{Context, Kept, Operator};
use crate::QueryError;
use crate::plan::node::InfoCall;

/// The labels by which a series finds its info series.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// Name and identifying labels of an info series; names in order, so that labels are taken in a fixed one.
type Signature = (String, Vec<String>);

/// Enriches series.
#[derive(Debug)]
pub(crate) struct InfoOperator {
    names: Vec<Matcher>,
    matchers: Vec<Matcher>,
    base: Kept,
    infos: Kept,
    ended: u8,
}

fn identity(labels: &Labels) -> Vec<String> {
    IDENTIFYING.iter().map(|name| labels.value(name).to_owned()).collect()
}

impl InfoOperator {
    pub(crate) fn new(call: &InfoCall, base: Hold, infos: Hold) -> Self {
        InfoOperator {
            names: call.names.clone(),
            matchers: call.matchers.clone(),
            base: Kept::new(base),
            infos: Kept::new(infos),
            ended: 0,
        }
    }

    /// Whether a series is an info series itself, which is left as it is.
    fn is_info(&self, labels: &Labels) -> bool {
        self.names.iter().all(|matcher| matcher.matches(labels.metric_name()))
    }

    /// Info series that may belong to some series, by name and identity.
    fn candidates(&self, base: &[Row], infos: Vec<Row>) -> BTreeMap<Signature, Vec<Row>> {
        let mut wanted = [HashSet::new(), HashSet::new()];
        for row in base.iter().filter(|row| !self.is_info(&row.labels)) {
            for (values, name) in wanted.iter_mut().zip(IDENTIFYING) {
                values.extend(row.labels.get(name).map(str::to_owned));
            }
        }
        let mut found: BTreeMap<Signature, Vec<Row>> = BTreeMap::new();
        if wanted.iter().all(HashSet::is_empty) {
            return found;
        }
        for row in infos {
            let fits = wanted
                .iter()
                .zip(IDENTIFYING)
                .all(|(values, name)| values.is_empty() || values.contains(row.labels.value(name)));
            if fits {
                let signature = (row.labels.metric_name().to_owned(), identity(&row.labels));
                found.entry(signature).or_default().push(row);
            }
        }
        found
    }

    /// Whether a label of an info series is added: one that the selector names, or any.
    fn adds(&self, name: &str) -> bool {
        name != METRIC_NAME && (self.matchers.is_empty() || self.matchers.iter().any(|m| m.name() == name))
    }

    fn finish(&mut self, cx: &mut Context<'_>, out: &mut Vec<Row>) -> Result<(), QueryError> {
        let (base, mut hold) = self.base.take();
        let (infos, infos_hold) = self.infos.take();
        let candidates = self.candidates(&base, infos);
        let names: Vec<&String> = {
            let mut names: Vec<&String> = candidates.keys().map(|(name, _)| name).collect();
            names.dedup();
            names
        };
        let mut making = infos_hold.another();
        for row in base {
            cx.budget.check()?;
            let bytes = row.size_bytes();
            if self.is_info(&row.labels) {
                out.push(row);
                continue;
            }
            let identity = identity(&row.labels);
            let mine: Vec<&Vec<Row>> = names
                .iter()
                .filter_map(|name| candidates.get(&((*name).clone(), identity.clone())))
                .collect();
            self.enrich(cx, &row, &mine, &mut making, out)?;
            drop(row);
            hold.give_back(bytes);
        }
        Ok(())
    }

    /// Enriches one series with the newest info series of each name at each step.
    fn enrich(
        &self,
        cx: &mut Context<'_>,
        row: &Row,
        infos: &[&Vec<Row>],
        making: &mut Hold,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        // Info series seldom change, so the labels for a choice of them are made once.
        let mut made: HashMap<Vec<usize>, Option<usize>> = HashMap::new();
        let mut known: HashMap<Labels, usize> = HashMap::new();
        for step in (0..cx.steps.count).filter(|step| row.column.has(*step)) {
            let mut choice = Vec::with_capacity(infos.len());
            for series in infos {
                choice.push(newest(series, step)?);
            }
            let place = match made.get(&choice) {
                Some(place) => *place,
                None => {
                    let chosen = infos.iter().zip(&choice).filter_map(|(series, at)| series.get(*at));
                    let place = match self.labels(&row.labels, chosen)? {
                        None => None,
                        Some(labels) => Some(match known.get(&labels) {
                            Some(place) => *place,
                            None => {
                                cx.budget.check()?;
                                let column = Column::absent(cx.steps.count);
                                let enriched =
                                    Row { labels: labels.clone(), drop_name: row.drop_name, column };
                                making.add(enriched.size_bytes())?;
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

    /// The labels of a series with those of its info series; `None` where it has none but the selector asks for one.
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

/// The place of the series whose sample at a step is newest; a place beyond the list where none has one. Info series
/// arrive as the times of their samples.
fn newest(series: &[Row], step: usize) -> Result<usize, QueryError> {
    let mut best: Option<usize> = None;
    for (at, row) in series.iter().enumerate().filter(|(_, row)| row.column.has(step)) {
        let time = |at: usize| series[at].column.floats[step];
        match best {
            Some(known) if time(known) == time(at) => {
                let millis = (time(at) * 1000.0).round();
                return Err(QueryError::execution(format!(
                    "found duplicate series for info metric: existing {} @ {millis}, new {} @ {millis}",
                    series[known].labels, row.labels
                )));
            }
            Some(known) if time(known) > time(at) => {}
            _ => best = Some(at),
        }
    }
    Ok(best.unwrap_or(usize::MAX))
}

impl Operator for InfoOperator {
    fn push(
        &mut self,
        _cx: &mut Context<'_>,
        input: usize,
        rows: Vec<Row>,
        _out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        if input == 0 { self.base.extend(rows) } else { self.infos.extend(rows) }
    }

    fn end(&mut self, cx: &mut Context<'_>, input: usize, out: &mut Vec<Row>) -> Result<(), QueryError> {
        self.ended |= 1 << input;
        if self.ended == 0b11 { self.finish(cx, out) } else { Ok(()) }
    }
}
