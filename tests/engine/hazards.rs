//! What will go off some day: told once, reminded of rarely, never acted on.

use heeler::engine::input::Input;
use heeler::model::hazard::HazardKind;
use heeler::model::order::Order;

use crate::story::*;

fn found(story: &mut Story, kind: Option<HazardKind>) {
    let service = cart().name;
    let found = kind.into_iter().map(|kind| (kind, "it ticks".into())).collect();
    story.input(Input::Hazards { service, found });
}

#[test]
fn one_that_stays_is_told_once_and_reminded_of_rarely() {
    let mut story = Story::of_running(cart());
    found(&mut story, Some(HazardKind::DirectoryDeleted));
    story.at("9s");
    found(&mut story, Some(HazardKind::DirectoryDeleted));
    story.saw("");
    story.at("10s");
    found(&mut story, Some(HazardKind::DirectoryDeleted));
    story.at("11s");
    let told = story.takes();
    assert!(told.len() == 1 && told[0].contains("mail 1.0 fired: it ticks"), "{told:?}");
    assert_eq!(story.status().wrong, ["it ticks (since 1s)"]);
    story.at("24h");
    found(&mut story, Some(HazardKind::DirectoryDeleted));
    story.saw("");
    found(&mut story, None);
    let told = story.takes();
    assert!(told.len() == 1 && told[0].contains("mail 1.1 resolved"), "{told:?}");
    story.ends();
}

#[test]
fn a_deploy_that_takes_its_time_is_nobodys_mail() {
    let mut story = Story::of_running(cart());
    for minute in ["1m", "5m", "10m"] {
        found(&mut story, Some(HazardKind::Mixed));
        story.at(minute);
    }
    found(&mut story, None);
    story.at("11m");
    found(&mut story, Some(HazardKind::Mixed));
    story.at("20m");
    found(&mut story, Some(HazardKind::Mixed));
    story.saw("");
    story.at("21m");
    found(&mut story, Some(HazardKind::Mixed));
    story.at("22m");
    let told = story.takes();
    assert!(told.len() == 1 && told[0].contains("mail 1.0 fired"), "{told:?}");
    story.order(Order::Unmonitor);
    story.at("23m");
    story.reads();
    assert!(story.status().wrong.is_empty());
    found(&mut story, Some(HazardKind::Exposed));
    story.at("24m");
    story.saw("");
    story.ends();
}
