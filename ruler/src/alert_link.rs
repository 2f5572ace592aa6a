//! Where an alert came from: a link to its expression, `--alert.query-url` and `--alert.query-template`.

/// Writes links to expressions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AlertLink {
    url: String,
    /// The text of the template around `{{.Expr}}`.
    parts: Vec<String>,
}

/// The template of Thanos.
pub(crate) const DEFAULT_TEMPLATE: &str = "/graph?g0.expr={{.Expr}}&g0.tab=1";

impl AlertLink {
    /// Links that begin with `url`.
    ///
    /// # Errors
    /// The template has other actions than `{{.Expr}}`.
    pub(crate) fn new(url: &str, template: &str) -> Result<Self, String> {
        let (mut parts, mut rest) = (Vec::new(), template);
        while let Some((before, action)) = rest.split_once("{{") {
            let (action, after) =
                action.split_once("}}").ok_or_else(|| format!("{template:?}: an action {{{{ has no end"))?;
            let action = action.trim_start_matches("- ").trim_end_matches(" -").trim();
            if action != ".Expr" {
                return Err(format!(
                    "{template:?}: the action {action:?} is not known, expected {{{{.Expr}}}}"
                ));
            }
            parts.push(before.to_owned());
            rest = after;
        }
        parts.push(rest.to_owned());
        Ok(Self { url: url.to_owned(), parts })
    }

    /// The link to an expression.
    pub(crate) fn of(&self, expression: &str) -> String {
        let escaped: String = url::form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        format!("{}{}", self.url, self.parts.join(&escaped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_have_the_escaped_expression() {
        let link = AlertLink::new("https://q.example/x", DEFAULT_TEMPLATE).unwrap();
        assert_eq!(link.of("sum(up) > 1"), "https://q.example/x/graph?g0.expr=sum%28up%29+%3E+1&g0.tab=1");
        assert_eq!(AlertLink::new("", "{{ .Expr }}|{{.Expr}}").unwrap().of("a"), "a|a");
        assert_eq!(AlertLink::new("u", "/none").unwrap().of("a"), "u/none");
        for wrong in ["{{.Expr", "{{.Other}}", "{{if .Expr}}x{{end}}"] {
            assert!(AlertLink::new("", wrong).is_err(), "{wrong}");
        }
    }
}
