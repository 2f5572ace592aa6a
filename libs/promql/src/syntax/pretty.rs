//! Prints a syntax tree in several lines for readers.
//!
//! The layout is that of Prometheus' `promql/parser/prettier.go`: an expression that does not fit on a line
//! of 100 characters is split, and its parts are indented by two more spaces. Parsing the result gives the
//! same tree.

use std::fmt::{self, Write};

use crate::syntax::ast::Expr;
use crate::syntax::printer::{could_continue_offset, is_infinite_base, write_operator, write_suffix};

/// Longest expression that is printed on one line, in bytes.
const WIDTH: usize = 100;
/// The indentation of one level.
const INDENT: &str = "  ";
/// Most levels that are indented. A chain of a thousand operators has a thousand levels.
const MAX_INDENTS: usize = 60;

impl Expr {
    /// The expression in lines of readable length, as printed by the `format_query` endpoint of Prometheus'
    /// API.
    ///
    /// ```
    /// use promql::{ParseOptions, parse};
    /// let long = format!("sum by (job) (rate({}[5m]))", "a".repeat(90));
    /// let expr = parse(&long, &ParseOptions::default())?;
    /// assert_eq!(expr.pretty(), format!("sum by (job) (\n  rate({}[5m])\n)", "a".repeat(90)));
    /// # Ok::<(), promql::ParseError>(())
    /// ```
    pub fn pretty(&self) -> String {
        self.pretty_within(WIDTH)
    }

    fn pretty_within(&self, width: usize) -> String {
        let mut pretty = Pretty { text: String::new(), width };
        // Writing to a string cannot fail.
        let _ = pretty.write(self, 0, false);
        pretty.text
    }
}

struct Pretty {
    text: String,
    width: usize,
}

impl Pretty {
    fn indent(&mut self, level: usize) {
        self.text.extend(std::iter::repeat_n(INDENT, level.min(MAX_INDENTS)));
    }

    /// Writes an expression and the indentation of its first line. `signed` means that an operator follows,
    /// which must not become part of an offset.
    fn write(&mut self, expr: &Expr, level: usize, signed: bool) -> fmt::Result {
        if let Expr::Binary(_) = expr {
            return self.chain(expr, level, signed);
        }
        if fits(expr, self.width) {
            // Prometheus does not indent a subquery that fits on its line.
            if !matches!(expr, Expr::Subquery(_)) {
                self.indent(level);
            }
            return self.line(expr, signed);
        }
        match expr {
            Expr::Aggregate(aggregate) => {
                self.indent(level);
                aggregate.write_operator(&mut self.text)?;
                self.text.push_str("(\n");
                if let Some(param) = &aggregate.param {
                    self.write(param, level + 1, false)?;
                    self.text.push_str(",\n");
                }
                self.write(&aggregate.expr, level + 1, false)?;
                self.close(level)
            }
            Expr::Call(call) => {
                self.indent(level);
                self.text.push_str(call.function.name);
                self.text.push_str("(\n");
                for (at, arg) in call.args.iter().enumerate() {
                    self.text.push_str(if at > 0 { ",\n" } else { "" });
                    self.write(arg, level + 1, false)?;
                }
                self.close(level)
            }
            Expr::Paren(paren) => {
                self.indent(level);
                self.text.push_str("(\n");
                self.write(&paren.expr, level + 1, false)?;
                self.close(level)
            }
            Expr::Unary(unary) => {
                self.indent(level);
                self.text.push_str(unary.op.as_str());
                let start = self.text.len();
                self.write(&unary.expr, level, signed)?;
                // The sign is already indented.
                let spaces = self.text[start..].len() - self.text[start..].trim_start().len();
                self.text.replace_range(start..start + spaces, "");
                Ok(())
            }
            Expr::Subquery(subquery) => {
                self.write(&subquery.expr, level, false)?;
                write_suffix(&mut self.text, subquery, signed)
            }
            Expr::Number(_) | Expr::String(_) | Expr::Vector(_) | Expr::Matrix(_) | Expr::Binary(_) => {
                self.indent(level);
                self.line(expr, signed)
            }
        }
    }

    fn line(&mut self, expr: &Expr, signed: bool) -> fmt::Result {
        if signed { write!(self.text, "{expr:+}") } else { write!(self.text, "{expr}") }
    }

    fn close(&mut self, level: usize) -> fmt::Result {
        self.text.push('\n');
        self.indent(level);
        self.text.push(')');
        Ok(())
    }

    /// Writes a chain of operators: as many from the left as fit on one line, then each operator on a line of
    /// its own.
    fn chain(&mut self, expr: &Expr, level: usize, signed: bool) -> fmt::Result {
        let (first, operators) = expr.chain();
        let mut line = BoundedWriter(self.width);
        let mut fit = 0;
        if write!(line, "{first}").is_ok() {
            fit = operators
                .iter()
                .take_while(|operator| {
                    write_operator(&mut line, operator)
                        .and_then(|()| write!(line, "{}", operator.rhs))
                        .is_ok()
                })
                .count();
        }
        let count = operators.len();
        let follows =
            |at: usize| operators.get(at).map_or(signed, |operator| could_continue_offset(operator.op));
        match operators.get(fit) {
            None => {
                self.indent(level);
                return self.line(expr, signed);
            }
            Some(next) if fit > 0 => {
                self.indent(level + count - fit);
                self.line(&next.lhs, follows(fit))?;
            }
            Some(next) if is_infinite_base(first, next.op) => {
                self.indent(level + count);
                self.text.push_str("Inf");
            }
            Some(_) => self.write(first, level + count, follows(0))?,
        }
        for (at, operator) in operators.iter().enumerate().skip(fit) {
            self.text.push('\n');
            self.indent(level + count - 1 - at);
            let start = self.text.len();
            write_operator(&mut self.text, operator)?;
            // `write_operator` writes spaces around the operator; on a line of its own they are removed.
            self.text.replace_range(start..=start, "");
            self.text.pop();
            self.text.push('\n');
            self.write(&operator.rhs, level + count - at, follows(at + 1))?;
        }
        Ok(())
    }
}

/// Whether the printed expression has at most `width` bytes. Stops printing as soon as it has more.
fn fits(expr: &Expr, width: usize) -> bool {
    write!(BoundedWriter(width), "{expr}").is_ok()
}

/// Accepts this many bytes and fails after that.
struct BoundedWriter(usize);

impl Write for BoundedWriter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.checked_sub(text.len()).ok_or(fmt::Error)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::{ParseOptions, parse};

    fn check(text: &str, expected: &str) {
        let expr = parse(text, &ParseOptions::ALL).unwrap();
        assert_eq!(expr.pretty_within(10), expected, "{text}");
        assert_eq!(parse(expected, &ParseOptions::ALL).unwrap().to_string(), expr.to_string());
    }

    #[test]
    fn long_expressions_are_split_into_lines() {
        check("sum(foo)", "sum(foo)");
        check("sum by() (errors:rate10s)", "sum(\n  errors:rate10s\n)");
        check("topk(10, errors:rate10s)", "topk(\n  10,\n  errors:rate10s\n)");
        check("a+b+c", "a + b + c");
        check("inf ^ a", "Inf ^ a");
        check("inf ^ histogram", "  Inf\n^\n  histogram");
        check(
            "first + foo{bar_='a'} + last / ignoring (a) b",
            "    first\n  +\n    foo{bar_=\"a\"}\n+\n    last\n  / ignoring (a)\n    b",
        );
        check("a + b + cccccc", "  a + b\n+\n  cccccc");
        check(
            "(foo > bool bar > bool baz)",
            "(\n    foo\n  > bool\n    bar\n> bool\n  baz\n)"
                .replace(
                    "(\n    foo\n  > bool\n    bar\n> bool\n  baz\n)",
                    "(\n      foo\n    > bool\n      bar\n  > bool\n    baz\n)",
                )
                .as_str(),
        );
        check("-rate(foo_total[5m])", "-rate(\n  foo_total[5m]\n)");
        check(
            "abs(max_over_time(foo[10m:1m] @ 1))",
            "abs(\n  max_over_time(\n    foo[10m:1m] @ 1.000\n  )\n)",
        );
        check("abs(max_over_time(foo[5m:]))", "abs(\n  max_over_time(\nfoo[5m:]\n  )\n)");
        check("foo offset +(5m) + bar{x='y'}", "  foo offset +(5m)\n+\n  bar{x=\"y\"}");
    }

    #[test]
    fn the_indentation_of_long_chains_is_limited() {
        let long = vec!["metric"; 2000].join(" + ");
        let expr = parse(&long, &ParseOptions::ALL).unwrap();
        let pretty = expr.pretty();
        assert!(pretty.len() < 2000 * 300);
        assert_eq!(parse(&pretty, &ParseOptions::ALL).unwrap().to_string(), long);
    }
}
