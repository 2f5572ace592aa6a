//! Metrics, with the names of Prometheus and Thanos.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use model::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use rules::PartialResponse;
use runtime::Registry;

type FloatGauge = Gauge<f64, AtomicU64>;

const SECONDS: [f64; 10] = [0.001, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0];

/// A group, as Prometheus names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct GroupLabels {
    rule_group: String,
    strategy: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoadedLabels {
    strategy: &'static str,
    file: String,
    group: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StrategyLabels {
    strategy: &'static str,
}

fn strategy(partial_response: PartialResponse) -> &'static str {
    match partial_response {
        PartialResponse::Abort => "abort",
        PartialResponse::Warn => "warn",
    }
}

/// The metrics of all groups. Clones share them.
#[derive(Clone)]
pub(crate) struct RuleMetrics {
    evaluations: Family<GroupLabels, Counter>,
    failures: Family<GroupLabels, Counter>,
    iterations: Family<GroupLabels, Counter>,
    missed: Family<GroupLabels, Counter>,
    interval: Family<GroupLabels, FloatGauge>,
    last_evaluation: Family<GroupLabels, FloatGauge>,
    last_duration: Family<GroupLabels, FloatGauge>,
    last_samples: Family<GroupLabels, Gauge>,
    rules: Family<GroupLabels, Gauge>,
    evaluation_seconds: Family<StrategyLabels, Histogram>,
    group_seconds: Family<StrategyLabels, Histogram>,
    warned: Family<StrategyLabels, Counter>,
    loaded: Family<LoadedLabels, Gauge>,
    is_successful: Gauge,
    success_time: FloatGauge,
}

impl RuleMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            evaluations: Family::default(),
            failures: Family::default(),
            iterations: Family::default(),
            missed: Family::default(),
            interval: Family::default(),
            last_evaluation: Family::default(),
            last_duration: Family::default(),
            last_samples: Family::default(),
            rules: Family::default(),
            evaluation_seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            group_seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            warned: Family::default(),
            loaded: Family::default(),
            is_successful: Gauge::default(),
            success_time: FloatGauge::default(),
        };
        metrics.register_groups(registry);
        metrics.register_program(registry);
        for strategy in ["abort", "warn"] {
            metrics.warned.get_or_create(&StrategyLabels { strategy }).inc_by(0);
        }
        metrics
    }

    fn register_groups(&self, registry: &mut Registry) {
        let counters = [
            ("prometheus_rule_evaluations", "Evaluations of rules", &self.evaluations),
            ("prometheus_rule_evaluation_failures", "Evaluations of rules that failed", &self.failures),
            ("prometheus_rule_group_iterations", "Evaluations of groups that were due", &self.iterations),
            (
                "prometheus_rule_group_iterations_missed",
                "Evaluations of groups that were left out, because earlier ones took too long",
                &self.missed,
            ),
        ];
        for (name, help, family) in counters {
            registry.register(name, help, family.clone());
        }
        let gauges = [
            ("prometheus_rule_group_interval_seconds", "Time between evaluations", &self.interval),
            (
                "prometheus_rule_group_last_evaluation_timestamp_seconds",
                "Time of the last evaluation, in seconds since the epoch",
                &self.last_evaluation,
            ),
            (
                "prometheus_rule_group_last_duration_seconds",
                "Duration of the last evaluation, in seconds",
                &self.last_duration,
            ),
        ];
        for (name, help, family) in gauges {
            registry.register(name, help, family.clone());
        }
        registry.register(
            "prometheus_rule_group_last_evaluation_samples",
            "Samples of the last evaluation",
            self.last_samples.clone(),
        );
        registry.register("prometheus_rule_group_rules", "Rules", self.rules.clone());
        registry.register(
            "prometheus_rule_evaluation_duration_seconds",
            "Durations of evaluations of rules, in seconds",
            self.evaluation_seconds.clone(),
        );
        registry.register(
            "prometheus_rule_group_duration_seconds",
            "Durations of evaluations of groups, in seconds",
            self.group_seconds.clone(),
        );
    }

    fn register_program(&self, registry: &mut Registry) {
        registry.register(
            "thanos_rule_evaluation_with_warnings",
            "Evaluations of rules on data that were not complete",
            self.warned.clone(),
        );
        registry.register("thanos_rule_loaded_rules", "Rules by file and group", self.loaded.clone());
        registry.register(
            "thanos_rule_config_last_reload_successful",
            "1 if the last time that the rule files were read succeeded",
            self.is_successful.clone(),
        );
        registry.register(
            "thanos_rule_config_last_reload_success_timestamp_seconds",
            "Time at which the rules in use were read, in seconds since the epoch",
            self.success_time.clone(),
        );
    }

    /// The rule files were read.
    pub(crate) fn reloaded(&self, is_successful: bool, used_since: Timestamp) {
        self.is_successful.set(i64::from(is_successful));
        self.success_time.set(used_since.as_secs_f64());
    }

    /// The metrics of a group, which are there from now on.
    pub(crate) fn group(&self, group: &rules::Group) -> GroupMetrics {
        let strategy = strategy(group.partial_response());
        let labels = GroupLabels { rule_group: format!("{};{}", group.file, group.name()), strategy };
        // Thanos writes it in capitals here.
        let loaded_as = if strategy == "abort" { "ABORT" } else { "WARN" };
        let loaded =
            LoadedLabels { strategy: loaded_as, file: group.file.clone(), group: group.name().to_owned() };
        let rules = i64::try_from(group.rules().len()).unwrap_or(i64::MAX);
        self.loaded.get_or_create(&loaded).set(rules);
        self.rules.get_or_create(&labels).set(rules);
        self.interval.get_or_create(&labels).set(group.interval().as_secs_f64());
        for family in [&self.evaluations, &self.failures, &self.iterations, &self.missed] {
            family.get_or_create(&labels).inc_by(0);
        }
        GroupMetrics { all: self.clone(), labels, loaded }
    }
}

/// The metrics of one group.
#[derive(Clone)]
pub(crate) struct GroupMetrics {
    all: RuleMetrics,
    labels: GroupLabels,
    loaded: LoadedLabels,
}

impl GroupMetrics {
    /// A rule was evaluated.
    pub(crate) fn evaluated(&self, took: Duration, has_failed: bool) {
        self.all.evaluations.get_or_create(&self.labels).inc();
        self.all.failures.get_or_create(&self.labels).inc_by(u64::from(has_failed));
        let strategy = StrategyLabels { strategy: self.labels.strategy };
        self.all.evaluation_seconds.get_or_create(&strategy).observe(took.as_secs_f64());
    }

    /// A rule was evaluated on data that were not complete.
    pub(crate) fn warned(&self) {
        self.all.warned.get_or_create(&StrategyLabels { strategy: self.labels.strategy }).inc();
    }

    /// An evaluation of the group ended.
    pub(crate) fn finished(&self, at: Timestamp, took: Duration, samples: usize) {
        self.all.last_evaluation.get_or_create(&self.labels).set(at.as_secs_f64());
        self.all.last_duration.get_or_create(&self.labels).set(took.as_secs_f64());
        let samples = i64::try_from(samples).unwrap_or(i64::MAX);
        self.all.last_samples.get_or_create(&self.labels).set(samples);
        let strategy = StrategyLabels { strategy: self.labels.strategy };
        self.all.group_seconds.get_or_create(&strategy).observe(took.as_secs_f64());
    }

    /// Evaluations were due, of which some were left out.
    pub(crate) fn due(&self, missed: u64) {
        self.all.iterations.get_or_create(&self.labels).inc_by(missed + 1);
        self.all.missed.get_or_create(&self.labels).inc_by(missed);
    }

    /// The group is gone.
    pub(crate) fn remove(&self) {
        let all = &self.all;
        for family in [&all.evaluations, &all.failures, &all.iterations, &all.missed] {
            family.remove(&self.labels);
        }
        for family in [&all.interval, &all.last_evaluation, &all.last_duration] {
            family.remove(&self.labels);
        }
        all.last_samples.remove(&self.labels);
        all.rules.remove(&self.labels);
        all.loaded.remove(&self.loaded);
    }
}
