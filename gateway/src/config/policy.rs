//! Reads what a cluster's owner allows, and where its access log is written.

use std::{path::Path, time::Duration};

use runtime::yaml::{Mistakes, YamlFields, YamlNode};

use crate::access_log::AccessLogOptions;
use crate::config::duration;
use crate::policy::{MeshMethod, Narrowing, Policy};

/// Bounds of `policy.max_age`, inclusive.
const MAX_AGE_BOUNDS: (Duration, Duration) =
    (Duration::from_secs(60), Duration::from_secs(100 * 365 * 86_400));
/// Bounds of `policy.max_requests_per_second`, inclusive.
const RATE_BOUNDS: (i64, i64) = (1, 1_000_000);
/// Bounds of `access_log.max_size`, inclusive, in bytes.
const LOG_SIZE_BOUNDS: (u64, u64) = (1 << 20, 1 << 40);

pub(super) fn read_policy(node: &YamlNode, mistakes: &Mistakes) -> Policy {
    let mut fields = YamlFields::new("policy", node, mistakes);
    let mut policy = Policy::default();
    let methods_given = fields.node("methods").is_some();
    if methods_given {
        policy.methods = fields.parsed_list::<MeshMethod>("methods").into_iter().collect();
    }
    let (min, max) = Policy::CONCURRENT_REQUESTS_BOUNDS;
    if let Some(limit) = fields.optional("max_concurrent_requests", |node| node.integer(min, max)) {
        // In range by the bounds above.
        policy.max_concurrent_requests = usize::try_from(limit).unwrap_or(usize::MAX);
    }
    let (min, max) = RATE_BOUNDS;
    let rate = fields.optional("max_requests_per_second", |node| node.integer(min, max));
    policy.max_requests_per_second = rate.and_then(|rate| u32::try_from(rate).ok());
    let select = fields.optional("select", |node| {
        let text = node.text()?;
        Narrowing::new(Some(text), None).map(|_| text)
    });
    let max_age = fields.optional("max_age", |node| duration(node, MAX_AGE_BOUNDS));
    // A selector that is wrong was noted as a mistake, so that the whole file is refused.
    policy.narrowing = Narrowing::new(select, max_age).unwrap_or_default();
    if policy.narrowing.is_any() {
        let shows_more = |method: &MeshMethod| Narrowing::UNNARROWED.contains(method);
        if methods_given && let Some(method) = policy.methods.iter().find(|method| shows_more(method)) {
            let text = format!("{method} shows more than `select` and `max_age` allow: remove it, or them");
            fields.wrong("methods", text);
        }
        policy.methods.retain(|method| !shows_more(method));
    }
    fields.finish();
    policy
}

pub(super) fn read_access_log(
    node: &YamlNode,
    folder: &Path,
    mistakes: &Mistakes,
) -> Option<AccessLogOptions> {
    let mut fields = YamlFields::new("access_log", node, mistakes);
    let file = fields.required("file", |node| node.text().map(|text| folder.join(text)));
    let max_bytes = fields.optional("max_size", |node| {
        let bytes = runtime::parse_bytes(node.text()?)?;
        let (min, max) = LOG_SIZE_BOUNDS;
        if (min..=max).contains(&bytes) {
            Ok(bytes)
        } else {
            Err("is not in the range 1MiB to 1TiB".to_owned())
        }
    });
    fields.finish();
    Some(AccessLogOptions { file: file?, max_bytes: max_bytes.unwrap_or(AccessLogOptions::MAX_BYTES) })
}
