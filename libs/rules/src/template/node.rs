//! The parts of a parsed template. They print as Go prints them in messages.

use std::fmt;

/// A piece of text or an action.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Action(Pipe),
    If(Branch),
    With(Branch),
    Range(Branch),
    /// `{{template "name" pipe}}`
    Template {
        at: usize,
        name: String,
        pipe: Option<Pipe>,
    },
    Break,
    Continue,
}

/// An action with a body.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) pipe: Pipe,
    pub(super) body: Vec<Node>,
    pub(super) otherwise: Option<Vec<Node>>,
}

/// `$a, $b := command | command`
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) at: usize,
    /// Whether the variables are assigned, not declared.
    pub(super) assigns: bool,
    pub(super) variables: Vec<String>,
    pub(super) commands: Vec<Command>,
}

/// A function or value and its arguments; never empty.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) at: usize,
    pub(super) args: Vec<Operand>,
}

/// One word of a command, and where it is.
#[derive(Debug)]
pub(super) struct Operand {
    pub(super) at: usize,
    pub(super) word: Word,
}

/// What a word of a command is.
#[derive(Debug)]
pub(super) enum Word {
    Dot,
    Nil,
    Bool(bool),
    Number(Number),
    String {
        /// As it is written, with its quotes.
        quoted: String,
        text: String,
    },
    Identifier(String),
    /// `.a.b`
    Field(Vec<String>),
    /// `$a.b.c`; the first name has the dollar sign.
    Variable(Vec<String>),
    /// `(...).a.b`
    Chain(Box<Operand>, Vec<String>),
    Pipe(Pipe),
}

/// A number. It has no type until it is used.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Number {
    pub(super) text: String,
    pub(super) int: Option<i64>,
    pub(super) float: Option<f64>,
    /// Whether it is a float where no type is asked for.
    pub(super) is_float: bool,
}

impl Number {
    /// Whether it is a whole number that is too large for an integer.
    pub(super) const fn overflows(&self) -> bool {
        self.int.is_none() && !self.is_float
    }
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.variables.is_empty() {
            write!(f, "{} {} ", self.variables.join(", "), if self.assigns { "=" } else { ":=" })?;
        }
        for (i, command) in self.commands.iter().enumerate() {
            write!(f, "{}{command}", if i > 0 { " | " } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, arg) in self.args.iter().enumerate() {
            let space = if i > 0 { " " } else { "" };
            match &arg.word {
                Word::Pipe(pipe) => write!(f, "{space}({pipe})")?,
                word => write!(f, "{space}{word}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dot => f.write_str("."),
            Self::Nil => f.write_str("nil"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(number) => f.write_str(&number.text),
            Self::String { quoted, .. } => f.write_str(quoted),
            Self::Identifier(name) => f.write_str(name),
            Self::Field(names) => names.iter().try_for_each(|name| write!(f, ".{name}")),
            Self::Variable(names) => f.write_str(&names.join(".")),
            Self::Chain(first, names) => {
                match &first.word {
                    Self::Pipe(pipe) => write!(f, "({pipe})")?,
                    word => write!(f, "{word}")?,
                }
                names.iter().try_for_each(|name| write!(f, ".{name}"))
            }
            Self::Pipe(pipe) => write!(f, "{pipe}"),
        }
    }
}
