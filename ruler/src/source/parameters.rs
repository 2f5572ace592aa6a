//! The parameters of a query over HTTP.

use model::Timestamp;
use promapi::write_timestamp;
use rules::PartialResponse;

use crate::source::{LOOKBACK, RuleQuery};

/// The query as a form. `is_plain` leaves out the parameters that Prometheus does not know.
pub(super) fn form(query: &RuleQuery, is_plain: bool) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("query", &query.text);
    form.append_pair("time", &seconds(query.at));
    form.append_pair("timeout", &format!("{}ms", query.timeout.as_millis().max(1)));
    if query.has_fixed_lookback {
        form.append_pair("lookback_delta", &format!("{}s", LOOKBACK.as_secs()));
    }
    if !is_plain {
        form.append_pair("dedup", "true");
        let is_partial = query.partial_response == PartialResponse::Warn;
        form.append_pair("partial_response", if is_partial { "true" } else { "false" });
        // Known to our querier only: rules of a group often read the same series.
        form.append_pair("share_selects", "true");
    }
    form.finish()
}

fn seconds(at: Timestamp) -> String {
    let mut text = Vec::new();
    write_timestamp(&mut text, at);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn forms_have_the_parameters_of_thanos() {
        let query = RuleQuery {
            text: "a + b".to_owned(),
            at: Timestamp::from_millis(1_500),
            partial_response: PartialResponse::Abort,
            has_fixed_lookback: false,
            timeout: Duration::from_secs(30),
        };
        let expected = "query=a+%2B+b&time=1.500&timeout=30000ms";
        assert_eq!(form(&query, true), expected);
        assert_eq!(
            form(&query, false),
            format!("{expected}&dedup=true&partial_response=false&share_selects=true")
        );
        let warn = RuleQuery { partial_response: PartialResponse::Warn, has_fixed_lookback: true, ..query };
        assert_eq!(
            form(&warn, false),
            format!("{expected}&lookback_delta=300s&dedup=true&partial_response=true&share_selects=true")
        );
    }
}
