//! The outbox where mails go out by SMTP: which alerts become which letter, what became of it, and when
//! heeler stops trying. The queue's files say what has still to be sent; everything else is memory, and a
//! new keeper begins by trying at once.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::mail::digest::{Beside, digest};
use crate::mail::office::{Dispatch, Office, People};
use crate::mail::{self, HostFacts};
use crate::model::incident::Alert;
use crate::model::limits;
use crate::model::rate::Rate;
use crate::model::time::{Mono, Wall};
use crate::model::units::show_duration;
use crate::store::outbox::{Entry, Outbox, load, sealed, set_aside};
use crate::store::thread::Delivery;
use crate::store::{StoreError, file};
use crate::wire::post::{End, Fate, Letter, Posted};

/// Letters on their way.
pub struct Letters {
    office: Office,
    rate: Rate,
    /// How long each alert waits, by the name of its file.
    waits: BTreeMap<Box<str>, Waits>,
    /// Whether what an earlier keeper left was taken in.
    adopted: Adopted,
    next_id: u64,
    away: Option<Away>,
    /// Dropped since the last mail that could say so.
    dropped: u64,
    trouble: Option<(Wall, String)>,
    /// What somebody should know, one sentence each.
    notes: Vec<String>,
}

/// How long an alert waits. In the life of a keeper that is not measured on the wall clock, which may be set
/// by years: a machine without a battery wakes up in 1970.
struct Waits {
    /// In the lives of earlier keepers.
    before: Duration,
    since: Mono,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Adopted {
    No,
    Yes,
}

/// The letter that the scout has.
struct Away {
    id: u64,
    people: Vec<(Box<str>, String)>,
    dispatch: Dispatch,
    text: String,
    dropped: u64,
}

/// How mail stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MailStanding {
    /// Alerts that no server has taken yet.
    pub waiting: usize,
    /// Since when it fails, and why.
    pub trouble: Option<(Wall, String)>,
}

impl Letters {
    /// What delivers so, if that is by letters.
    #[must_use]
    pub(super) fn of(delivery: Delivery, now: Wall) -> Option<Self> {
        match delivery {
            Delivery::Folder => None,
            // Higher than what an earlier keeper used: a late answer to it means nothing here.
            Delivery::Smtp(rate) => Some(Self::new(rate, now.0 << 10)),
        }
    }

    /// None yet. `first_id` is higher than all that an earlier keeper used.
    #[must_use]
    pub fn new(rate: Rate, first_id: u64) -> Self {
        Self {
            office: Office::new(rate),
            rate,
            waits: BTreeMap::new(),
            adopted: Adopted::No,
            next_id: first_id,
            away: None,
            dropped: 0,
            trouble: None,
            notes: Vec::new(),
        }
    }

    /// An alert came in, or is still there; it waited so long before this keeper's life.
    pub(super) fn add(&mut self, name: &str, to: People, before: Duration, now: Mono) {
        if !self.waits.contains_key(name) {
            self.waits.insert(name.into(), Waits { before, since: now });
            self.office.add(name.into(), to, now);
        }
    }

    pub(super) fn dropped(&mut self, name: &str) {
        self.dropped += 1;
        self.forget(name);
    }

    fn forget(&mut self, name: &str) {
        self.waits.remove(name);
        self.office.remove(name);
    }
}

impl Outbox {
    /// When something is due with the letters.
    #[must_use]
    pub(super) fn wakeup(&self) -> Mono {
        self.letters.as_ref().map_or(Mono::NEVER, |letters| letters.office.wakeup())
    }

    /// How mail stands; none where mails become files.
    #[must_use]
    pub(super) fn standing(&self) -> Option<MailStanding> {
        let letters = self.letters.as_ref()?;
        Some(MailStanding { waiting: self.untold(), trouble: letters.trouble.clone() })
    }

    /// What somebody should know since the last time.
    pub(super) fn take_notes(&mut self) -> Vec<String> {
        self.letters.as_mut().map(|letters| std::mem::take(&mut letters.notes)).unwrap_or_default()
    }

    /// Mails are delivered otherwise from now on. What a server could not be given may be taken by another.
    pub(super) fn deliver_by(
        &mut self,
        host: HostFacts,
        delivery: Delivery,
        now: Mono,
        wall: Wall,
    ) {
        self.host = host;
        match (&mut self.letters, delivery) {
            (Some(letters), Delivery::Smtp(rate)) => {
                letters.rate = rate;
                letters.office.change_rate(rate);
                letters.office.reopen(now);
            }
            // What waits is taken in by whoever delivers now.
            (_, delivery) => self.letters = Letters::of(delivery, wall),
        }
    }

    /// Mail goes out again, as somebody has seen: nothing waits for its pause.
    pub(super) fn try_now(&mut self, now: Mono) {
        if let Some(letters) = &mut self.letters {
            letters.office.reopen(now);
        }
    }

    /// The next letter, if one is due. Alerts too old become files.
    ///
    /// Beside it an error: what could not be read is set aside, what could not be written stays.
    pub(super) fn next_letter(
        &mut self,
        now: Mono,
        wall: Wall,
    ) -> (Option<Letter>, Result<(), StoreError>) {
        // Each is tried whatever became of the others.
        let (adopted, given_up) = (self.adopt(now, wall), self.give_up_old(now));
        let mut bad = adopted.and(given_up);
        while let Some(dispatch) = self.letters.as_mut().and_then(|all| all.office.next(now)) {
            let mut alerts = Vec::new();
            for name in &dispatch.alerts {
                match self.entry(name) {
                    Entry::Alert(alert) => alerts.push(*alert),
                    Entry::Newer => self.pass_over(name),
                    Entry::Bad(error) => {
                        self.pass_over(name);
                        let aside = set_aside(&self.queue.join(&**name));
                        bad = bad.and(aside).and(Err(error));
                    }
                }
            }
            let Some(letters) = &mut self.letters else { break };
            if alerts.is_empty() {
                letters.office.taken(&[], now);
                continue;
            }
            return (Some(letters.write(dispatch, &alerts, &self.host)), bad);
        }
        (None, bad)
    }

    fn pass_over(&mut self, name: &str) {
        self.take_off(name);
        if let Some(letters) = &mut self.letters {
            letters.forget(name);
        }
    }

    /// Takes in what an earlier keeper left.
    fn adopt(&mut self, now: Mono, wall: Wall) -> Result<(), StoreError> {
        let Some(letters) = &mut self.letters else { return Ok(()) };
        if std::mem::replace(&mut letters.adopted, Adopted::Yes) == Adopted::Yes {
            return Ok(());
        }
        let mut result = Ok(());
        for name in self.queued.clone() {
            let path = self.queue.join(&name);
            match load(&path) {
                Entry::Alert(alert) => {
                    let before = written(&path).map_or(Duration::ZERO, |at| wall.since(at));
                    if let Some(letters) = &mut self.letters {
                        letters.add(&name, alert.to, before, now);
                    }
                }
                Entry::Newer => self.pass_over(&name),
                Entry::Bad(error) => {
                    self.pass_over(&name);
                    let aside = set_aside(&path);
                    result = result.and(aside).and(Err(error));
                }
            }
        }
        result
    }

    /// What no server took for days becomes a file, loudly.
    fn give_up_old(&mut self, now: Mono) -> Result<(), StoreError> {
        let Some(letters) = &mut self.letters else { return Ok(()) };
        let away = letters.office.away().map(|away| away.alerts.clone()).unwrap_or_default();
        let names: Vec<_> = letters
            .waits
            .iter()
            .filter(|(_, waits)| waits.before + now.since(waits.since) > limits::MAIL_AGE_MAX)
            .map(|(name, _)| name.clone())
            .collect();
        for name in names.iter().filter(|name| !away.contains(name)) {
            let eml = format!("{}.eml", name.trim_end_matches(".json"));
            if let Entry::Alert(alert) = self.entry(name) {
                file::put_durably(&self.folder, &eml, &mail::render(&alert, &self.host))?;
            }
            file::remove(&self.queue.join(&**name))?;
            self.pass_over(name);
            let (days, folder) = (show_duration(limits::MAIL_AGE_MAX), self.folder.display());
            let text = format!(
                "no mail server took an alert for {days}, and heeler stops trying: read it in \
                 {folder}/{eml}"
            );
            self.letters.iter_mut().for_each(|letters| letters.notes.push(text.clone()));
        }
        if names.is_empty() { Ok(()) } else { self.trim() }
    }

    /// What became of a letter.
    ///
    /// # Errors
    /// What could not be written or removed: the alert is sent again then, with the same name.
    pub(super) fn posted(
        &mut self,
        posted: &Posted,
        now: Mono,
        wall: Wall,
    ) -> Result<(), StoreError> {
        let Some(letters) = &mut self.letters else { return Ok(()) };
        let Some(away) = letters.away.take_if(|away| away.id == posted.id) else {
            // An answer to what a crash or a restart has made void.
            return Ok(());
        };
        let Outcome { got, refused, left, why } = outcome(&away, &posted.fates);
        if got.is_empty() && refused.is_empty() && all_unreachable(&posted.fates) {
            letters.dropped += away.dropped;
            letters.office.put_back(now);
            letters.fails(wall, why);
            return Ok(());
        }
        let mut result = Ok(());
        if left.is_empty() {
            letters.office.taken(&got, now);
            letters.trouble = letters.trouble.take().filter(|_| got.is_empty());
        } else {
            letters.office.put_off(left.iter().map(|(name, _)| name.clone()).collect(), &got, now);
            letters.fails(wall, why);
        }
        if !refused.is_empty() {
            result = self.keep_refused(&away, &refused);
        }
        for name in &away.dispatch.alerts {
            let path = self.queue.join(&**name);
            if left.is_empty() {
                let removed = file::remove(&path);
                result = result.and(removed);
                self.pass_over(name);
            } else if left.len() < away.people.len() {
                let kept = self.keep_for(name, &left);
                result = result.and(kept);
            }
        }
        result
    }

    /// An alert has still to reach these, and no others: it is so after a crash, too.
    fn keep_for(&mut self, name: &str, left: &[(Box<str>, String)]) -> Result<(), StoreError> {
        let to = left.iter().map(|(named, _)| named.clone()).filter(|to| !to.is_empty()).collect();
        if let Some(alert) = self.not_on_disk(name) {
            alert.to = to;
            return Ok(());
        }
        let path = self.queue.join(name);
        let Entry::Alert(mut alert) = load(&path) else { return Ok(()) };
        let since = written(&path);
        alert.to = to;
        file::put_durably(&self.queue, name, sealed(&alert).as_bytes())?;
        if let Some(since) = since {
            // Its age counts from when it was queued.
            let at = UNIX_EPOCH + Duration::from_millis(since.0);
            let touched = std::fs::File::open(&path).and_then(|file| file.set_modified(at));
            touched.map_err(StoreError::at("keep the age of", &path))?;
        }
        Ok(())
    }

    /// A server refused a letter for ever: it is kept as a file, with what was said of it.
    fn keep_refused(
        &mut self,
        away: &Away,
        refused: &[(String, String)],
    ) -> Result<(), StoreError> {
        let Some(first) = away.dispatch.alerts.first() else { return Ok(()) };
        let kind = if away.dispatch.is_digest() { "-digest" } else { "" };
        let stem = format!("{}{kind}", first.trim_end_matches(".json"));
        let mut note = String::from("A mail server refused this mail for ever:\n");
        for (address, text) in refused {
            note.push_str(&format!("  {address}: {text}\n"));
        }
        file::put(&self.folder, &format!("{stem}.refused"), note.as_bytes())?;
        file::put_durably(&self.folder, &format!("{stem}.eml"), away.text.as_bytes())?;
        let who: Vec<_> = refused.iter().map(|(to, text)| format!("{to} ({text})")).collect();
        let text = format!(
            "mail was refused for ever for {}: read it in {}/{stem}.eml, and mend the address",
            who.join(", "),
            self.folder.display()
        );
        self.letters.iter_mut().for_each(|letters| letters.notes.push(text.clone()));
        self.trim()
    }
}

impl Letters {
    fn write(&mut self, dispatch: Dispatch, alerts: &[Alert], host: &HostFacts) -> Letter {
        let dropped = std::mem::take(&mut self.dropped);
        let bytes = match alerts {
            [alert] if !dispatch.is_digest() && dropped == 0 => mail::render(alert, host),
            _ => {
                let rate = self.rate.to_string();
                digest(alerts, host, &Beside { held_back: dispatch.held_back, rate, dropped })
            }
        };
        let people = mail::envelope(&dispatch.to, host);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        self.next_id += 1;
        let letter = Letter {
            id: self.next_id,
            only: None,
            from: mail::envelope_sender(host),
            to: people.iter().map(|(_, address)| address.clone()).collect(),
            text: text.clone(),
        };
        self.away = Some(Away { id: letter.id, people, dispatch, text, dropped });
        letter
    }

    fn fails(&mut self, wall: Wall, why: String) {
        let since = self.trouble.as_ref().map_or(wall, |(since, _)| *since);
        self.trouble = Some((since, why));
    }
}

/// What became of a letter, sorted.
struct Outcome {
    /// Who has it, as named.
    got: Vec<Box<str>>,
    /// Whose server never takes it, and what it said.
    refused: Vec<(String, String)>,
    /// Who is still to get it.
    left: Vec<(Box<str>, String)>,
    /// Why.
    why: String,
}

fn outcome(away: &Away, fates: &[Fate]) -> Outcome {
    let (mut got, mut refused, mut left) = (Vec::new(), Vec::new(), Vec::new());
    let mut why = String::new();
    for (at, (named, address)) in away.people.iter().enumerate() {
        match fates.get(at) {
            Some(Fate { end: End::Delivered, .. }) => got.push(named.clone()),
            Some(Fate { end: End::Refused, text }) => {
                refused.push((address.clone(), text.to_string()));
            }
            Some(Fate { end: End::Later | End::Unreachable, text }) => {
                if why.is_empty() {
                    why = text.to_string();
                }
                left.push((named.clone(), address.clone()));
            }
            None => left.push((named.clone(), address.clone())),
        }
    }
    Outcome { got, refused, left, why }
}

fn all_unreachable(fates: &[Fate]) -> bool {
    fates.iter().all(|fate| fate.end == End::Unreachable)
}

/// When a file was last written.
fn written(path: &Path) -> Option<Wall> {
    let at: SystemTime = std::fs::symlink_metadata(path).and_then(|facts| facts.modified()).ok()?;
    let since = at.duration_since(UNIX_EPOCH).ok()?;
    Some(Wall(u64::try_from(since.as_millis()).ok()?))
}
