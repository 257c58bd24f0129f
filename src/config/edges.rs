//! Dependencies between services: one on nobody, or that would close a circle, is dropped with an error;
//! the service stays.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use crate::config::error::{Diagnostic, Place, Severity};
use crate::config::{Loaded, Role};
use crate::model::ids::ServiceName;
use crate::model::service::Service;

/// Drops such edges, and says so.
pub(crate) fn drop_unsound(dir: &Path, loaded: &mut Loaded) {
    let good = loaded.services.iter().map(|one| one.definition.service.name.clone());
    let bad = loaded.bad.iter().filter_map(|bad| match &bad.role {
        // Its last good definition may be in force.
        Role::Service(name) => Some(name.clone()),
        Role::Settings | Role::Nameless => None,
    });
    let known: BTreeSet<_> = good.chain(bad).collect();
    let mut sound: BTreeMap<ServiceName, BTreeSet<ServiceName>> = BTreeMap::new();
    let mut found = Vec::new();
    for one in &mut loaded.services {
        let definition = &mut one.definition;
        let child = definition.service.name.clone();
        let parents = std::mem::take(&mut definition.service.depends_on);
        let places = std::mem::take(&mut definition.parents_at);
        let file = one.path.to_string_lossy();
        for (parent, at) in parents.into_iter().zip(places) {
            let complaint = if !known.contains(&parent) {
                let where_ = dir.display();
                Some((
                    format!("there is no service `{parent}`"),
                    format!(
                        "it would be {where_}/{parent}.toml; until it is there, nothing is held back"
                    ),
                ))
            } else if parent == child || needs(&sound, &parent, &child) {
                Some((
                    format!("`{child}` cannot need `{parent}`, which needs `{child}`"),
                    "this dependency is left out; take one of the circle away".to_owned(),
                ))
            } else {
                None
            };
            match complaint {
                Some((message, hint)) => found.push(about(&file, &one.text, &at, message, hint)),
                None => {
                    sound.entry(child.clone()).or_default().insert(parent.clone());
                    definition.service.depends_on.push(parent);
                    definition.parents_at.push(at);
                }
            }
        }
    }
    loaded.warnings.extend(found);
}

/// Puts those that others need before them: whoever is taken in first is known to the rest.
pub(crate) fn parents_first<T>(all: &mut Vec<T>, service: impl Fn(&T) -> &Service) {
    let mut waiting = std::mem::take(all);
    let mut left: BTreeSet<_> = waiting.iter().map(|one| service(one).name.clone()).collect();
    while !waiting.is_empty() {
        let before = waiting.len();
        for one in std::mem::take(&mut waiting) {
            if service(&one).depends_on.iter().any(|parent| left.contains(parent)) {
                waiting.push(one);
            } else {
                left.remove(&service(&one).name);
                all.push(one);
            }
        }
        if waiting.len() == before {
            // A circle, by way of an earlier definition of a bad file: in any order.
            all.append(&mut waiting);
        }
    }
}

/// Whether one needs another, be it through others.
fn needs(
    edges: &BTreeMap<ServiceName, BTreeSet<ServiceName>>,
    one: &ServiceName,
    other: &ServiceName,
) -> bool {
    let mut open = vec![one];
    let mut seen = BTreeSet::new();
    while let Some(name) = open.pop() {
        if name == other {
            return true;
        }
        if seen.insert(name) {
            open.extend(edges.get(name).into_iter().flatten());
        }
    }
    false
}

fn about(file: &str, text: &str, at: &Range<usize>, message: String, hint: String) -> Diagnostic {
    Diagnostic {
        place: Some(Place::of(text, at)),
        ..Diagnostic::of_file(Severity::Error, file, message, Some(hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Settings;
    use crate::config::{Definition, LoadAs, parse_service};
    use crate::model::process::Uid;

    #[test]
    fn parents_come_first_and_a_circle_is_no_end() {
        let who = LoadAs::new(Uid(0), None, |_| None);
        let defined = |name: &str, parents: &str| {
            let text = format!("match = \"^{name}$\"\ndepends_on = [{parents}]\n");
            let name = ServiceName::parse(name).expect("a name");
            parse_service(&name, "x.toml", &text, &Settings::of(&who), &who).expect("is good").0
        };
        let order = |mut all: Vec<Definition>| {
            parents_first(&mut all, |one| &one.service);
            all.iter().map(|one| one.service.name.to_string()).collect::<Vec<_>>().join(" ")
        };
        let chain = vec![defined("a", "\"b\""), defined("b", "\"c\", \"x\""), defined("c", "")];
        assert_eq!(order(chain), "c b a");
        let circle = vec![defined("a", "\"b\""), defined("b", "\"a\""), defined("c", "\"a\"")];
        assert_eq!(order(circle), "a b c");
    }
}
