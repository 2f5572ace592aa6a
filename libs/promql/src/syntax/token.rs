//! Tokens: what they are, which words are reserved, and how errors speak of them.

use crate::syntax::ast::{AggregateOp, BinaryOp, Span};
use crate::syntax::quote::quoted;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The end of the text.
    End,
    /// What is no token; the lexer says why. It is the last token.
    Error,
    /// A name without a colon.
    Identifier,
    /// A name with a colon.
    MetricIdentifier,
    /// A string, still quoted.
    String,
    /// A number, not yet checked.
    Number,
    /// A duration, not yet checked.
    Duration,
    /// A binary operator; `!=` between labels too.
    Op(BinaryOp),
    /// An aggregation.
    Aggregate(AggregateOp),
    /// Any other reserved word.
    Word(Word),
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    /// `@`
    At,
    /// `=`
    Assign,
    /// `=~`
    MatchRegex,
    /// `!~`
    MatchNotRegex,
}

/// Words that mean something in certain places and are ordinary names in most others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Anchored,
    Bool,
    By,
    Fill,
    FillLeft,
    FillRight,
    GroupLeft,
    GroupRight,
    Ignoring,
    Offset,
    On,
    Smoothed,
    Without,
    End,
    MaxOf,
    MinOf,
    Range,
    Start,
    Step,
}

impl Word {
    /// Whether it is the name of a function too.
    pub(crate) const fn is_function(self) -> bool {
        matches!(self, Self::End | Self::MaxOf | Self::MinOf | Self::Range | Self::Start | Self::Step)
    }

    /// Whether a metric may have this name without quotes.
    pub(crate) const fn is_metric_name(self) -> bool {
        !matches!(self, Self::Bool | Self::GroupLeft | Self::GroupRight | Self::Ignoring | Self::On)
    }
}

/// One token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) span: Span,
}

impl Token {
    /// The token's text.
    pub(crate) fn text(self, source: &str) -> &str {
        &source[self.span.start as usize..self.span.end as usize]
    }

    /// What the token is, in the words of an error message.
    pub(crate) fn describe(self, source: &str) -> String {
        let text = self.text(source);
        let short = || match text.char_indices().nth(10) {
            Some((end, _)) => format!("{}...", quoted(&text[..end])),
            // The limit counts bytes, the cut characters.
            None if text.len() > 10 => format!("{}...", quoted(text)),
            None => quoted(text),
        };
        match self.kind {
            Kind::End => "end of input".to_owned(),
            Kind::Identifier => format!("identifier {}", quoted(text)),
            Kind::MetricIdentifier => format!("metric identifier {}", quoted(text)),
            Kind::String => format!("string {}", short()),
            Kind::Number => format!("number {}", short()),
            Kind::Duration => format!("duration {}", short()),
            Kind::Op(_) | Kind::At | Kind::MatchRegex | Kind::MatchNotRegex => format!("<op:{text}>"),
            Kind::Aggregate(_) => format!("<aggr:{text}>"),
            Kind::Word(word) if !word.is_function() => format!("<{text}>"),
            _ => short(),
        }
    }
}

/// The reserved word that `text` is, in any case.
pub(super) fn reserved(text: &str) -> Option<Kind> {
    /// `count_values`
    const LONGEST: usize = 12;
    let mut buffer = [0u8; LONGEST];
    let lower = buffer.get_mut(..text.len())?;
    lower.copy_from_slice(text.as_bytes());
    lower.make_ascii_lowercase();
    Some(match &*lower {
        b"and" => Kind::Op(BinaryOp::And),
        b"or" => Kind::Op(BinaryOp::Or),
        b"unless" => Kind::Op(BinaryOp::Unless),
        b"atan2" => Kind::Op(BinaryOp::Atan2),
        b"sum" => Kind::Aggregate(AggregateOp::Sum),
        b"avg" => Kind::Aggregate(AggregateOp::Avg),
        b"count" => Kind::Aggregate(AggregateOp::Count),
        b"min" => Kind::Aggregate(AggregateOp::Min),
        b"max" => Kind::Aggregate(AggregateOp::Max),
        b"group" => Kind::Aggregate(AggregateOp::Group),
        b"stddev" => Kind::Aggregate(AggregateOp::Stddev),
        b"stdvar" => Kind::Aggregate(AggregateOp::Stdvar),
        b"topk" => Kind::Aggregate(AggregateOp::TopK),
        b"bottomk" => Kind::Aggregate(AggregateOp::BottomK),
        b"count_values" => Kind::Aggregate(AggregateOp::CountValues),
        b"quantile" => Kind::Aggregate(AggregateOp::Quantile),
        b"limitk" => Kind::Aggregate(AggregateOp::LimitK),
        b"limit_ratio" => Kind::Aggregate(AggregateOp::LimitRatio),
        b"offset" => Kind::Word(Word::Offset),
        b"smoothed" => Kind::Word(Word::Smoothed),
        b"anchored" => Kind::Word(Word::Anchored),
        b"by" => Kind::Word(Word::By),
        b"without" => Kind::Word(Word::Without),
        b"on" => Kind::Word(Word::On),
        b"ignoring" => Kind::Word(Word::Ignoring),
        b"group_left" => Kind::Word(Word::GroupLeft),
        b"group_right" => Kind::Word(Word::GroupRight),
        b"fill" => Kind::Word(Word::Fill),
        b"fill_left" => Kind::Word(Word::FillLeft),
        b"fill_right" => Kind::Word(Word::FillRight),
        b"bool" => Kind::Word(Word::Bool),
        b"start" => Kind::Word(Word::Start),
        b"end" => Kind::Word(Word::End),
        b"inf" | b"nan" => Kind::Number,
        lower => Kind::Word(duration_word(lower)?),
    })
}

/// The words that stand for durations, in lower case.
pub(super) fn duration_word(lower: &[u8]) -> Option<Word> {
    Some(match lower {
        b"step" => Word::Step,
        b"range" => Word::Range,
        b"max_of" => Word::MaxOf,
        b"min_of" => Word::MinOf,
        _ => return None,
    })
}
