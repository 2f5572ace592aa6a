//! From tokens to the parts of a template.
//!
//! The grammar and the messages are those of Go's `text/template/parse`.

mod pipeline;

use std::collections::BTreeMap;

use crate::template::literal;
use crate::template::node::{Branch, Node};
use crate::template::token::{Keyword, Token, TokenKind, tokens};

/// Deepest nesting of actions and parentheses. Deeper ones would need much stack.
const MAX_DEPTH: usize = 60;

/// A template and those that it defines.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) root: Vec<Node>,
    pub(super) defined: BTreeMap<String, Vec<Node>>,
}

/// Parses `text`; `name` is the name of the template in messages.
pub(super) fn parse(name: &str, text: &str) -> Result<Parsed, String> {
    let mut parser = Parser {
        name,
        tokens: tokens(text),
        next: 0,
        variables: vec!["$".to_owned()],
        defined: BTreeMap::new(),
        depth: 0,
        range_depth: 0,
        action_line: 0,
    };
    let root = parser.root()?;
    Ok(Parsed { root, defined: parser.defined })
}

struct Parser<'t> {
    name: &'t str,
    tokens: Vec<Token>,
    next: usize,
    /// The variables that are known here.
    variables: Vec<String>,
    defined: BTreeMap<String, Vec<Node>>,
    depth: usize,
    range_depth: usize,
    /// Where the action began that is being read; 0 if there is none.
    action_line: usize,
}

/// What ends a list of nodes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ListEnd {
    End,
    Else,
}

impl ListEnd {
    const fn shown(self) -> &'static str {
        match self {
            Self::End => "{{end}}",
            Self::Else => "{{else}}",
        }
    }
}

type Parse<T> = Result<T, String>;

impl Parser<'_> {
    fn peek(&self) -> &Token {
        // The last token is never passed: `take` stays at it.
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        if self.next + 1 < self.tokens.len() {
            self.next += 1;
        }
        token
    }

    fn skip_spaces(&mut self) {
        while self.peek().kind == TokenKind::Space {
            self.next += 1;
        }
    }

    fn peek_word(&mut self) -> &Token {
        self.skip_spaces();
        self.peek()
    }

    fn take_word(&mut self) -> Token {
        self.skip_spaces();
        self.take()
    }

    /// An error at the last token that was taken.
    fn fail<T>(&self, message: &str) -> Parse<T> {
        let last = &self.tokens[self.next.saturating_sub(1).min(self.tokens.len() - 1)];
        let line = if matches!(self.peek().kind, TokenKind::Eof | TokenKind::Error) {
            self.peek().line
        } else {
            last.line
        };
        Err(format!("template: {}:{line}: {message}", self.name))
    }

    fn unexpected<T>(&self, token: &Token, context: &str) -> Parse<T> {
        let message = if token.kind == TokenKind::Error {
            let mut message = token.shown();
            if self.action_line != 0 && self.action_line != token.line {
                let infix = if message.ends_with(" action") { "" } else { " in action" };
                message += &format!("{infix} started at {}:{}", self.name, self.action_line);
            }
            message
        } else {
            format!("unexpected {} in {context}", token.shown())
        };
        Err(format!("template: {}:{}: {message}", self.name, token.line))
    }

    fn expect_right(&mut self, context: &str) -> Parse<()> {
        let token = self.take_word();
        if token.kind == TokenKind::RightDelim { Ok(()) } else { self.unexpected(&token, context) }
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parse<T>) -> Parse<T> {
        if self.depth == MAX_DEPTH {
            return self.fail(&format!("actions are nested more than {MAX_DEPTH} levels deep"));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn root(&mut self) -> Parse<Vec<Node>> {
        let mut root = Vec::new();
        while self.peek().kind != TokenKind::Eof {
            if self.peek().kind == TokenKind::LeftDelim {
                let before = self.next;
                self.take();
                if self.take_word().kind == TokenKind::Keyword(Keyword::Define) {
                    self.definition()?;
                    continue;
                }
                self.next = before;
            }
            match self.text_or_action()? {
                Ok(node) => root.push(node),
                Err(end) => return self.fail(&format!("unexpected {}", end.shown())),
            }
        }
        Ok(root)
    }

    fn definition(&mut self) -> Parse<()> {
        const CONTEXT: &str = "define clause";
        let token = self.take_word();
        let name = self.template_name(&token, CONTEXT)?;
        self.expect_right(CONTEXT)?;
        let body = self.own_scope(CONTEXT)?;
        self.define(name, body)
    }

    /// The body of a template that is defined here. It does not see the variables around it.
    fn own_scope(&mut self, context: &str) -> Parse<Vec<Node>> {
        let outer = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let outer_range = std::mem::take(&mut self.range_depth);
        let parsed = self.nested(Self::list);
        self.variables = outer;
        self.range_depth = outer_range;
        match parsed? {
            (body, ListEnd::End) => Ok(body),
            (_, end) => self.fail(&format!("unexpected {} in {context}", end.shown())),
        }
    }

    fn define(&mut self, name: String, body: Vec<Node>) -> Parse<()> {
        let is_empty = |nodes: &[Node]| {
            nodes.iter().all(|node| matches!(node, Node::Text(text) if text.trim().is_empty()))
        };
        match self.defined.get(&name) {
            Some(old) if !is_empty(old) => {
                if is_empty(&body) {
                    return Ok(());
                }
                self.fail(&format!("template: multiple definition of template {}", promql::go_quoted(&name)))
            }
            _ => {
                self.defined.insert(name, body);
                Ok(())
            }
        }
    }

    fn list(&mut self) -> Parse<(Vec<Node>, ListEnd)> {
        let mut nodes = Vec::new();
        while self.peek_word().kind != TokenKind::Eof {
            match self.text_or_action()? {
                Ok(node) => nodes.push(node),
                Err(end) => return Ok((nodes, end)),
            }
        }
        self.fail("unexpected EOF")
    }

    fn text_or_action(&mut self) -> Parse<Result<Node, ListEnd>> {
        let token = self.take_word();
        match token.kind {
            TokenKind::Text => Ok(Ok(Node::Text(token.text))),
            TokenKind::LeftDelim => {
                self.action_line = token.line;
                let action = self.action();
                self.action_line = 0;
                action
            }
            _ => self.unexpected(&token, "input"),
        }
    }

    fn action(&mut self) -> Parse<Result<Node, ListEnd>> {
        let before = self.next;
        let token = self.take_word();
        let TokenKind::Keyword(keyword) = token.kind else {
            self.next = before;
            return Ok(Ok(Node::Action(self.pipeline("command", TokenKind::RightDelim)?)));
        };
        Ok(Ok(match keyword {
            Keyword::Block => self.block()?,
            Keyword::Break => self.loop_control("{{break}}", Node::Break)?,
            Keyword::Continue => self.loop_control("{{continue}}", Node::Continue)?,
            Keyword::Else => {
                let next = self.peek_word().kind;
                if !matches!(next, TokenKind::Keyword(Keyword::If | Keyword::With)) {
                    self.expect_right("else")?;
                }
                return Ok(Err(ListEnd::Else));
            }
            Keyword::End => {
                self.expect_right("end")?;
                return Ok(Err(ListEnd::End));
            }
            Keyword::If => Node::If(self.branch("if")?),
            Keyword::Range => Node::Range(self.branch("range")?),
            Keyword::With => Node::With(self.branch("with")?),
            Keyword::Template => self.template()?,
            Keyword::Define => return self.unexpected(&token, "command"),
        }))
    }

    fn loop_control(&mut self, shown: &str, node: Node) -> Parse<Node> {
        let token = self.take_word();
        if token.kind != TokenKind::RightDelim {
            return self.unexpected(&token, shown);
        }
        if self.range_depth == 0 {
            return self.fail(&format!("{shown} outside {{{{range}}}}"));
        }
        Ok(node)
    }

    fn branch(&mut self, context: &'static str) -> Parse<Branch> {
        let known = self.variables.len();
        let branch = self.nested(|parser| parser.branch_parts(context));
        self.variables.truncate(known);
        branch
    }

    fn branch_parts(&mut self, context: &'static str) -> Parse<Branch> {
        let pipe = self.pipeline(context, TokenKind::RightDelim)?;
        let is_range = usize::from(context == "range");
        self.range_depth += is_range;
        let (body, end) = self.list()?;
        self.range_depth -= is_range;
        let otherwise = match (end, context, self.peek().kind) {
            (ListEnd::End, _, _) => None,
            (ListEnd::Else, "if", TokenKind::Keyword(Keyword::If))
            | (ListEnd::Else, "with", TokenKind::Keyword(Keyword::With)) => {
                self.take();
                let chained = self.branch(context)?;
                Some(vec![if context == "if" { Node::If(chained) } else { Node::With(chained) }])
            }
            (ListEnd::Else, _, _) => match self.list()? {
                (nodes, ListEnd::End) => Some(nodes),
                (_, end) => return self.fail(&format!("expected end; found {}", end.shown())),
            },
        };
        Ok(Branch { pipe, body, otherwise })
    }

    fn block(&mut self) -> Parse<Node> {
        const CONTEXT: &str = "block clause";
        let token = self.take_word();
        let name = self.template_name(&token, CONTEXT)?;
        let pipe = self.pipeline(CONTEXT, TokenKind::RightDelim)?;
        let body = self.own_scope(CONTEXT)?;
        self.define(name.clone(), body)?;
        Ok(Node::Template { at: token.at, name, pipe: Some(pipe) })
    }

    fn template(&mut self) -> Parse<Node> {
        const CONTEXT: &str = "template clause";
        let token = self.take_word();
        let name = self.template_name(&token, CONTEXT)?;
        let pipe = if self.peek_word().kind == TokenKind::RightDelim {
            self.take();
            None
        } else {
            Some(self.pipeline(CONTEXT, TokenKind::RightDelim)?)
        };
        Ok(Node::Template { at: token.at, name, pipe })
    }

    fn template_name(&self, token: &Token, context: &str) -> Parse<String> {
        match token.kind {
            TokenKind::Quoted | TokenKind::Raw => literal::string(&token.text).or_else(|why| self.fail(&why)),
            _ => self.unexpected(token, context),
        }
    }
}
