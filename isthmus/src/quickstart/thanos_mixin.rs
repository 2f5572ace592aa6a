//! The expressions of Thanos' mixin, with the names of jobs that the demonstration has.

use anyhow::{Context, Result, bail};

/// What the mixin asks for.
const LINES: &str = include_str!("thanos_mixin.txt");
/// The window of rates. Grafana and the mixin use five minutes; the demonstration is younger.
const WINDOW: &str = "1m";

/// An expression of the mixin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MixinExpression {
    /// The role of Thanos that it is about.
    pub(super) role: &'static str,
    pub(super) text: String,
    /// Whether it has data only while something is wrong.
    pub(super) compares: bool,
}

/// All expressions.
///
/// # Errors
/// A line that cannot be read.
pub(super) fn expressions() -> Result<Vec<MixinExpression>> {
    let lines = LINES.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| expression(line).with_context(|| format!("thanos_mixin.txt: {line}"))).collect()
}

/// The name of the job that plays a role of Thanos.
pub(super) fn job(role: &str) -> &str {
    match role {
        "query" => "querier",
        "compact" => "compactor",
        "rule" => "ruler",
        other => other,
    }
}

fn expression(line: &'static str) -> Result<MixinExpression> {
    let (role, rest) = line.split_once(' ').context("no shape")?;
    let (shape, rest) = rest.split_once(' ').context("no metric")?;
    let (rest, labels) = match rest.split_once(" by ") {
        Some((rest, labels)) => (rest, format!("job, {labels}")),
        None => (rest, "job".to_owned()),
    };
    let (metric, of) = match rest.split_once(" of ") {
        Some((metric, of)) => (metric, Some(of)),
        None => (rest, None),
    };
    let job = job(role);
    let own = |suffix: &str| selector(metric, suffix, job);
    let other = || of.map(|of| selector(of, "", job)).context("no second metric");
    let rate = |selector: String, labels: &str| format!("sum by ({labels}) (rate({selector}[{WINDOW}]))");
    let text = match shape {
        "gauge" => own(""),
        "rate" => rate(own(""), &labels),
        "share" => format!("{} / {}", rate(own(""), &labels), rate(other()?, &labels)),
        "mean" => format!("{} / {}", rate(own("_sum"), &labels), rate(own("_count"), &labels)),
        "quantile" => format!("histogram_quantile(0.99, {})", rate(own("_bucket"), &format!("{labels}, le"))),
        "native" => format!("histogram_quantile(0.99, {})", rate(own(""), "le")),
        "age" => format!("time() - max by (job, bucket) ({})", own("")),
        "free" => format!("max_over_time({}[{WINDOW}]) - avg_over_time({}[{WINDOW}])", own(""), other()?),
        "slower" => format!("sum by ({labels}) ({}) > sum by ({labels}) ({})", own(""), other()?),
        _ => bail!("the shape {shape} is unknown"),
    };
    Ok(MixinExpression { role, text, compares: shape == "slower" })
}

/// A metric, whose name gets a suffix, with the job.
fn selector(metric: &str, suffix: &str, job: &str) -> String {
    let (name, matchers) = metric.split_once('{').unwrap_or((metric, "}"));
    let comma = if matchers == "}" { "" } else { ", " };
    format!("{name}{suffix}{{job=~\".*{job}.*\"{comma}{matchers}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_expressions() {
        let check = |line, expected: &str| assert_eq!(expression(line).unwrap().text, expected);
        check("query gauge up", "up{job=~\".*querier.*\"}");
        check(
            "store share a{b=\"c\"} of a by d",
            "sum by (job, d) (rate(a{job=~\".*store.*\", b=\"c\"}[1m])) / sum by (job, d) (rate(a{job=~\".*store.*\"}[1m]))",
        );
        check(
            "rule quantile a{b=\"c\"}",
            "histogram_quantile(0.99, sum by (job, le) (rate(a_bucket{job=~\".*ruler.*\", b=\"c\"}[1m])))",
        );
        assert!(expression("query share a").is_err());
        assert!(expression("query other a").is_err());
    }

    #[test]
    fn all_lines_can_be_read_and_differ() {
        let all = expressions().unwrap();
        let different: std::collections::BTreeSet<&str> = all.iter().map(|one| one.text.as_str()).collect();
        assert!(all.len() > 100, "{}", all.len());
        assert_eq!(different.len(), all.len());
    }
}
