//! `[workers]`: what a worker is, and what may be done with one.

use std::ops::Range;

use regex::RegexBuilder;
use toml::de::DeTable;

use crate::config::LoadAs;
use crate::config::defaults::per_window;
use crate::config::document::{Document, field, get};
use crate::config::life::pattern;
use crate::config::service::user;
use crate::model::limits;
use crate::model::puma::Puma;
use crate::model::workers::{Budget, Fragile, Kill, PUMA_WORKER, Workers};

const KEYS: [&str; 5] = ["match", "user", "stop_timeout", "min", "budget"];
const HINT: &str = "write it as [workers], with match = \"^unicorn worker\\\\[\"";

/// The workers of a service: what `[workers]` says; of a Puma they are known without it.
pub(crate) fn workers(
    doc: &mut Document<'_>,
    table: &DeTable<'_>,
    puma: Option<&Puma>,
    who: &LoadAs,
) -> Option<Workers> {
    let Some(at) = field(table, "workers") else {
        return table.contains_key("puma").then(|| Workers {
            pattern: PUMA_WORKER.into(),
            user: None,
            stop_timeout: None,
            min: 1,
            budget: Budget::default(),
            kill: Kill::Allowed,
        });
    };
    let of = doc.table(at, HINT)?;
    doc.known_keys(of, &KEYS, &[], &[]);
    let said = get(doc, of, "match", |doc, at| pattern(doc, at, "^puma: cluster worker"));
    if !of.contains_key("match") && !table.contains_key("puma") {
        let message = "`[workers]` does not say by which titles they are known";
        doc.missing(
            Some(at.value.span()),
            message,
            "for example: match = '^nginx: worker process'",
        );
    }
    let user = get(doc, of, "user", |doc, at| user(doc, at, who));
    let stop_timeout = get(doc, of, "stop_timeout", |doc, at| doc.duration(at, limits::SPAN_MIN));
    let min = get(doc, of, "min", |doc, at| {
        let min = doc.number(at, 1..=limits::WORKERS_MAX, "2")?;
        let all = puma.and_then(|puma| puma.workers).filter(|all| min >= *all);
        if let Some(all) = all {
            let message =
                format!("with `min` of {min} and {all} workers none can ever be taken away");
            doc.warn(at.value.span(), message, Some("leave room for one: it is gone for a moment"));
        }
        Some(min)
    });
    let budget = get(doc, of, "budget", |doc, at| {
        let (actions, window) = per_window(doc, at, "a budget", "3 per 10m")?;
        Some(Budget { actions, window })
    });
    let puma = table.contains_key("puma").then_some(PUMA_WORKER);
    let pattern = said.or_else(|| puma.filter(|_| !of.contains_key("match")).map(Into::into))?;
    Some(Workers {
        kill: fragile(&pattern).map_or(Kill::Allowed, Kill::Refused),
        pattern,
        user,
        stop_timeout,
        min: min.unwrap_or(1),
        budget: budget.unwrap_or_default(),
    })
}

/// Whether what matches are workers that must not be killed. A pattern that means everything means them
/// too; each title is looked at again before a signal.
fn fragile(pattern: &str) -> Option<Fragile> {
    let regex = RegexBuilder::new(pattern).size_limit(limits::REGEX_BYTES_MAX).build().ok()?;
    let all = [Fragile::Postgres];
    all.into_iter().find(|master| {
        let theirs = master.titles().iter().any(|title| regex.is_match(title));
        theirs && !OTHERS.iter().any(|title| regex.is_match(title))
    })
}

/// Workers of masters that simply fork another one.
const OTHERS: [&str; 6] = [
    "puma: cluster worker 0: 77 [shop]",
    "unicorn worker[0] -c config/unicorn.rb",
    "nginx: worker process",
    "php-fpm: pool www",
    "gunicorn: worker [shop]",
    "sidekiq 7.2.0 shop [0 of 5 busy]",
];

/// What a check without `[workers]` or `[puma]` has to be told.
pub(crate) fn missing(doc: &mut Document<'_>, at: Range<usize>, table: &str) {
    let message = format!("nothing says what this check looks at: there is no [{table}]");
    let hint = match table {
        "puma" => "for example: [puma], with state = \"/srv/shop/shared/pids/puma.state\"",
        _ => HINT,
    };
    doc.missing(Some(at), message, hint);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pattern_of_postgres_is_one_of_postgres() {
        for pattern in
            ["^postgres: ", "autovacuum", "^postgres: .* idle$", "postgres: [^:]+/main: "]
        {
            assert_eq!(fragile(pattern), Some(Fragile::Postgres), "{pattern}");
        }
        for pattern in [PUMA_WORKER, "worker", ".", "^nginx: worker", "^unicorn worker\\[", "("] {
            assert_eq!(fragile(pattern), None, "{pattern}");
        }
    }
}
