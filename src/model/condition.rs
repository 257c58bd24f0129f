//! The `if` of a check: a predicate on an observation, and the same text with the values put in.
//!
//! ```text
//! or    := and ("or" and)*          and := unary ("and" unary)*
//! unary := "not" unary | "(" or ")" | "failed" | "changed" | METRIC OP VALUE
//! OP    := > >= < <= = !=
//! ```

mod parser;

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;

use crate::model::limits;
use crate::model::metric::{Metric, Reading, Value};
use crate::model::observation::{Observation, Outcome, Verdict};

/// A parsed condition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    expr: Expr,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Expr {
    Failed,
    Changed,
    Compare(Metric, Op, Value),
    Not(Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
}

/// How two values are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Op {
    More,
    AtLeast,
    Less,
    AtMost,
    Equal,
    Differs,
}

/// What is wrong in a condition, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConditionError {
    /// Bytes of the text.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

impl Condition {
    /// `failed`: the target misbehaved.
    pub const FAILED: Self = Self { expr: Expr::Failed };

    /// Parses a condition that may use the metrics `declared` by its check type.
    ///
    /// # Errors
    /// The first mistake with its place; an unknown metric is met with the nearest known one.
    pub fn parse(text: &str, declared: &[Metric]) -> Result<Self, ConditionError> {
        // A chain of `and` is as deep as it is long, and everything walks it by recursion.
        if text.len() > limits::CONDITION_BYTES_MAX {
            return Err(ConditionError {
                span: 0..text.len(),
                message: format!(
                    "the condition is longer than {} bytes",
                    limits::CONDITION_BYTES_MAX
                ),
                hint: Some("make several checks of it".to_owned()),
            });
        }
        parser::parse(text, declared).map(|expr| Self { expr })
    }

    /// Judges an observation; `before` is the fingerprint of the one before it. A part that cannot be told matters only when the rest does not decide.
    #[must_use]
    pub fn judge(&self, seen: &Observation, before: Option<u64>) -> Verdict {
        match seen.outcome {
            Outcome::Unknown(_) => Verdict::Unknown,
            Outcome::Ok | Outcome::Failed(_) => match self.expr.holds(seen, before) {
                Some(true) => Verdict::Fail,
                Some(false) => Verdict::Pass,
                None => Verdict::Unknown,
            },
        }
    }

    /// The condition with the values seen: `memory (2710 MiB) > 2600 MiB`.
    #[must_use]
    pub fn explain(&self, seen: &Observation) -> String {
        let mut out = String::new();
        self.expr.write(&mut out, Some(seen));
        out
    }

    /// Whether it asks for `changed`: true of one observation, and over with the next.
    #[must_use]
    pub fn is_of_change(&self) -> bool {
        self.expr.any(&|expr| matches!(expr, Expr::Changed))
    }

    /// Whether it holds because of what happened, a change or new lines, and not of how things are: no later
    /// look sees that again.
    #[must_use]
    pub fn is_met_by_event(&self, seen: &Observation, before: Option<u64>) -> bool {
        self.judge(seen, before) == Verdict::Fail
            && self.judge(&seen.without_lines(), seen.fingerprint) != Verdict::Fail
    }

    /// Whether it looks at the outcome: `failed`.
    #[must_use]
    pub fn is_of_failure(&self) -> bool {
        self.expr.any(&|expr| matches!(expr, Expr::Failed))
    }

    /// The metrics it uses.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        let mut found = Vec::new();
        self.expr.visit(&mut |metric, _, _| {
            if !found.contains(metric) {
                found.push(metric.clone());
            }
        });
        found
    }

    /// The smallest value at which an upper bound of `metric` stops being enough to decide: below it a
    /// cheap upper bound proves the condition false. None when only the exact value will do.
    #[must_use]
    pub fn exact_above(&self, metric: &Metric) -> Option<Value> {
        let (mut lowest, mut exact) = (None, false);
        self.expr.visit(&mut |name, op, value| {
            if name == metric {
                match op {
                    Op::More | Op::AtLeast => {
                        lowest = Some(lowest.map_or(value, |low: Value| low.min(value)));
                    }
                    Op::Less | Op::AtMost | Op::Equal | Op::Differs => exact = true,
                }
            }
        });
        if exact { None } else { lowest }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        self.expr.write(&mut out, None);
        f.write_str(&out)
    }
}

impl Expr {
    /// Kleene's three-valued logic: `None` is "cannot be told".
    fn holds(&self, seen: &Observation, before: Option<u64>) -> Option<bool> {
        match self {
            Self::Failed => Some(matches!(seen.outcome, Outcome::Failed(_))),
            // The first one seen is what the next is compared with.
            Self::Changed => {
                let now = seen.fingerprint?;
                Some(before.is_some_and(|before| before != now))
            }
            Self::Compare(metric, op, value) => {
                let reading = seen.reading(metric)?;
                // Perfdata comes in the unit that the plugin chose.
                let comparable = reading.value().unit() == value.unit();
                comparable.then(|| op.holds(reading, *value)).flatten()
            }
            Self::Not(inner) => inner.holds(seen, before).map(|holds| !holds),
            Self::And(left, right) => match (left.holds(seen, before), right.holds(seen, before)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                (None, _) | (_, None) => None,
            },
            Self::Or(left, right) => match (left.holds(seen, before), right.holds(seen, before)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                (None, _) | (_, None) => None,
            },
        }
    }

    fn any(&self, is: &impl Fn(&Self) -> bool) -> bool {
        is(self)
            || match self {
                Self::Failed | Self::Changed | Self::Compare(..) => false,
                Self::Not(inner) => inner.any(is),
                Self::And(left, right) | Self::Or(left, right) => left.any(is) || right.any(is),
            }
    }

    fn visit<'a>(&'a self, see: &mut impl FnMut(&'a Metric, Op, Value)) {
        match self {
            Self::Failed | Self::Changed => {}
            Self::Compare(metric, op, value) => see(metric, *op, *value),
            Self::Not(inner) => inner.visit(see),
            Self::And(left, right) | Self::Or(left, right) => {
                left.visit(see);
                right.visit(see);
            }
        }
    }

    fn write(&self, out: &mut String, seen: Option<&Observation>) {
        match self {
            Self::Failed => match seen.map(|seen| &seen.outcome) {
                Some(Outcome::Failed(why) | Outcome::Unknown(why)) => {
                    out.push_str(&format!("failed ({why})"));
                }
                Some(Outcome::Ok) => {
                    let detail = seen.map(|seen| &seen.detail).filter(|detail| !detail.is_empty());
                    match detail {
                        Some(detail) => out.push_str(&format!("failed (no: {detail})")),
                        None => out.push_str("failed (no)"),
                    }
                }
                None => out.push_str("failed"),
            },
            Self::Changed => {
                out.push_str("changed");
                if let Some(seen) = seen.filter(|seen| !seen.detail.is_empty()) {
                    out.push_str(&format!(" ({})", seen.detail));
                }
            }
            Self::Compare(metric, op, value) => {
                out.push_str(metric.name());
                if let Some(seen) = seen {
                    match seen.reading(metric) {
                        Some(reading) => out.push_str(&format!(" ({reading})")),
                        None => out.push_str(" (no value yet)"),
                    }
                }
                out.push_str(&format!(" {} {value}", op.symbol()));
            }
            Self::Not(inner) => {
                out.push_str("not ");
                inner.write_grouped(out, seen);
            }
            Self::And(left, right) => {
                left.write_grouped(out, seen);
                out.push_str(" and ");
                right.write_grouped(out, seen);
            }
            Self::Or(left, right) => {
                left.write(out, seen);
                out.push_str(" or ");
                right.write(out, seen);
            }
        }
    }

    fn write_grouped(&self, out: &mut String, seen: Option<&Observation>) {
        let group = matches!(self, Self::Or(..));
        if group {
            out.push('(');
        }
        self.write(out, seen);
        if group {
            out.push(')');
        }
    }
}

impl Op {
    const ALL: [(&'static str, Self); 7] = [
        (">=", Self::AtLeast),
        ("<=", Self::AtMost),
        ("!=", Self::Differs),
        ("==", Self::Equal),
        (">", Self::More),
        ("<", Self::Less),
        ("=", Self::Equal),
    ];

    fn symbol(self) -> &'static str {
        match self {
            Self::More => ">",
            Self::AtLeast => ">=",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Equal => "=",
            Self::Differs => "!=",
        }
    }

    fn holds(self, reading: Reading, limit: Value) -> Option<bool> {
        let ordering = reading.value().cmp(&limit);
        let exact = matches!(reading, Reading::Exact(_));
        let below = ordering == Ordering::Less;
        match self {
            // An upper bound proves "not more" and nothing else.
            Self::More if ordering != Ordering::Greater => Some(false),
            Self::AtLeast if below => Some(false),
            Self::Less if below => Some(true),
            Self::AtMost if ordering != Ordering::Greater => Some(true),
            Self::More | Self::AtLeast if exact => Some(true),
            Self::Less | Self::AtMost if exact => Some(false),
            Self::Equal if exact => Some(ordering == Ordering::Equal),
            Self::Differs if exact => Some(ordering != Ordering::Equal),
            Self::More
            | Self::AtLeast
            | Self::Less
            | Self::AtMost
            | Self::Equal
            | Self::Differs => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DECLARED: [Metric; 4] = [Metric::Memory, Metric::Age, Metric::Threads, Metric::State];

    fn seen(outcome: Outcome, metrics: &[(Metric, Reading)]) -> Observation {
        Observation { metrics: metrics.to_vec(), ..Observation::of(outcome) }
    }

    fn check(text: &str, metrics: &[(Metric, Reading)], verdict: Verdict, explained: &str) {
        let condition = Condition::parse(text, &DECLARED).expect("parses");
        let seen = seen(Outcome::Ok, metrics);
        assert_eq!(
            (condition.judge(&seen, None), condition.explain(&seen).as_str()),
            (verdict, explained)
        );
    }

    const fn mib(n: u64) -> Value {
        Value::Bytes(n << 20)
    }

    #[test]
    fn it_judges_and_comes_back_with_values() {
        let big = [(Metric::Memory, Reading::Exact(mib(2710)))];
        check("memory > 2600MiB", &big, Verdict::Fail, "memory (2710 MiB) > 2600 MiB");
        check(
            "memory > 2600MiB and age > 6h",
            &big,
            Verdict::Unknown,
            "memory (2710 MiB) > 2600 MiB and age (no value yet) > 6h",
        );
        check(
            "memory > 3GiB and age > 6h",
            &big,
            Verdict::Pass,
            "memory (2710 MiB) > 3072 MiB and age (no value yet) > 6h",
        );
        check(
            "not (memory > 3 GiB or threads > 5)",
            &big,
            Verdict::Unknown,
            "not (memory (2710 MiB) > 3072 MiB or threads (no value yet) > 5)",
        );
        check(
            "state = D",
            &[(Metric::State, Reading::Exact(Value::Letter('D')))],
            Verdict::Fail,
            "state (D) = D",
        );
    }

    #[test]
    fn an_upper_bound_proves_only_what_it_proves() {
        let bound = [(Metric::Memory, Reading::AtMost(mib(100)))];
        check("memory > 200MiB", &bound, Verdict::Pass, "memory (at most 100 MiB) > 200 MiB");
        check("memory > 50MiB", &bound, Verdict::Unknown, "memory (at most 100 MiB) > 50 MiB");
        check("memory < 50MiB", &bound, Verdict::Unknown, "memory (at most 100 MiB) < 50 MiB");
        let above =
            |text| Condition::parse(text, &DECLARED).expect("parses").exact_above(&Metric::Memory);
        assert_eq!(above("memory > 9MiB or memory > 5MiB"), Some(mib(5)));
        assert_eq!(above("memory > 9MiB or memory < 5MiB"), None);
        assert_eq!(above("age > 1h"), None);
    }

    #[test]
    fn an_unknown_observation_never_fails() {
        let condition = Condition::parse("failed", &DECLARED).expect("parses");
        let judge = |outcome| condition.judge(&seen(outcome, &[]), None);
        assert_eq!(judge(Outcome::Unknown("no permission".into())), Verdict::Unknown);
        assert_eq!(judge(Outcome::Failed("refused".into())), Verdict::Fail);
        let explain = |outcome| condition.explain(&seen(outcome, &[]));
        assert_eq!(explain(Outcome::Failed("refused".into())), "failed (refused)");
        assert_eq!(explain(Outcome::Ok), "failed (no)");
        let good = Observation { detail: "200 OK".into(), ..Observation::ok() };
        assert_eq!(condition.explain(&good), "failed (no: 200 OK)");
    }

    #[test]
    fn changed_compares_with_the_observation_before() {
        let condition = Condition::parse("changed", &DECLARED).expect("parses");
        assert!(condition.is_of_change() && !condition.is_of_failure());
        let seen =
            Observation { fingerprint: Some(7), detail: "mode 0644".into(), ..Observation::ok() };
        assert_eq!(condition.judge(&seen, None), Verdict::Pass, "nothing to compare with");
        assert_eq!(condition.judge(&Observation::ok(), Some(7)), Verdict::Unknown);
        assert_eq!(condition.judge(&seen, Some(7)), Verdict::Pass);
        assert_eq!(condition.judge(&seen, Some(8)), Verdict::Fail);
        assert_eq!(condition.explain(&seen), "changed (mode 0644)");
    }

    #[test]
    fn perfdata_has_the_unit_it_was_written_with() {
        let declared = [Metric::Perfdata("perfdata.".into())];
        let text = "perfdata./var > 90% or perfdata.time >= 2s or perfdata.users > 5";
        let condition = Condition::parse(text, &declared).expect("parses");
        assert_eq!(condition.to_string(), text);
        let with = |name: &str, value| {
            let metric = Metric::Perfdata(format!("perfdata.{name}").into());
            condition.judge(&Observation::ok().with(metric, value), None)
        };
        assert_eq!(with("/var", Value::Percent(95_000)), Verdict::Fail);
        assert_eq!(with("time", Value::Duration(Duration::from_secs(2))), Verdict::Fail);
        assert_eq!(with("users", Value::Decimal(6_000)), Verdict::Fail);
        assert_eq!(with("users", Value::Percent(6_000)), Verdict::Unknown, "another unit");
        assert!(Condition::parse("perfdata. > 5", &declared).is_err());
    }

    #[test]
    fn words_are_compared_as_words_and_yes_need_not_be_said() {
        let declared = [Metric::Release, Metric::Stale, Metric::Age];
        let parse = |text: &str| Condition::parse(text, &declared);
        for (text, shown) in [
            ("stale", "stale = yes"),
            ("stale and age > 2m", "stale = yes and age > 2m"),
            ("not stale", "not stale = yes"),
            ("(stale)", "stale = yes"),
            ("stale = no or release = gone", "stale = no or release = gone"),
            ("release != current", "release != current"),
        ] {
            let condition = parse(text).expect("parses");
            assert_eq!(condition.to_string(), shown);
            assert_eq!(parse(shown).as_ref(), Ok(&condition));
        }
        let judge = |text: &str, word| {
            let seen = Observation::ok().with(Metric::Release, Value::Word(word));
            parse(text).expect("parses").judge(&seen, None)
        };
        assert_eq!(judge("release = gone", "gone"), Verdict::Fail);
        assert_eq!(judge("release = gone", "other"), Verdict::Pass);
        assert_eq!(judge("release != current", "other"), Verdict::Fail);
        assert_eq!(judge("stale", "other"), Verdict::Unknown, "no value yet");
        let error = |text: &str| parse(text).expect_err("is wrong");
        assert!(error("stale > no").message.contains("no more or less"));
        assert_eq!(error("release = new").hint.as_deref(), Some("for example: release = gone"));
        assert!(error("release").message.contains("a comparison"), "only yes goes without saying");
        assert!(error("stale yes").message.contains("not expected"));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let error = |text: &str| Condition::parse(text, &DECLARED).expect_err("is wrong");
        assert_eq!(error("memry > 5MiB").span, 0..5);
        assert_eq!(error("memory > 5").span, 9..10);
        assert_eq!(error("memory 5MiB").span, 7..11);
        assert_eq!(error("memory > 5MiB age > 5h").span, 14..17);
        assert!(error("memory >").message.contains("ends where a value"));
        assert!(error("(memory > 5MiB").message.contains("never closed"));
        assert!(error(&"(".repeat(1000)).message.contains("too deeply"));
        assert!(
            error(&format!("age > 1h{}", " and age > 1h".repeat(1000))).message.contains("longer")
        );
        assert!(error("memory ; 5").message.contains("no meaning"));
    }
}
