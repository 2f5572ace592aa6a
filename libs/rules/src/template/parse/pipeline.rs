//! Reads pipelines, commands and their words.

use crate::template::literal;
use crate::template::node::{Command, Operand, Pipe, Word};
use crate::template::parse::{Parse, Parser};
use crate::template::signature;
use crate::template::token::TokenKind;

impl Parser<'_> {
    /// Reads a pipeline up to and with the token that ends it.
    pub(super) fn pipeline(&mut self, context: &str, end: TokenKind) -> Parse<Pipe> {
        let at = self.peek_word().at;
        let mut pipe = Pipe { at, assigns: false, variables: Vec::new(), commands: Vec::new() };
        self.declarations(&mut pipe, context)?;
        loop {
            let token = self.take_word();
            match token.kind {
                kind if kind == end => break,
                TokenKind::Bool
                | TokenKind::Number
                | TokenKind::Complex
                | TokenKind::Dot
                | TokenKind::Field
                | TokenKind::Identifier
                | TokenKind::Nil
                | TokenKind::Raw
                | TokenKind::Quoted
                | TokenKind::Variable
                | TokenKind::LeftParen => {
                    self.next -= 1;
                    pipe.commands.push(self.command()?);
                }
                _ => return self.unexpected(&token, context),
            }
        }
        if pipe.commands.is_empty() {
            return self.fail(&format!("missing value for {context}"));
        }
        let literal = |command: &Command| {
            matches!(
                command.args[0].word,
                Word::Bool(_) | Word::Dot | Word::Nil | Word::Number(_) | Word::String { .. }
            )
        };
        match pipe.commands.iter().skip(1).position(literal) {
            Some(at) => self.fail(&format!("non executable command in pipeline stage {}", at + 2)),
            None => Ok(pipe),
        }
    }

    /// Reads `$a :=`, `$a =` or `$a, $b :=` at the start of a pipeline.
    fn declarations(&mut self, pipe: &mut Pipe, context: &str) -> Parse<()> {
        while self.peek_word().kind == TokenKind::Variable {
            let before = self.next;
            let variable = self.take();
            let next = self.peek_word();
            match next.kind {
                TokenKind::Assign | TokenKind::Declare => {
                    pipe.assigns = next.kind == TokenKind::Assign;
                    self.take();
                    self.variables.push(variable.text.clone());
                    pipe.variables.push(variable.text);
                    return Ok(());
                }
                TokenKind::Char if next.text == "," => {
                    self.take();
                    self.variables.push(variable.text.clone());
                    pipe.variables.push(variable.text);
                    if context != "range" || pipe.variables.len() > 1 {
                        return self.fail(&format!("too many declarations in {context}"));
                    }
                    let next = self.peek_word().kind;
                    if !matches!(next, TokenKind::Variable | TokenKind::RightDelim | TokenKind::RightParen) {
                        return self.fail("range can only initialize variables");
                    }
                }
                _ => {
                    self.next = before;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn command(&mut self) -> Parse<Command> {
        let mut command = Command { at: self.peek_word().at, args: Vec::new() };
        loop {
            self.skip_spaces();
            if let Some(operand) = self.operand()? {
                command.args.push(operand);
            }
            match self.peek().kind {
                TokenKind::Space => {}
                TokenKind::RightDelim | TokenKind::RightParen => break,
                TokenKind::Pipe => {
                    self.take();
                    break;
                }
                _ => {
                    let token = self.take();
                    return self.unexpected(&token, "operand");
                }
            }
        }
        if command.args.is_empty() { self.fail("empty command") } else { Ok(command) }
    }

    fn operand(&mut self) -> Parse<Option<Operand>> {
        let Some(term) = self.term()? else { return Ok(None) };
        if self.peek().kind != TokenKind::Field {
            return Ok(Some(term));
        }
        let at = self.peek().at;
        let mut names = Vec::new();
        while self.peek().kind == TokenKind::Field {
            names.push(self.take().text[1..].to_owned());
        }
        let word = match term.word {
            Word::Field(mut first) => {
                first.append(&mut names);
                Word::Field(first)
            }
            Word::Variable(mut first) => {
                first.append(&mut names);
                Word::Variable(first)
            }
            Word::Bool(_) | Word::String { .. } | Word::Number(_) | Word::Nil | Word::Dot => {
                let shown = promql::go_quoted(&term.word.to_string());
                return self.fail(&format!("unexpected . after term {shown}"));
            }
            word => Word::Chain(Box::new(Operand { at: term.at, word }), names),
        };
        Ok(Some(Operand { at, word }))
    }

    fn term(&mut self) -> Parse<Option<Operand>> {
        let token = self.peek_word().clone();
        let word = match token.kind {
            TokenKind::Identifier if signature::of(&token.text).is_none() => {
                self.take();
                return self.fail(&format!("function {} not defined", promql::go_quoted(&token.text)));
            }
            TokenKind::Identifier => Word::Identifier(token.text),
            TokenKind::Dot => Word::Dot,
            TokenKind::Nil => Word::Nil,
            TokenKind::Variable if !self.variables.contains(&token.text) => {
                self.take();
                return self.fail(&format!("undefined variable {}", promql::go_quoted(&token.text)));
            }
            TokenKind::Variable => Word::Variable(vec![token.text]),
            TokenKind::Field => Word::Field(vec![token.text[1..].to_owned()]),
            TokenKind::Bool => Word::Bool(token.text == "true"),
            TokenKind::Number | TokenKind::Complex => {
                self.take();
                let number = literal::number(&token.text).or_else(|why| self.fail(&why))?;
                return Ok(Some(Operand { at: token.at, word: Word::Number(number) }));
            }
            TokenKind::LeftParen => {
                self.take();
                let parse =
                    |parser: &mut Self| parser.pipeline("parenthesized pipeline", TokenKind::RightParen);
                let pipe = self.nested(parse)?;
                return Ok(Some(Operand { at: pipe.at, word: Word::Pipe(pipe) }));
            }
            TokenKind::Quoted | TokenKind::Raw => {
                self.take();
                let text = literal::string(&token.text).or_else(|why| self.fail(&why))?;
                return Ok(Some(Operand { at: token.at, word: Word::String { quoted: token.text, text } }));
            }
            _ => return Ok(None),
        };
        self.take();
        Ok(Some(Operand { at: token.at, word }))
    }
}
