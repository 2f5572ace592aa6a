//! Questions about the first two days of the history. Their answers do not depend on which blocks the bucket has.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::quickstart::period::BLOCK;
use crate::quickstart::plan::QuickstartPlan;
use crate::quickstart::querier::QuerierClient;

/// The metrics of the questions: a counter and a gauge.
pub(super) const COUNTER: &str = "app_events_012_total";
pub(super) const GAUGE: &str = "app_pool_002_in_use";

/// One value for each block of the window of two days.
#[derive(Clone, Debug)]
pub(super) struct SeededAnswers {
    /// The number of samples of the counter; of downsampled data, the number of its points.
    pub(super) samples: Vec<f64>,
    /// The sum of all samples of the gauge.
    pub(super) sums: Vec<f64>,
    /// The largest value of each series of the gauge, added up.
    pub(super) maxima: Vec<f64>,
    /// What the querier says about the resolution of the data.
    pub(super) infos: Vec<String>,
}

impl SeededAnswers {
    /// Asks the querier; `parameters` are appended to the URLs, each with a leading `&`.
    pub(super) async fn ask(
        querier: &QuerierClient,
        plan: &QuickstartPlan,
        parameters: &str,
    ) -> Result<Self> {
        let cluster = plan.clusters.iter().find(|cluster| cluster.long_term);
        let selector = format!("{{cluster=\"{}\"}}[2h]", cluster.context("no cluster uploads blocks")?.name);
        // A millisecond before the end of a block, so that a range has all of its samples and none of the next block.
        let end_of = |block: i64| (plan.history.begin + block * BLOCK) as f64 - 0.001;
        let (blocks, mut infos) = (plan.history.blocks_of_window(), Vec::new());
        let mut values = async |question: String| -> Result<Vec<f64>> {
            let answer =
                querier.query_between(&question, end_of(1), end_of(blocks), BLOCK as f64, parameters).await?;
            ensure!(answer.warnings.is_empty(), "{question}: warnings: {:?}", answer.warnings);
            let points = answer.result.first().and_then(|series| series["values"].as_array().cloned());
            let value = |point: &Value| point[1].as_str().and_then(|value| value.parse().ok());
            let values: Option<Vec<f64>> = points.unwrap_or_default().iter().map(value).collect();
            let values = values.with_context(|| format!("{question}: a value is not a number"))?;
            let found = values.len();
            ensure!(found as i64 == blocks, "{question}: values at {found} of {blocks} times");
            infos = answer.infos;
            Ok(values)
        };
        Ok(Self {
            samples: values(format!("sum(count_over_time({COUNTER}{selector}))")).await?,
            sums: values(format!("sum(sum_over_time({GAUGE}{selector}))")).await?,
            maxima: values(format!("sum(max_over_time({GAUGE}{selector}))")).await?,
            infos,
        })
    }

    /// Fails if the sums or the maxima differ in more than the last digits, which depend on the order of additions.
    pub(super) fn check_equal(&self, before: &Self) -> Result<()> {
        for (what, found, expected) in
            [("sum", &self.sums, &before.sums), ("maximum", &self.maxima, &before.maxima)]
        {
            let is_near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-9 * a.abs().max(b.abs());
            let different = found.iter().zip(expected).position(|pair| !is_near(pair));
            if let Some(block) = different {
                let (found, expected) = (found[block], expected[block]);
                anyhow::bail!("{what} of {GAUGE} in block {block}: {found}, expected {expected}");
            }
        }
        Ok(())
    }
}
