//! Metrics, with the names of Thanos and of Prometheus where they mean the same.

use std::time::Duration;

use httpclient::DnsCounters;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use runtime::Registry;

use crate::config::NotifierConfig;
use crate::queue::QueueCounts;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AlertmanagerLabels {
    alertmanager: String,
}

type Counters = Family<AlertmanagerLabels, Counter>;
type Histograms = Family<AlertmanagerLabels, Histogram, fn() -> Histogram>;

/// One metric under the name of Thanos, whose label is the host, and of Prometheus, whose label is the URL.
#[derive(Clone, Debug)]
struct Both<T> {
    thanos: T,
    prometheus: T,
}

/// Metrics of a notifier. Clones are the same metrics.
#[derive(Clone, Debug)]
pub(crate) struct NotifierMetrics {
    length: Gauge,
    discovered: Gauge,
    pushed: Counter,
    popped: Counter,
    dropped: Counter,
    refused: Counter,
    lost: Counter,
    sent: Both<Counters>,
    requests_failed: Counters,
    alerts_failed: Counters,
    seconds: Both<Histograms>,
    dns: DnsCounters,
    journal_failures: Counter,
    journal_damaged: Counter,
}

impl NotifierMetrics {
    /// Registers the metrics.
    pub(crate) fn new(config: &NotifierConfig, registry: &mut Registry) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new([0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0]);
        let both = || Family::new_with_constructor(histogram);
        let metrics = Self {
            length: Gauge::default(),
            discovered: Gauge::default(),
            pushed: Counter::default(),
            popped: Counter::default(),
            dropped: Counter::default(),
            refused: Counter::default(),
            lost: Counter::default(),
            sent: Both { thanos: Family::default(), prometheus: Family::default() },
            requests_failed: Family::default(),
            alerts_failed: Family::default(),
            seconds: Both { thanos: both(), prometheus: both() },
            dns: DnsCounters::default(),
            journal_failures: Counter::default(),
            journal_damaged: Counter::default(),
        };
        metrics.register_queue(config, registry);
        metrics.register_sender(registry);
        metrics
    }

    fn register_queue(&self, config: &NotifierConfig, registry: &mut Registry) {
        let capacity = Gauge::<i64>::default();
        capacity.set(i64::try_from(config.capacity).unwrap_or(i64::MAX));
        for prefix in ["thanos_alert", "prometheus_notifications"] {
            let what = "Alerts that are not sent yet";
            registry.register(format!("{prefix}_queue_length"), what, self.length.clone());
            let what = "Most alerts in the queue; when it is full, the oldest are dropped";
            registry.register(format!("{prefix}_queue_capacity"), what, capacity.clone());
        }
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        counter(
            "thanos_alert_queue_alerts_pushed",
            "Alerts that rules have given to the queue",
            &self.pushed,
        );
        counter(
            "thanos_alert_queue_alerts_popped",
            "Alerts that left the queue because an Alertmanager of each group has them",
            &self.popped,
        );
        counter(
            "thanos_alert_queue_alerts_dropped",
            "Alerts that were not sent because the queue was full",
            &self.dropped,
        );
        counter(
            "thanos_alert_sender_alerts_dropped",
            "Alerts that all Alertmanagers of a group refused for good",
            &self.refused,
        );
        counter(
            "prometheus_notifications_dropped",
            "Alerts that were not sent, because the queue was full or all Alertmanagers of a group refused them",
            &self.lost,
        );
        counter(
            "thanos_rule_alertmanagers_dns_lookups",
            "Names of Alertmanagers that were looked up in DNS",
            &self.dns.lookups,
        );
        counter(
            "thanos_rule_alertmanagers_dns_failures",
            "Names of Alertmanagers for which DNS gave no answer",
            &self.dns.failures,
        );
        counter(
            "isthmus_alert_journal_failures",
            "Writes of the file with the queue that failed: a restart would lose alerts that wait",
            &self.journal_failures,
        );
        counter(
            "isthmus_alert_journal_damaged",
            "Files with the queue that were damaged when they were read, and that were kept beside the new one",
            &self.journal_damaged,
        );
    }

    fn register_sender(&self, registry: &mut Registry) {
        let sent = "Alerts that an Alertmanager took";
        registry.register("thanos_alert_sender_alerts_sent", sent, self.sent.thanos.clone());
        registry.register("prometheus_notifications_sent", sent, self.sent.prometheus.clone());
        registry.register(
            "thanos_alert_sender_errors",
            "Requests to an Alertmanager that failed; their alerts are sent again",
            self.requests_failed.clone(),
        );
        registry.register(
            "prometheus_notifications_errors",
            "Alerts in requests to an Alertmanager that failed; they are sent again",
            self.alerts_failed.clone(),
        );
        let seconds = "Time that requests to an Alertmanager took, in seconds";
        registry.register("thanos_alert_sender_latency_seconds", seconds, self.seconds.thanos.clone());
        let name = "prometheus_notifications_latency_histogram_seconds";
        registry.register(name, seconds, self.seconds.prometheus.clone());
        registry.register(
            "prometheus_notifications_alertmanagers_discovered",
            "Alertmanagers that alerts are sent to",
            self.discovered.clone(),
        );
    }

    /// Notes the state of the queue, and what has happened to it.
    pub(crate) fn queue(&self, waiting: usize, counts: QueueCounts) {
        self.length.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.pushed.inc_by(counts.pushed);
        self.popped.inc_by(counts.sent);
        self.dropped.inc_by(counts.dropped);
        self.refused.inc_by(counts.refused);
        self.lost.inc_by(counts.dropped + counts.refused);
    }

    pub(crate) fn dns(&self) -> DnsCounters {
        self.dns.clone()
    }

    pub(crate) fn journal_failed(&self) {
        self.journal_failures.inc();
    }

    pub(crate) fn journal_damaged(&self) {
        self.journal_damaged.inc();
    }
}

/// Metrics of one Alertmanager. They are removed with it.
#[derive(Debug)]
pub(crate) struct AlertmanagerMetrics {
    all: NotifierMetrics,
    host: AlertmanagerLabels,
    url: AlertmanagerLabels,
}

impl AlertmanagerMetrics {
    pub(crate) fn new(all: NotifierMetrics, host: &str, url: &str) -> Self {
        let labels = |text: &str| AlertmanagerLabels { alertmanager: text.to_owned() };
        all.discovered.inc();
        let metrics = Self { all, host: labels(host), url: labels(url) };
        // They are there from the begin on, with 0.
        metrics.sent(0);
        metrics.all.requests_failed.get_or_create(&metrics.host).inc_by(0);
        metrics.all.alerts_failed.get_or_create(&metrics.url).inc_by(0);
        metrics
    }

    pub(crate) fn sent(&self, alerts: usize) {
        self.all.sent.thanos.get_or_create(&self.host).inc_by(alerts as u64);
        self.all.sent.prometheus.get_or_create(&self.url).inc_by(alerts as u64);
    }

    pub(crate) fn failed(&self, alerts: usize) {
        self.all.requests_failed.get_or_create(&self.host).inc();
        self.all.alerts_failed.get_or_create(&self.url).inc_by(alerts as u64);
    }

    pub(crate) fn took(&self, time: Duration) {
        self.all.seconds.thanos.get_or_create(&self.host).observe(time.as_secs_f64());
        self.all.seconds.prometheus.get_or_create(&self.url).observe(time.as_secs_f64());
    }
}

impl Drop for AlertmanagerMetrics {
    fn drop(&mut self) {
        self.all.discovered.dec();
        self.all.sent.thanos.remove(&self.host);
        self.all.sent.prometheus.remove(&self.url);
        self.all.requests_failed.remove(&self.host);
        self.all.alerts_failed.remove(&self.url);
        self.all.seconds.thanos.remove(&self.host);
        self.all.seconds.prometheus.remove(&self.url);
    }
}
