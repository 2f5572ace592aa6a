//! Tokens: their kinds, the reserved words, and how errors name tokens.

use crate::syntax::ast::{AggregateOp, BinaryOp, Span};
use crate::syntax::quote::quoted;

/// The kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// The end of the text.
    End,
    /// A lexer error; the lexer has the message. It is the last token.
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
    /// A binary operator, or `!=` between labels.
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

/// Words that have a meaning in certain places and are ordinary names in most others.
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
    /// Whether it is also the name of a function.
    pub(crate) const fn is_function(self) -> bool {
        matches!(self, Self::End | Self::MaxOf | Self::MinOf | Self::Range | Self::Start | Self::Step)
    }

    /// Whether it can be the name of a metric without quotes.
    pub(crate) const fn is_metric_name(self) -> bool {
        !matches!(self, Self::Bool | Self::GroupLeft | Self::GroupRight | Self::Ignoring | Self::On)
    }
}

/// One token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) span: Span,
}

impl Token {
    /// The token's text.
    pub(crate) fn text(self, source: &str) -> &str {
        &source[self.span.start as usize..self.span.end as usize]
    }

    /// The token as error messages name it.
    pub(crate) fn describe(self, source: &str) -> String {
        let text = self.text(source);
        let short = || match text.char_indices().nth(10) {
            Some((end, _)) => format!("{}...", quoted(&text[..end])),
            // The limit is 10 bytes, but the text is cut after 10 characters.
            None if text.len() > 10 => format!("{}...", quoted(text)),
            None => quoted(text),
        };
        match self.kind {
            TokenKind::End => "end of input".to_owned(),
            TokenKind::Identifier => format!("identifier {}", quoted(text)),
            TokenKind::MetricIdentifier => format!("metric identifier {}", quoted(text)),
            TokenKind::String => format!("string {}", short()),
            TokenKind::Number => format!("number {}", short()),
            TokenKind::Duration => format!("duration {}", short()),
            TokenKind::Op(_) | TokenKind::At | TokenKind::MatchRegex | TokenKind::MatchNotRegex => {
                format!("<op:{text}>")
            }
            TokenKind::Aggregate(_) => format!("<aggr:{text}>"),
            TokenKind::Word(word) if !word.is_function() => format!("<{text}>"),
            _ => short(),
        }
    }
}

/// The kind of a reserved word, in any case. `None` if `text` is not reserved.
pub(super) fn reserved(text: &str) -> Option<TokenKind> {
    /// `count_values`
    const LONGEST: usize = 12;
    let mut buffer = [0u8; LONGEST];
    let lower = buffer.get_mut(..text.len())?;
    lower.copy_from_slice(text.as_bytes());
    lower.make_ascii_lowercase();
    Some(match &*lower {
        b"and" => TokenKind::Op(BinaryOp::And),
        b"or" => TokenKind::Op(BinaryOp::Or),
        b"unless" => TokenKind::Op(BinaryOp::Unless),
        b"atan2" => TokenKind::Op(BinaryOp::Atan2),
        b"sum" => TokenKind::Aggregate(AggregateOp::Sum),
        b"avg" => TokenKind::Aggregate(AggregateOp::Avg),
        b"count" => TokenKind::Aggregate(AggregateOp::Count),
        b"min" => TokenKind::Aggregate(AggregateOp::Min),
        b"max" => TokenKind::Aggregate(AggregateOp::Max),
        b"group" => TokenKind::Aggregate(AggregateOp::Group),
        b"stddev" => TokenKind::Aggregate(AggregateOp::Stddev),
        b"stdvar" => TokenKind::Aggregate(AggregateOp::Stdvar),
        b"topk" => TokenKind::Aggregate(AggregateOp::TopK),
        b"bottomk" => TokenKind::Aggregate(AggregateOp::BottomK),
        b"count_values" => TokenKind::Aggregate(AggregateOp::CountValues),
        b"quantile" => TokenKind::Aggregate(AggregateOp::Quantile),
        b"limitk" => TokenKind::Aggregate(AggregateOp::LimitK),
        b"limit_ratio" => TokenKind::Aggregate(AggregateOp::LimitRatio),
        b"offset" => TokenKind::Word(Word::Offset),
        b"smoothed" => TokenKind::Word(Word::Smoothed),
        b"anchored" => TokenKind::Word(Word::Anchored),
        b"by" => TokenKind::Word(Word::By),
        b"without" => TokenKind::Word(Word::Without),
        b"on" => TokenKind::Word(Word::On),
        b"ignoring" => TokenKind::Word(Word::Ignoring),
        b"group_left" => TokenKind::Word(Word::GroupLeft),
        b"group_right" => TokenKind::Word(Word::GroupRight),
        b"fill" => TokenKind::Word(Word::Fill),
        b"fill_left" => TokenKind::Word(Word::FillLeft),
        b"fill_right" => TokenKind::Word(Word::FillRight),
        b"bool" => TokenKind::Word(Word::Bool),
        b"start" => TokenKind::Word(Word::Start),
        b"end" => TokenKind::Word(Word::End),
        b"inf" | b"nan" => TokenKind::Number,
        lower => TokenKind::Word(duration_word(lower)?),
    })
}

/// The words that are allowed in durations, in lower case.
pub(super) fn duration_word(lower: &[u8]) -> Option<Word> {
    Some(match lower {
        b"step" => Word::Step,
        b"range" => Word::Range,
        b"max_of" => Word::MaxOf,
        b"min_of" => Word::MinOf,
        _ => return None,
    })
}
