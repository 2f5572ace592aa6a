//! Turns the OpenMetrics text of the library into the two formats that scrapers expect.
//!
//! `prometheus-client` writes only OpenMetrics, and adds a full stop to each help text. Both formats are made from its
//! output, line by line. The text format 0.0.4 differs from OpenMetrics: HELP and TYPE have the full sample name
//! (`_total`, `_info`), `info` is a gauge, `unknown` is `untyped`, and there are no units, exemplars and end mark. A
//! family without samples is left out.
//!
//! Formats: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

/// Content type of the text format 0.0.4.
pub(super) const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Content type of OpenMetrics 1.0.
pub(super) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether an `Accept` header asks for OpenMetrics in a version that we write.
///
/// The weights are not compared: a client that lists OpenMetrics, such as Prometheus, gives it the highest weight.
pub(super) fn accepts_openmetrics(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        if parts.next() != Some("application/openmetrics-text") {
            return false;
        }
        parts.all(|parameter| match parameter.split_once('=') {
            Some(("version", version)) => matches!(version.trim_matches('"'), "1.0.0" | "0.0.1"),
            Some(("q", weight)) => weight.parse::<f32>().is_ok_and(|weight| weight > 0.0),
            _ => true,
        })
    })
}

/// The library's text without the full stops that it added.
pub(super) fn polish_openmetrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        out.push_str(if line.starts_with("# HELP ") { line.strip_suffix('.').unwrap_or(line) } else { line });
        out.push('\n');
    }
    out
}

/// The library's text in the text format 0.0.4.
pub(super) fn to_prometheus(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut help = "";
    // The header of a family, until its first sample.
    let mut header = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, help)| help.strip_suffix('.').unwrap_or(help));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "unknown"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            header = format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n");
        } else if !line.starts_with('#') {
            out.push_str(&std::mem::take(&mut header));
            out.push_str(without_exemplar(line));
            out.push('\n');
        }
    }
    out
}

/// A sample line up to its exemplar, which starts with ` # ` outside of the label values.
fn without_exemplar(line: &str) -> &str {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'#' if !quoted => return line[..at].trim_end(),
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_metric_is_converted() {
        let openmetrics = concat!(
            "# HELP requests Requests served.\n# TYPE requests counter\n",
            "requests_total{path=\"a # \\\" {b\"} 5 # {trace=\"x\"} 1.0\n",
            "# HELP idle Never used.\n# TYPE idle counter\n",
            "# HELP size_bytes Sizes.\n# TYPE size_bytes histogram\n# UNIT size_bytes bytes\n",
            "size_bytes_sum 1.0\nsize_bytes_count 1\nsize_bytes_bucket{le=\"+Inf\"} 1\n",
            "# HELP build Build.\n# TYPE build info\nbuild_info{v=\"1\"} 1\n",
            "# HELP odd Odd.\n# TYPE odd unknown\nodd 1\n# EOF\n",
        );
        let expected = concat!(
            "# HELP requests_total Requests served\n# TYPE requests_total counter\n",
            "requests_total{path=\"a # \\\" {b\"} 5\n",
            "# HELP size_bytes Sizes\n# TYPE size_bytes histogram\n",
            "size_bytes_sum 1.0\nsize_bytes_count 1\nsize_bytes_bucket{le=\"+Inf\"} 1\n",
            "# HELP build_info Build\n# TYPE build_info gauge\nbuild_info{v=\"1\"} 1\n",
            "# HELP odd Odd\n# TYPE odd untyped\nodd 1\n",
        );
        assert_eq!(to_prometheus(openmetrics), expected);
        assert!(
            polish_openmetrics(openmetrics)
                .starts_with("# HELP requests Requests served\n# TYPE requests counter")
        );
        assert!(polish_openmetrics(openmetrics).ends_with("# EOF\n"));
    }

    #[test]
    fn openmetrics_is_sent_to_clients_that_accept_it() {
        for (accept, expected) in [
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                true,
            ),
            ("application/openmetrics-text; version=\"1.0.0\"", true),
            ("application/openmetrics-text;version=2.0.0", false),
            ("application/openmetrics-text;q=0,text/plain", false),
            ("text/plain", false),
            ("*/*", false),
            ("", false),
        ] {
            assert_eq!(accepts_openmetrics(accept), expected, "{accept}");
        }
    }
}
