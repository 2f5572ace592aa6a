//! The values of commands: functions, fields, methods and their arguments.

use std::fmt::Display;

use crate::template::exec::Machine;
use crate::template::node::{Command, Operand, Word};
use crate::template::signature::{self, Param};
use crate::template::time::GoDuration;
use crate::template::value::Value;
use crate::template::{builtins, fields, functions};

/// What a query costs in steps.
const QUERY_STEPS: usize = 1000;

type Run<T> = Result<T, String>;

impl<'t> Machine<'t> {
    fn not_a_function(&self, args: &[Operand], last: Option<&Value>) -> Run<()> {
        if args.len() > 1 || last.is_some() {
            return self.fail(format_args!("can't give argument to non-function {}", args[0].word));
        }
        Ok(())
    }

    /// The value of a command; `last` is the value of the command before it in the pipeline.
    pub(super) fn command(&mut self, dot: &Value, command: &'t Command, last: Option<Value>) -> Run<Value> {
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
                            Ok(Value::Duration(GoDuration(number.int.unwrap_or(0))))
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
