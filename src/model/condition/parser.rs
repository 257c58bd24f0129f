//! From the text of a condition to its tree, by recursive descent.

use std::ops::Range;

use super::{ConditionError, Expr, Op};
use crate::model::metric::{Metric, NO_YES, Unit, Value};
use crate::model::units;

/// Parses a text that is not too long.
pub(super) fn parse(text: &str, declared: &[Metric]) -> Result<Expr, ConditionError> {
    let mut parser = Parser { text, tokens: tokenize(text)?, next: 0, declared, depth: 0 };
    let expr = parser.or()?;
    match parser.peek() {
        None => Ok(expr),
        Some(token) => Err(ConditionError {
            span: token.span.clone(),
            message: format!("{:?} is not expected here", token.text),
            hint: Some("join conditions with `and` or `or`".to_owned()),
        }),
    }
}

struct Token<'a> {
    text: &'a str,
    span: Range<usize>,
}

fn tokenize(text: &str) -> Result<Vec<Token<'_>>, ConditionError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let len = if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        } else if let Some((symbol, _)) =
            Op::ALL.iter().find(|(symbol, _)| rest.starts_with(symbol))
        {
            symbol.len()
        } else if matches!(c, '(' | ')') {
            1
        } else {
            let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '%' | '-' | '/');
            let len = rest.find(|c| !word(c)).unwrap_or(rest.len());
            if len == 0 {
                return Err(ConditionError {
                    span: at..at + c.len_utf8(),
                    message: format!("{c:?} has no meaning in a condition"),
                    hint: Some(EXAMPLE.to_owned()),
                });
            }
            len
        };
        tokens.push(Token { text: &rest[..len], span: at..at + len });
        at += len;
    }
    Ok(tokens)
}

const EXAMPLE: &str = "a condition reads like `memory > 650MiB and age > 6h`";
const DEPTH_MAX: u32 = 32;

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token<'a>>,
    next: usize,
    declared: &'a [Metric],
    depth: u32,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&Token<'a>> {
        self.tokens.get(self.next)
    }

    fn take(&mut self, expected: &str) -> Result<(&'a str, Range<usize>), ConditionError> {
        let Some(token) = self.tokens.get(self.next) else {
            let end = self.text.len();
            return Err(ConditionError {
                span: end.saturating_sub(1)..end,
                message: format!("the condition ends where {expected} is expected"),
                hint: Some(EXAMPLE.to_owned()),
            });
        };
        self.next += 1;
        Ok((token.text, token.span.clone()))
    }

    fn accept(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.text == word);
        self.next += usize::from(found);
        found
    }

    fn or(&mut self) -> Result<Expr, ConditionError> {
        let mut left = self.and()?;
        while self.accept("or") {
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr, ConditionError> {
        let mut left = self.unary()?;
        while self.accept("and") {
            left = Expr::And(Box::new(left), Box::new(self.unary()?));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, ConditionError> {
        let (word, span) = self.take("a metric")?;
        self.depth += 1;
        let expr = match word {
            _ if self.depth > DEPTH_MAX => Err(ConditionError {
                span,
                message: "the condition is nested too deeply".to_owned(),
                hint: None,
            }),
            "not" => Ok(Expr::Not(Box::new(self.unary()?))),
            "failed" => Ok(Expr::Failed),
            "changed" => Ok(Expr::Changed),
            "(" => {
                let inner = self.or()?;
                if self.accept(")") {
                    Ok(inner)
                } else {
                    Err(ConditionError {
                        span,
                        message: "this ( is never closed".to_owned(),
                        hint: None,
                    })
                }
            }
            _ => self.comparison(word, span),
        };
        self.depth -= 1;
        expr
    }

    fn comparison(&mut self, word: &str, span: Range<usize>) -> Result<Expr, ConditionError> {
        let metric = self.declared.iter().find_map(|metric| {
            if let Metric::Perfdata(prefix) = metric {
                // Declared without a label: any.
                let label = word.strip_prefix(&**prefix).filter(|label| !label.is_empty());
                return label.map(|_| Metric::Perfdata(word.into()));
            }
            (metric.name() == word).then(|| metric.clone())
        });
        let Some(metric) = metric else {
            let names: Vec<_> = self.declared.iter().map(|metric| metric.name()).collect();
            return Err(ConditionError {
                span,
                message: format!("{word:?} is not a metric of this check"),
                hint: Some(format!("known are: failed, {}", names.join(", "))),
            });
        };
        let compares = |token: &Token<'_>| Op::ALL.iter().any(|(text, _)| *text == token.text);
        if metric.unit() == Unit::Word(&NO_YES) && !self.peek().is_some_and(compares) {
            return Ok(Expr::Compare(metric, Op::Equal, Value::yes(true)));
        }
        let (symbol, at) = self.take("a comparison such as >")?;
        let Some((_, op)) = Op::ALL.iter().find(|(text, _)| *text == symbol) else {
            return Err(ConditionError {
                span: at,
                message: format!("{symbol:?} is not a comparison"),
                hint: Some("comparisons are > >= < <= = !=".to_owned()),
            });
        };
        if matches!(metric.unit(), Unit::Word(_)) && !matches!(op, Op::Equal | Op::Differs) {
            return Err(ConditionError {
                span: at,
                message: format!("`{}` is a word: there is no more or less of it", metric.name()),
                hint: Some("compare it by = or !=".to_owned()),
            });
        }
        let (text, mut at) = self.take("a value")?;
        let mut text = text.to_owned();
        // `1.5 GB` is two words and one value.
        if let Some(unit) =
            self.peek().filter(|token| token.text.starts_with(|c: char| c.is_ascii_uppercase()))
            && text.ends_with(|c: char| c.is_ascii_digit())
        {
            text.push_str(unit.text);
            at.end = unit.span.end;
            self.next += 1;
        }
        let value = parse_value(&text, metric.unit()).map_err(|message| ConditionError {
            span: at,
            message: format!("{text:?} is not a value of `{}`: {message}", metric.name()),
            hint: Some(format!(
                "for example: {} {} {}",
                metric.name(),
                op.symbol(),
                metric.unit().example()
            )),
        })?;
        Ok(Expr::Compare(metric, *op, value))
    }
}

fn parse_value(text: &str, unit: Unit) -> Result<Value, String> {
    let spell = |error: units::UnitError| error.0;
    match unit {
        Unit::Bytes => units::parse_size(text).map(Value::Bytes).map_err(spell),
        Unit::Rate => units::parse_size(text).map(Value::Rate).map_err(spell),
        Unit::Percent => units::parse_percent(text).map(Value::Percent).map_err(spell),
        Unit::Duration => units::parse_duration(text).map(Value::Duration).map_err(spell),
        Unit::Count => {
            text.parse().map(Value::Count).map_err(|_| "a whole number is expected".to_owned())
        }
        Unit::Decimal => units::parse_milli(text)
            .map(Value::Decimal)
            .ok_or_else(|| "a number is expected".to_owned()),
        Unit::Any => [Unit::Percent, Unit::Bytes, Unit::Duration, Unit::Decimal]
            .into_iter()
            .find_map(|unit| parse_value(text, unit).ok())
            .ok_or_else(|| "a number is expected, with its unit if it has one".to_owned()),
        Unit::Word(words) => words
            .iter()
            .find(|word| **word == text)
            .map(|word| Value::Word(word))
            .ok_or_else(|| format!("known are: {}", words.join(", "))),
        Unit::Letter => {
            let mut chars = text.chars();
            match (chars.next(), chars.next()) {
                (Some(letter), None) if "RSDTtZXIWP".contains(letter) => Ok(Value::Letter(letter)),
                _ => Err("a state is one letter: R S D T Z I".to_owned()),
            }
        }
    }
}
