//! Runs a parsed template.
//!
//! The rules and the messages are those of Go's `text/template`, with `missingkey=zero`. A run is bounded: what it does, how deep
//! it goes, and how much it writes.

mod call;

use std::fmt::Display;
use std::rc::Rc;

use crate::template::builtins;
use crate::template::context::TemplateContext;
use crate::template::node::{Branch, Node, Pipe};
use crate::template::parse::Parsed;
use crate::template::value::Value;

/// Most steps of a run. A step evaluates a word, or makes 64 bytes of text.
const MAX_STEPS: usize = 200_000;
/// Deepest nesting of templates, actions and pipelines while a template runs.
const MAX_DEPTH: usize = 150;
/// Most bytes that a template may write. Longer labels and annotations are of no use to anyone.
const MAX_OUTPUT_BYTES: usize = 1 << 20;

/// Whether a loop goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

type Run<T> = Result<T, String>;

/// A run of a template.
pub(super) struct Machine<'t> {
    name: &'t str,
    text: &'t str,
    parsed: &'t Parsed,
    context: &'t TemplateContext<'t>,
    /// The template that runs: this one, or one that it defines.
    running: &'t str,
    variables: Vec<(&'t str, Value)>,
    /// The part that is being evaluated, for messages.
    at: Option<(usize, &'t dyn Display)>,
    depth: usize,
    steps: usize,
    out: String,
}

/// The template call `{{template "name" pipe}}` in messages.
struct Call<'t>(&'t str, Option<&'t Pipe>);

impl Display for Call<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{{{{template {}", promql::go_quoted(self.0))?;
        self.1.map_or(Ok(()), |pipe| write!(f, " {pipe}"))?;
        f.write_str("}}")
    }
}

impl<'t> Machine<'t> {
    /// Runs a template on `dot` and returns what it writes.
    pub(super) fn run(
        name: &'t str,
        text: &'t str,
        parsed: &'t Parsed,
        context: &'t TemplateContext<'t>,
        dot: &Value,
    ) -> Run<String> {
        let mut machine = Self {
            name,
            text,
            parsed,
            context,
            running: name,
            variables: vec![("$", dot.clone())],
            at: None,
            depth: 0,
            steps: 0,
            out: String::new(),
        };
        machine.walk_list(dot, &parsed.root)?;
        Ok(machine.out)
    }

    /// An error at the part that is being evaluated.
    fn fail<T>(&self, message: impl Display) -> Run<T> {
        let Some((at, shown)) = self.at else { return Err(format!("template: {}: {message}", self.name)) };
        let before = &self.text[..at.min(self.text.len())];
        let line = 1 + before.matches('\n').count();
        let column = before.len() - before.rfind('\n').map_or(0, |newline| newline + 1);
        let running = promql::go_quoted(self.running);
        Err(format!("template: {}:{line}:{column}: executing {running} at <{shown}>: {message}", self.name))
    }

    /// Counts steps.
    fn step(&mut self, steps: usize) -> Run<()> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > MAX_STEPS {
            self.fail(format_args!("it needs more than {MAX_STEPS} steps"))
        } else {
            Ok(())
        }
    }

    fn nested<T>(&mut self, run: impl FnOnce(&mut Self) -> Run<T>) -> Run<T> {
        if self.depth == MAX_DEPTH {
            return self.fail(format_args!("it is nested more than {MAX_DEPTH} levels deep"));
        }
        self.depth += 1;
        let result = run(self);
        self.depth -= 1;
        result
    }

    fn write(&mut self, text: &str) -> Run<()> {
        if self.out.len() + text.len() > MAX_OUTPUT_BYTES {
            return self.fail(format_args!("it writes more than {MAX_OUTPUT_BYTES} bytes"));
        }
        self.out += text;
        Ok(())
    }

    fn walk_list(&mut self, dot: &Value, nodes: &'t [Node]) -> Run<Flow> {
        for node in nodes {
            match self.walk(dot, node)? {
                Flow::Next => {}
                flow => return Ok(flow),
            }
        }
        Ok(Flow::Next)
    }

    fn walk(&mut self, dot: &Value, node: &'t Node) -> Run<Flow> {
        self.step(1)?;
        match node {
            Node::Text(text) => self.write(text)?,
            Node::Action(pipe) => {
                let value = self.pipeline(dot, pipe)?;
                if pipe.variables.is_empty() {
                    let text = builtins::printable(&value);
                    self.step(text.len() / 64)?;
                    self.write(&text)?;
                }
            }
            Node::If(branch) => return self.nested(|machine| machine.choice(dot, branch, false)),
            Node::With(branch) => return self.nested(|machine| machine.choice(dot, branch, true)),
            Node::Range(branch) => return self.nested(|machine| machine.range(dot, branch)),
            Node::Template { at, name, pipe } => self.call_template(dot, *at, name, pipe.as_ref())?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn choice(&mut self, dot: &Value, branch: &'t Branch, rebinds: bool) -> Run<Flow> {
        let mark = self.variables.len();
        let value = self.pipeline(dot, &branch.pipe)?;
        let flow = match (value.is_true(), &branch.otherwise) {
            (true, _) => self.walk_list(if rebinds { &value } else { dot }, &branch.body)?,
            (false, Some(otherwise)) => self.walk_list(dot, otherwise)?,
            (false, None) => Flow::Next,
        };
        self.variables.truncate(mark);
        Ok(flow)
    }

    fn range(&mut self, dot: &Value, branch: &'t Branch) -> Run<Flow> {
        let outer = self.variables.len();
        let value = self.pipeline(dot, &branch.pipe)?;
        let mut any = false;
        let two = branch.pipe.variables.len() > 1;
        let mut each = |machine: &mut Self, index: Value, element: Value| -> Run<Flow> {
            any = true;
            let mark = machine.variables.len();
            match (&branch.pipe.variables[..], branch.pipe.assigns) {
                ([one], true) => machine.assign(one, element.clone())?,
                ([first, second], true) => {
                    machine.assign(first, index)?;
                    machine.assign(second, element.clone())?;
                }
                ([_], false) => machine.variables[mark - 1].1 = element.clone(),
                ([_, _], false) => {
                    machine.variables[mark - 1].1 = element.clone();
                    machine.variables[mark - 2].1 = index;
                }
                _ => {}
            }
            let flow = machine.walk_list(&element, &branch.body)?;
            machine.variables.truncate(mark);
            machine.step(1)?;
            Ok(flow)
        };
        match &value {
            Value::Int(_) | Value::Byte(_) if two => {
                let shown = builtins::printable(&value);
                return self.fail(format_args!("can't use {shown} to iterate over more than one variable"));
            }
            Value::Int(count) => {
                let mut at = 0;
                while at < *count && each(self, Value::Nil, Value::Int(at))? != Flow::Break {
                    at += 1;
                }
            }
            Value::Samples(samples) => {
                for (at, sample) in samples.iter().enumerate() {
                    if each(self, Value::Int(at as i64), Value::Sample(Rc::clone(sample)))? == Flow::Break {
                        break;
                    }
                }
            }
            Value::Labels(labels) => {
                for label in labels.iter() {
                    if each(self, label.name.into(), label.value.into())? == Flow::Break {
                        break;
                    }
                }
            }
            Value::Args(args) => {
                for (name, value) in args.iter() {
                    if each(self, name.as_str().into(), value.clone())? == Flow::Break {
                        break;
                    }
                }
            }
            Value::Nil => {}
            other => {
                return self.fail(format_args!("range can't iterate over {}", builtins::printable(other)));
            }
        }
        let mut flow = Flow::Next;
        if !any && let Some(otherwise) = &branch.otherwise {
            flow = self.walk_list(dot, otherwise)?;
        }
        self.variables.truncate(outer);
        Ok(flow)
    }

    fn call_template(&mut self, dot: &Value, at: usize, name: &'t str, pipe: Option<&'t Pipe>) -> Run<()> {
        let parsed = self.parsed;
        let Some((name, body)) = parsed.defined.get_key_value(name) else {
            let shown = Call(name, pipe).to_string();
            self.at = None;
            let message: Run<()> =
                self.fail_at(at, &shown, format_args!("template {} not defined", promql::go_quoted(name)));
            return message;
        };
        let value = pipe.map_or(Ok(Value::Nil), |pipe| self.pipeline(dot, pipe))?;
        let outer = std::mem::replace(&mut self.variables, vec![("$", value.clone())]);
        let outer_name = std::mem::replace(&mut self.running, name);
        self.nested(|machine| machine.walk_list(&value, body))?;
        self.variables = outer;
        self.running = outer_name;
        Ok(())
    }

    fn fail_at<T>(&self, at: usize, shown: &str, message: impl Display) -> Run<T> {
        let machine = Machine {
            name: self.name,
            text: self.text,
            parsed: self.parsed,
            context: self.context,
            running: self.running,
            variables: Vec::new(),
            at: Some((at, &shown)),
            depth: 0,
            steps: 0,
            out: String::new(),
        };
        machine.fail(message)
    }

    fn assign(&mut self, name: &str, value: Value) -> Run<()> {
        match self.variables.iter_mut().rev().find(|(known, _)| *known == name) {
            Some((_, place)) => {
                *place = value;
                Ok(())
            }
            None => self.fail(format_args!("undefined variable: {name}")),
        }
    }

    fn pipeline(&mut self, dot: &Value, pipe: &'t Pipe) -> Run<Value> {
        self.at = Some((pipe.at, pipe));
        let value = self.nested(|machine| {
            let mut value = None;
            for command in &pipe.commands {
                value = Some(machine.command(dot, command, value)?);
            }
            Ok(value.unwrap_or(Value::Nil))
        })?;
        for variable in &pipe.variables {
            if pipe.assigns {
                self.assign(variable, value.clone())?;
            } else {
                self.variables.push((variable, value.clone()));
            }
        }
        Ok(value)
    }
}
