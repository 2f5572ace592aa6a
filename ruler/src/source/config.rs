//! `--query.config`: queriers in the form of Thanos.

use std::path::Path;

use httpclient::HttpEndpointsConfig;
use runtime::yaml::{Mistakes, YamlFields, YamlNode, YamlValue};

/// Reads the YAML of `--query.config`. Paths in it are relative to `folder`.
///
/// # Errors
/// All mistakes, with their lines.
pub(crate) fn parse_queriers(text: &str, folder: &Path) -> Result<Vec<HttpEndpointsConfig>, Vec<String>> {
    let node = YamlNode::parse(text).map_err(|mistake| vec![mistake.to_string()])?;
    let mistakes = Mistakes::default();
    let mut queriers = Vec::new();
    match &node.value {
        YamlValue::Null => {}
        YamlValue::List(items) => {
            for (at, item) in items.iter().enumerate() {
                let mut fields = YamlFields::new(format!("[{at}]"), item, &mistakes);
                let querier = HttpEndpointsConfig::read(&mut fields, folder, 80, &mistakes);
                fields.refuse(
                    "grpc_config",
                    "is not known here; use --endpoint, which evaluates rules over the StoreAPI of the querier",
                );
                fields.finish();
                if querier.addresses.is_empty() && querier.files.is_empty() && fields_are_of_http(item) {
                    mistakes.add(
                        item.line,
                        format!("[{at}]"),
                        "has no static_configs and no file_sd_configs",
                    );
                }
                queriers.push(querier);
            }
        }
        _ => mistakes.add(node.line, "", format!("expected a list of queriers, found {}", node.kind())),
    }
    let mistakes = mistakes.into_sorted();
    if mistakes.is_empty() { Ok(queriers) } else { Err(mistakes.iter().map(ToString::to_string).collect()) }
}

/// Whether an item is a mapping without `grpc_config`, which is a mistake by itself.
fn fields_are_of_http(item: &YamlNode) -> bool {
    match &item.value {
        YamlValue::Map(entries) => !entries.iter().any(|(key, _)| key.name() == "grpc_config"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queriers_of_thanos_are_read() {
        let text = "- static_configs: [a:9090, 'dns+b']\n  scheme: https\n  path_prefix: /p\n  http_config: {basic_auth: {username: u, password: p}}\n\
            - file_sd_configs: [{files: [q.yml]}]\n";
        let queriers = parse_queriers(text, Path::new("/etc")).unwrap();
        assert_eq!(queriers.len(), 2);
        assert_eq!((queriers[0].is_https, queriers[0].path_prefix.as_str()), (true, "/p"));
        assert_eq!(queriers[0].addresses.len(), 2);
        assert!(queriers[0].http.authorization.is_some());
        assert_eq!(queriers[1].files[0].patterns, [Path::new("/etc/q.yml")]);
        assert_eq!(parse_queriers("", Path::new("/")), Ok(Vec::new()));
    }

    #[test]
    fn every_mistake_is_reported() {
        let text = "- static_configs: ['a b']\n- grpc_config: {endpoint_addresses: [a]}\n- scheme: http\n- statics: []\n";
        let mistakes = parse_queriers(text, Path::new("/")).unwrap_err();
        let expected = [
            "line 1: [0].static_configs[0]: address \"a b\" is not of the form",
            "line 1: [0]: has no static_configs",
            "line 2: [1].grpc_config: is not known here; use --endpoint",
            "line 3: [2]: has no static_configs and no file_sd_configs",
            "line 4: [3].statics: unknown field",
            "line 4: [3]: has no static_configs and no file_sd_configs",
        ];
        assert_eq!(mistakes.len(), expected.len(), "{mistakes:#?}");
        for (mistake, expected) in mistakes.iter().zip(expected) {
            assert!(mistake.starts_with(expected), "{mistake}");
        }
        assert!(
            parse_queriers("a: b", Path::new("/")).unwrap_err()[0].contains("expected a list of queriers")
        );
    }
}
