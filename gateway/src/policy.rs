//! Which requests a cluster serves: the methods, by exact path, how many requests at once, and of which series.
//!
//! A path is compared with the constants below byte by byte and never normalised. A path that differs (in case, with a
//! doubled slash, an escape, a query, a missing slash) is rejected. The gateway forwards the constant, never the
//! received text.

mod narrowing;

use std::{collections::BTreeSet, fmt, str::FromStr, time::SystemTime};

use proto::thanos::info::InfoResponse;

pub use narrowing::Narrowing;
pub(crate) use narrowing::{NarrowedRequest, RateLimit, matchers_of};

/// A method that gateways forward. All other methods are rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MeshMethod {
    /// Type, labels and time range of a store.
    Info,
    /// Series with their chunks.
    Series,
    /// Names of labels.
    LabelNames,
    /// Values of one label.
    LabelValues,
    /// Type, help and unit of metrics.
    MetricMetadata,
    /// Exemplars; not allowed unless a policy names it.
    Exemplars,
    /// Rules and their state; not allowed unless a policy names it.
    Rules,
    /// Scrape targets, which show addresses; not allowed unless a policy names it.
    Targets,
    /// Statistics of a TSDB; not allowed unless a policy names it.
    TsdbStatistics,
    /// Queries at one instant that the target evaluates; not allowed unless a policy names it.
    Query,
    /// Queries over a range that the target evaluates; not allowed unless a policy names it.
    QueryRange,
}

impl MeshMethod {
    /// All methods.
    pub const ALL: [Self; 11] = [
        Self::Info,
        Self::Series,
        Self::LabelNames,
        Self::LabelValues,
        Self::MetricMetadata,
        Self::Exemplars,
        Self::Rules,
        Self::Targets,
        Self::TsdbStatistics,
        Self::Query,
        Self::QueryRange,
    ];

    /// The path in a request.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Info => "/thanos.info.Info/Info",
            Self::Series => "/thanos.Store/Series",
            Self::LabelNames => "/thanos.Store/LabelNames",
            Self::LabelValues => "/thanos.Store/LabelValues",
            Self::MetricMetadata => "/thanos.Metadata/MetricMetadata",
            Self::Exemplars => "/thanos.Exemplars/Exemplars",
            Self::Rules => "/thanos.Rules/Rules",
            Self::Targets => "/thanos.Targets/Targets",
            Self::TsdbStatistics => "/thanos.Status/TSDBStatistics",
            Self::Query => "/thanos.Query/Query",
            Self::QueryRange => "/thanos.Query/QueryRange",
        }
    }

    /// The name in configuration files: the last part of the path.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "Info",
            Self::Series => "Series",
            Self::LabelNames => "LabelNames",
            Self::LabelValues => "LabelValues",
            Self::MetricMetadata => "MetricMetadata",
            Self::Exemplars => "Exemplars",
            Self::Rules => "Rules",
            Self::Targets => "Targets",
            Self::TsdbStatistics => "TSDBStatistics",
            Self::Query => "Query",
            Self::QueryRange => "QueryRange",
        }
    }

    /// The method of a request, found by the whole path and query as received.
    pub fn of_request(uri: &http::Uri) -> Option<Self> {
        let received = uri.path_and_query()?.as_str();
        Self::ALL.into_iter().find(|method| method.path() == received)
    }
}

impl fmt::Display for MeshMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for MeshMethod {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|method| method.name() == text).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|method| method.name()).collect();
            format!("unknown method {text:?}; known methods: {}", known.join(", "))
        })
    }
}

/// Which requests of the observability side a cluster serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Methods that are forwarded.
    pub methods: BTreeSet<MeshMethod>,
    /// Requests that may run at the same time, over all connections; further ones are rejected.
    pub max_concurrent_requests: usize,
    /// Requests that may begin in a second, over all connections; further ones are rejected.
    pub max_requests_per_second: Option<u32>,
    /// What may be read of each target.
    pub narrowing: Narrowing,
}

impl Policy {
    /// Bounds of `max_concurrent_requests`, inclusive. A request with a slow reader takes less than 1 MiB of memory.
    pub const CONCURRENT_REQUESTS_BOUNDS: (i64, i64) = (1, 100_000);
}

impl Policy {
    /// Removes the services that the policy does not allow from what a target announces, so that no client expects them.
    pub fn restrict(&self, info: &mut InfoResponse) {
        let allows = |method| self.methods.contains(&method);
        info.rules.take_if(|_| !allows(MeshMethod::Rules));
        info.metric_metadata.take_if(|_| !allows(MeshMethod::MetricMetadata));
        info.targets.take_if(|_| !allows(MeshMethod::Targets));
        info.exemplars.take_if(|_| !allows(MeshMethod::Exemplars));
        info.status.take_if(|_| !allows(MeshMethod::TsdbStatistics));
        info.query.take_if(|_| !(allows(MeshMethod::Query) && allows(MeshMethod::QueryRange)));
        self.narrowing.restrict(info, SystemTime::now());
    }
}

impl Default for Policy {
    /// Allows series, label names, label values and metadata; 500 requests at a time.
    fn default() -> Self {
        use MeshMethod::{Info, LabelNames, LabelValues, MetricMetadata, Series};
        Self {
            methods: BTreeSet::from([Info, Series, LabelNames, LabelValues, MetricMetadata]),
            max_concurrent_requests: 500,
            max_requests_per_second: None,
            narrowing: Narrowing::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found_by_its_own_path_and_name() {
        for method in MeshMethod::ALL {
            assert_eq!(MeshMethod::of_request(&method.path().parse().unwrap()), Some(method));
            assert_eq!(method.name().parse(), Ok(method));
            assert!(method.path().ends_with(&format!("/{method}")));
        }
    }

    #[test]
    fn services_that_are_not_allowed_are_not_announced() {
        let mut info = InfoResponse {
            store: Some(Default::default()),
            rules: Some(Default::default()),
            metric_metadata: Some(Default::default()),
            targets: Some(Default::default()),
            exemplars: Some(Default::default()),
            query: Some(Default::default()),
            status: Some(Default::default()),
            ..InfoResponse::default()
        };
        let everything = Policy { methods: MeshMethod::ALL.into(), ..Policy::default() };
        let before = info.clone();
        everything.restrict(&mut info);
        assert_eq!(info, before);
        Policy::default().restrict(&mut info);
        assert!(info.store.is_some() && info.metric_metadata.is_some(), "{info:?}");
        assert!(info.rules.is_none() && info.targets.is_none(), "{info:?}");
        assert!(info.exemplars.is_none() && info.status.is_none() && info.query.is_none(), "{info:?}");
    }

    /// Variants of allowed paths that an attacker may send. None of them is a method.
    #[test]
    fn only_the_exact_path_is_a_method() {
        let mut variants = 0;
        for method in MeshMethod::ALL {
            let path = method.path();
            let (service, name) = path[1..].split_once('/').unwrap();
            let mut corpus = vec![
                format!("/{path}"),
                format!("{path}/"),
                format!("{path}//"),
                format!("{path}?"),
                format!("{path}?x=1"),
                format!("{path};x=1"),
                format!("{path}%00"),
                format!("{path}%20"),
                format!("{path}."),
                format!("{path}/."),
                format!("{path}/.."),
                format!("/./{service}/{name}"),
                format!("/../{service}/{name}"),
                format!("/{service}//{name}"),
                format!("/{service}/./{name}"),
                format!("/{service}/../{service}/{name}"),
                format!("/{service};v=1/{name}"),
                format!("/{service}%2f{name}"),
                format!("/{service}%2F{name}"),
                format!("/%2f{service}/{name}"),
                format!("/{service}\\{name}"),
                format!("/{}/{name}", service.to_lowercase()),
                format!("/{}/{name}", service.to_uppercase()),
                format!("/{service}/{}", name.to_lowercase()),
                format!("/{service}/{}", name.to_uppercase()),
                format!("/x.{service}/{name}"),
                format!("/{service}x/{name}"),
                format!("/{service}/{name}x"),
                format!("/{service}"),
                format!("/{service}/"),
                format!("/{name}"),
                format!("{path},{path}"),
                format!("{path}:443"),
                format!("{path}@x"),
                format!("http://evil{path}x"),
            ];
            // Each character in turn: escaped, doubled, missing, in the other case.
            for (at, c) in path.char_indices() {
                corpus.push(format!("{}%{:02x}{}", &path[..at], c as u32, &path[at + 1..]));
                corpus.push(format!("{}{c}{c}{}", &path[..at], &path[at + 1..]));
                corpus.push(format!("{}{}", &path[..at], &path[at + 1..]));
                let other =
                    if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
                if other != c {
                    corpus.push(format!("{}{other}{}", &path[..at], &path[at + 1..]));
                }
            }
            for variant in corpus {
                // Text that is not a valid URI cannot be in a request.
                let Ok(uri) = variant.parse() else { continue };
                assert_eq!(MeshMethod::of_request(&uri), None, "{variant:?} was taken for {method}");
                variants += 1;
            }
        }
        assert!(variants >= 500, "only {variants} variants were tried");
    }
}
