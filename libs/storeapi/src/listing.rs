//! Lists that components give out besides series: rules, targets, exemplars, and statistics of TSDBs.
//!
//! The items are the types of the HTTP API of Prometheus (`promapi`). All lists have one trait, one client and one
//! server, because their services differ only in their messages.

mod memory;

use model::{Matcher, TimeRange};
use promapi::{ExemplarSeries, RuleGroup, TargetDiscovery, TsdbStatus};

pub use memory::AnswerMemory;

use crate::{Apis, Kept, PartialResponse, StoreError};

/// An item of a list, and the request for the list.
pub trait Listing: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// The request.
    type Request: Clone + std::fmt::Debug + Send + Sync + 'static;

    /// What is listed, in messages.
    const WHAT: &'static str;

    /// Whether a component with these APIs serves the list.
    fn is_served(apis: &Apis) -> bool;

    /// What happens when a store does not answer.
    fn partial_response(request: &Self::Request) -> PartialResponse;
}

/// A list. It may contain several items of one kind, such as a group of rules in several pieces.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed<L> {
    /// The items, in no particular order.
    pub items: Vec<L>,
    /// Which data is missing, and why.
    pub warnings: Vec<String>,
    /// What a server keeps until the list is sent.
    pub kept: Kept,
}

impl<L> Default for Listed<L> {
    fn default() -> Self {
        Self { items: Vec::new(), warnings: Vec::new(), kept: Kept::default() }
    }
}

/// A source of a list.
#[tonic::async_trait]
pub trait ListingStore<L: Listing>: Send + Sync + 'static {
    /// The list. What is received from other stores counts towards `memory`, which the caller keeps as long as it keeps
    /// the list.
    ///
    /// # Errors
    /// When the list cannot be read, or is larger than `memory` allows.
    async fn list(&self, request: L::Request, memory: AnswerMemory) -> Result<Listed<L>, StoreError>;
}

/// A kind of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleKind {
    /// Rules that produce alerts.
    Alerting,
    /// Rules that produce series.
    Recording,
}

/// A request for rules with their state.
///
/// The labels of the rules include the external labels of the component that evaluates them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RulesRequest {
    /// Only rules of this kind; all if `None`.
    pub kind: Option<RuleKind>,
    /// What happens when a store does not answer.
    pub partial_response: PartialResponse,
}

impl Listing for RuleGroup {
    type Request = RulesRequest;
    const WHAT: &'static str = "rules";

    fn is_served(apis: &Apis) -> bool {
        apis.rules
    }

    fn partial_response(request: &RulesRequest) -> PartialResponse {
        request.partial_response
    }
}

/// A state of targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetState {
    /// Targets that are scraped.
    Active,
    /// Targets that relabelling has dropped.
    Dropped,
}

/// A request for scrape targets.
///
/// The labels of the targets include the external labels of the component that scrapes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetsRequest {
    /// Only targets in this state; all if `None`.
    pub state: Option<TargetState>,
    /// Asks for the Alertmanagers instead of the targets. Stores of Thanos send targets nevertheless.
    pub alertmanagers: bool,
    /// What happens when a store does not answer.
    pub partial_response: PartialResponse,
}

impl Listing for TargetDiscovery {
    type Request = TargetsRequest;
    const WHAT: &'static str = "targets";

    fn is_served(apis: &Apis) -> bool {
        apis.targets
    }

    fn partial_response(request: &TargetsRequest) -> PartialResponse {
        request.partial_response
    }
}

/// A request for exemplars.
///
/// The labels of the series include the external labels of their producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExemplarsRequest {
    /// A PromQL expression; its selectors select the series.
    pub query: String,
    /// The time range; both ends are included.
    pub range: TimeRange,
    /// What happens when a store does not answer.
    pub partial_response: PartialResponse,
}

impl Listing for ExemplarSeries {
    type Request = ExemplarsRequest;
    const WHAT: &'static str = "exemplars";

    fn is_served(apis: &Apis) -> bool {
        apis.exemplars
    }

    fn partial_response(request: &ExemplarsRequest) -> PartialResponse {
        request.partial_response
    }
}

/// A request for statistics of TSDBs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TsdbStatusRequest {
    /// Only the TSDB of this tenant; empty for all.
    pub tenant: String,
    /// Most entries of each list; `None` for as many as the store likes.
    pub limit: Option<usize>,
    /// Conditions on the external labels of the TSDB.
    pub matchers: Vec<Matcher>,
    /// What happens when a store does not answer.
    pub partial_response: PartialResponse,
}

/// The statistics of one TSDB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantTsdbStatus {
    /// The tenant; empty except for the TSDBs of receivers.
    pub tenant: String,
    /// Its statistics.
    pub status: TsdbStatus,
}

impl Listing for TenantTsdbStatus {
    type Request = TsdbStatusRequest;
    const WHAT: &'static str = "TSDB statistics";

    fn is_served(apis: &Apis) -> bool {
        apis.status
    }

    fn partial_response(request: &TsdbStatusRequest) -> PartialResponse {
        request.partial_response
    }
}
