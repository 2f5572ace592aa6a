//! The configuration as it may be shown: without passwords and other secrets.

use serde_json::Value;

/// What is shown instead of a secret, as in Prometheus.
const HIDDEN: &str = "<secret>";
/// Fields whose values are secrets.
const SECRETS: [&str; 9] = [
    "password",
    "credentials",
    "bearer_token",
    "client_secret",
    "secret_key",
    "access_key",
    "secrets",
    "token",
    // An inline private key of `tls_config`.
    "key",
];

/// The text of a configuration file without its secrets, its comments, and the order of its fields. A text that cannot be read shows
/// nothing.
pub(crate) fn without_secrets(text: &str) -> String {
    let shown = serde_saphyr::from_str::<Value>(text).ok().and_then(|mut value| {
        hide(&mut value);
        serde_saphyr::to_string(&value).ok()
    });
    shown.unwrap_or_default()
}

fn hide(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match name.as_str() {
                    // Names of labels are any, and their values are no secrets.
                    "external_labels" | "labels" => {}
                    name if SECRETS.contains(&name) => hide_all(value),
                    _ => hide(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::String(text) => {
            if let Some(hidden) = hide_in_url(text) {
                *text = hidden;
            }
        }
        _ => {}
    }
}

/// Hides each text and number of a secret; those of a list remain a list.
fn hide_all(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(hide_all),
        Value::Array(items) => items.iter_mut().for_each(hide_all),
        Value::Null => {}
        _ => *value = HIDDEN.into(),
    }
}

/// A URL with its password hidden; `None` if it has none.
fn hide_in_url(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (user, host) = rest[..end].rsplit_once('@')?;
    let (name, _) = user.split_once(':')?;
    Some(format!("{scheme}://{name}:{HIDDEN}@{host}{}", &rest[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let text = "
global: {scrape_interval: 15s, external_labels: {token: harmless}}
scrape_configs:
- job_name: one  # a comment
  basic_auth: {username: me, password: open-sesame}
  authorization: {type: Bearer, credentials: open-sesame}
  proxy_url: http://me:open-sesame@proxy:3128/path
  http_headers: {x-key: {secrets: [open-sesame, 17], values: [public]}}
  static_configs: [{targets: ['a:1', 'b:2']}]
- job_name: two
  bearer_token: open-sesame
  oauth2: {client_id: id, client_secret: open-sesame, token_url: https://id/token}
  tls_config: {ca: public-ca, cert: public-cert, key: open-sesame}
  basic_auth: {username: me, password_file: /etc/password}
remote_write:
- {url: 'https://me:open-sesame@host/write', sigv4: {access_key: open-sesame, secret_key: open-sesame}}
";
        let shown = without_secrets(text);
        assert!(!shown.contains("sesame") && !shown.contains("17"), "{shown}");
        for kept in [
            "15s",
            "harmless",
            "public-cert",
            "job_name: one",
            "username: me",
            "public",
            "a:1",
            "/etc/password",
            "https://id/token",
            "http://me:<secret>@proxy:3128/path",
            "https://me:<secret>@host/write",
        ] {
            assert!(shown.contains(kept), "{kept}: {shown}");
        }
        assert_eq!(serde_saphyr::from_str::<Value>(&shown).unwrap()["scrape_configs"][1]["job_name"], "two");
        assert_eq!(without_secrets("a: [b"), "");
    }
}
