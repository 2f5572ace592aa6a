//! Matchers of requests and hints.

use model::{MatchOp, Matcher};
use proto::thanos as wire;
use wire::label_matcher::Type;

use crate::StoreError;

/// Most matchers of one request.
const MATCHERS: usize = 64;

pub(super) fn matchers_from_wire(matchers: &[wire::LabelMatcher]) -> Result<Vec<Matcher>, StoreError> {
    if matchers.len() > MATCHERS {
        return Err(StoreError::invalid(format!(
            "{} matchers are over the limit of {MATCHERS}",
            matchers.len()
        )));
    }
    let matcher = |m: &wire::LabelMatcher| {
        let op = match Type::try_from(m.r#type) {
            Ok(Type::Eq) => MatchOp::Equal,
            Ok(Type::Neq) => MatchOp::NotEqual,
            Ok(Type::Re) => MatchOp::Regex,
            Ok(Type::Nre) => MatchOp::NotRegex,
            Err(_) => {
                return Err(StoreError::invalid(format!(
                    "matcher on {:?}: unknown type {}",
                    m.name, m.r#type
                )));
            }
        };
        Matcher::new(op, &m.name, &m.value).map_err(|cause| StoreError::invalid(cause.to_string()))
    };
    matchers.iter().map(matcher).collect()
}

pub(super) fn matchers_to_wire(matchers: &[Matcher]) -> Vec<wire::LabelMatcher> {
    let matcher = |m: &Matcher| {
        let r#type = match m.op() {
            MatchOp::Equal => Type::Eq,
            MatchOp::NotEqual => Type::Neq,
            MatchOp::Regex => Type::Re,
            MatchOp::NotRegex => Type::Nre,
        };
        wire::LabelMatcher { r#type: r#type.into(), name: m.name().to_owned(), value: m.value().to_owned() }
    };
    matchers.iter().map(matcher).collect()
}
