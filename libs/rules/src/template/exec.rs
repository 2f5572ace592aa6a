//! Runs a parsed template.
//!
//! The rules and the messages are those of Go's `text/template`, with `missingkey=zero`. A run is bounded: what it does, how deep
//! it goes, and how much it writes.

use std::fmt::Display;
use std::rc::Rc;

use crate::template::context::TemplateContext;
use crate::template::node::{Branch, Command, Node, Operand, Pipe, Word};
use crate::template::parse::Parsed;
use crate::template::signature::{self, Param};
use crate::template::value::Value;
use crate::template::{builtins, fields, functions};

/// Most steps of a run. A step evaluates a word, or makes 64 bytes of text.
const MAX_STEPS: usize = 200_000;
/// What a query costs in steps.
const QUERY_STEPS: usize = 1000;
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

    fn not_a_function(&self, args: &[Operand], last: Option<&Value>) -> Run<()> {
        if args.len() > 1 || last.is_some() {
            return self.fail(format_args!("can't give argument to non-function {}", args[0].word));
        }
        Ok(())
    }

    fn command(&mut self, dot: &Value, command: &'t Command, last: Option<Value>) -> Run<Value> {
        self.step(1)?;
        let first = &command.args[0];
        match &first.word {
            Word::Field(_) | Word::Chain(..) | Word::Variable(_) => {
                self.path(dot, first, &command.args[1..], last)
            }
            Word::Identifier(name) => {
                self.at = Some((first.at, &first.word));
                self.call(dot, name, (command.at, command), &command.args[1..], last)
            }
            Word::Pipe(pipe) => {
                self.not_a_function(&command.args, last.as_ref())?;
                self.pipeline(dot, pipe)
            }
            word => {
                self.at = Some((first.at, word));
                self.not_a_function(&command.args, last.as_ref())?;
                match word {
                    Word::Nil => self.fail("nil is not a command"),
                    word => self.constant(dot, word),
                }
            }
        }
    }

    /// The value of a word that is no path and no function.
    fn constant(&mut self, dot: &Value, word: &'t Word) -> Run<Value> {
        Ok(match word {
            Word::Bool(value) => Value::Bool(*value),
            Word::Dot => dot.clone(),
            Word::String { text, .. } => text.as_str().into(),
            Word::Number(number) if number.overflows() => {
                return self.fail(format_args!("{} overflows int", number.text));
            }
            Word::Number(number) => match (number.int, number.float) {
                (Some(int), _) if !number.is_float => Value::Int(int),
                (_, Some(float)) => Value::Float(float),
                _ => Value::Nil,
            },
            _ => Value::Nil,
        })
    }

    /// The value of `.a.b`, `$a.b` or `(...).a`. Arguments belong to the last name, which may be a method.
    fn path(
        &mut self,
        dot: &Value,
        operand: &'t Operand,
        args: &'t [Operand],
        last: Option<Value>,
    ) -> Run<Value> {
        self.at = Some((operand.at, &operand.word));
        let (mut value, names) = match &operand.word {
            Word::Field(names) => (dot.clone(), &names[..]),
            Word::Variable(names) => {
                let name = &names[0];
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                let Some((_, value)) = found else {
                    return self.fail(format_args!("undefined variable: {name}"));
                };
                (value.clone(), &names[1..])
            }
            Word::Chain(first, names) => {
                if matches!(first.word, Word::Nil) {
                    return self.fail(format_args!("indirection through explicit nil in {}", operand.word));
                }
                (self.argument(dot, Param::Any, first)?, &names[..])
            }
            _ => (Value::Nil, &[][..]),
        };
        let Some((method, fields)) = names.split_last() else {
            if !args.is_empty() || last.is_some() {
                return self.fail(format_args!("can't give argument to non-function {}", operand.word));
            }
            return Ok(value);
        };
        let mut type_name = value.type_name();
        for name in fields {
            let next = self.field(dot, (&value, type_name), name, operand, &[], None)?;
            type_name = fields::declared_type(&value, name).unwrap_or(next.type_name());
            value = next;
        }
        self.field(dot, (&value, type_name), method, operand, args, last)
    }

    fn field(
        &mut self,
        dot: &Value,
        (receiver, type_name): (&Value, &str),
        name: &str,
        operand: &'t Operand,
        args: &'t [Operand],
        last: Option<Value>,
    ) -> Run<Value> {
        self.step(1)?;
        if let Some(params) = fields::method(receiver, name) {
            let given = args.len() + usize::from(last.is_some());
            if given != params.len() {
                return self.fail(format_args!(
                    "wrong number of args for {name}: want {} got {given}",
                    params.len()
                ));
            }
            let mut values = Vec::with_capacity(given);
            for (arg, param) in args.iter().zip(params) {
                values.push(self.argument(dot, *param, arg)?);
            }
            if let (Some(last), Some(param)) = (last, params.last()) {
                values.push(self.validated(last, *param)?);
            }
            return fields::call(receiver, name, &values).or_else(|why| {
                self.at = Some((operand.at, &operand.word));
                self.fail(format_args!("error calling {name}: {why}"))
            });
        }
        let has_args = !args.is_empty() || last.is_some();
        match (fields::get(receiver, name), receiver) {
            (Some(_), Value::Labels(_) | Value::Args(_)) if has_args => {
                self.fail(format_args!("{name} is not a method but has arguments"))
            }
            (Some(_), Value::Nil) => Ok(Value::Nil),
            (Some(_), _) if has_args => {
                self.fail(format_args!("{name} has arguments but cannot be invoked as function"))
            }
            (Some(value), _) => Ok(value),
            (None, _) => self.fail(format_args!("can't evaluate field {name} in type {type_name}")),
        }
    }

    /// Calls a function. `place` is what messages name if it fails.
    fn call(
        &mut self,
        dot: &Value,
        name: &'t str,
        place: (usize, &'t dyn Display),
        args: &'t [Operand],
        last: Option<Value>,
    ) -> Run<Value> {
        let Some(signature) = signature::of(name) else {
            return self.fail(format_args!("{} is not a defined function", promql::go_quoted(name)));
        };
        let given = args.len() + usize::from(last.is_some());
        let fixed = signature.params.len();
        if signature.rest.is_some() && given < fixed {
            return self.fail(format_args!(
                "wrong number of args for {name}: want at least {fixed} got {}",
                args.len()
            ));
        }
        if signature.rest.is_none() && given != fixed {
            return self.fail(format_args!("wrong number of args for {name}: want {fixed} got {given}"));
        }
        let param = |at: usize| signature.params.get(at).copied().or(signature.rest).unwrap_or(Param::Any);
        if matches!(name, "and" | "or") {
            return self.short_circuit(dot, name, args, last);
        }
        let mut values = Vec::with_capacity(given);
        for (at, arg) in args.iter().enumerate() {
            values.push(self.argument(dot, param(at), arg)?);
        }
        if let Some(last) = last {
            values.push(self.validated(last, param(args.len()))?);
        }
        let result = match builtins::call(name, &values) {
            Some(Err(_)) if name == "call" && !matches!(values[0], Value::Nil) => {
                let callee =
                    args.first().map_or_else(|| builtins::printable(&values[0]), |arg| arg.word.to_string());
                Err(format!("non-function {callee} of type {}", values[0].type_name()))
            }
            Some(result) => result,
            None => {
                self.step(if name == "query" { QUERY_STEPS } else { 0 })?;
                functions::call(self.context, name, &values)
            }
        };
        match result {
            Ok(value) => {
                self.step(value.text_bytes() / 64)?;
                Ok(value)
            }
            Err(why) => {
                self.at = Some(place);
                self.fail(format_args!("error calling {name}: {why}"))
            }
        }
    }

    fn short_circuit(
        &mut self,
        dot: &Value,
        name: &str,
        args: &'t [Operand],
        last: Option<Value>,
    ) -> Run<Value> {
        let mut value = Value::Nil;
        for arg in args {
            value = self.argument(dot, Param::Any, arg)?;
            if value.is_true() == (name == "or") {
                return Ok(value);
            }
        }
        Ok(last.unwrap_or(value))
    }

    /// The value of an argument for a parameter of type `param`.
    fn argument(&mut self, dot: &Value, param: Param, arg: &'t Operand) -> Run<Value> {
        self.step(1)?;
        self.at = Some((arg.at, &arg.word));
        let value = match &arg.word {
            Word::Dot => dot.clone(),
            Word::Nil => match param {
                Param::Text | Param::Duration | Param::Time => {
                    return self.fail(format_args!("cannot assign nil to {}", param.name()));
                }
                _ => Value::Nil,
            },
            Word::Field(_) | Word::Variable(_) | Word::Chain(..) => self.path(dot, arg, &[], None)?,
            Word::Pipe(pipe) => self.pipeline(dot, pipe)?,
            Word::Identifier(name) => self.call(dot, name, (arg.at, &arg.word), &[], None)?,
            literal => {
                return match param {
                    Param::Any => self.constant(dot, literal),
                    Param::Text if matches!(literal, Word::String { .. }) => self.constant(dot, literal),
                    Param::Text => self.fail(format_args!("expected string; found {literal}")),
                    Param::Duration => match literal {
                        Word::Number(number) if number.int.is_some() => {
                            Ok(Value::Duration(crate::template::time::GoDuration(number.int.unwrap_or(0))))
                        }
                        _ => self.fail(format_args!("expected integer; found {literal}")),
                    },
                    Param::Sample | Param::Samples | Param::Time => {
                        self.fail(format_args!("can't handle {literal} for arg of type {}", param.name()))
                    }
                };
            }
        };
        self.validated(value, param)
    }

    fn validated(&self, value: Value, param: Param) -> Run<Value> {
        match (param, &value) {
            (Param::Any, _)
            | (Param::Text, Value::Text(_))
            | (Param::Sample, Value::Sample(_) | Value::Nil)
            | (Param::Samples, Value::Samples(_) | Value::Nil)
            | (Param::Duration, Value::Duration(_))
            | (Param::Time, Value::Time(_)) => Ok(value),
            (_, Value::Nil) => self.fail(format_args!("invalid value; expected {}", param.name())),
            _ => self.fail(format_args!(
                "wrong type for value; expected {}; got {}",
                param.name(),
                value.type_name()
            )),
        }
    }
}
