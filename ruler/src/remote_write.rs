//! `--remote-write.config`: where samples are sent.

use std::path::Path;

use remotewrite::RemoteWriteConfig;
use runtime::yaml::{Mistakes, YamlFields, YamlNode};

/// Reads the YAML: `remote_write` as in a file of Prometheus. Paths in it are relative to `folder`.
///
/// # Errors
/// All mistakes, with their lines.
pub(crate) fn parse_remote_write(text: &str, folder: &Path) -> Result<Vec<RemoteWriteConfig>, Vec<String>> {
    let node = YamlNode::parse(text).map_err(|mistake| vec![mistake.to_string()])?;
    let mistakes = Mistakes::default();
    let mut fields = YamlFields::new("", &node, &mistakes);
    let configs = fields
        .list("remote_write", |path, node| RemoteWriteConfig::read(path, node, false, folder, &mistakes));
    fields.finish();
    let mistakes = mistakes.into_sorted();
    if mistakes.is_empty() { Ok(configs) } else { Err(mistakes.iter().map(ToString::to_string).collect()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_those_of_prometheus() {
        let text = "remote_write:\n- url: http://receiver/api/v1/receive\n  name: r\n";
        let configs = parse_remote_write(text, Path::new("/")).unwrap();
        assert_eq!((configs.len(), configs[0].name.as_deref()), (1, Some("r")));
        assert_eq!(parse_remote_write("", Path::new("/")), Ok(Vec::new()));
        let wrong = parse_remote_write("remote_write: [{name: r}]\nother: 1\n", Path::new("/")).unwrap_err();
        assert_eq!(wrong[0], "line 1: remote_write[0].url: is missing");
        assert!(wrong[1].starts_with("line 2: other: unknown field"), "{wrong:?}");
    }
}
