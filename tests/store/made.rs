//! Memories and alerts made up for tests, from a seed.

use std::path::Path;
use std::sync::mpsc::{self, Receiver};

use heeler::mail::HostFacts;
use heeler::model::check::CheckKind;
use heeler::model::ids::{CheckIndex, ServiceName};
use heeler::model::incident::{Alert, AlertKind, Cause, Incident, StoryLine};
use heeler::model::intent::{Desired, Intent, Who};
use heeler::model::job::Output;
use heeler::model::memory::{Acquaintance, BootMemory, Memory};
use heeler::model::process::{Pid, ProcessIdentity, Uid};
use heeler::model::text::Untrusted;
use heeler::model::time::{Mono, Wall};
use heeler::store::thread::Delivery;
use heeler::store::{Ack, Loaded, Settings, StoreHandle};
use jiff::tz::TimeZone;

pub(crate) const BOOT: &str = "11111111-2222-3333-4444-555555555555";

pub(crate) fn name(text: &str) -> ServiceName {
    ServiceName::parse(text).expect("a service name")
}

pub(crate) fn host() -> HostFacts {
    let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone");
    HostFacts { hostname: "web1".into(), from: None, user: "root".into(), zone }
}

pub(crate) fn settings(boot: &str) -> Settings {
    Settings { boot_id: boot.into(), host: host(), delivery: Delivery::Folder }
}

/// A store on a directory, with what it says.
pub(crate) fn open(dir: &Path) -> (StoreHandle, Loaded, Receiver<Ack>) {
    let (sender, receiver) = mpsc::channel();
    let (store, loaded) =
        StoreHandle::spawn(dir, settings(BOOT), move |ack| drop(sender.send(ack)))
            .expect("the store starts");
    (store, loaded, receiver)
}

pub(crate) fn memory(desired: Desired, opened: u32) -> Memory {
    Memory {
        intent: Intent { desired, by: Who::Config, at: Wall(7) },
        incidents_opened: opened,
        open: vec![],
        last: None,
        fingerprints: Vec::new(),
        claim: None,
        checks: Vec::new(),
        boot: BootMemory::default(),
    }
}

pub(crate) fn incident() -> Incident {
    Incident {
        service: name("shop"),
        number: 3,
        cause: Cause::Down,
        title: "killed by SIGKILL".to_owned(),
        opened: Wall(1_777_857_302_113),
        closed: None,
        story: vec![],
        dropped_lines: 0,
        output: Output::default(),
        told: 0,
        told_at: Wall(0),
    }
}

pub(crate) fn alert(sequence: u32) -> Alert {
    let to = vec!["ops@example.com".into()];
    Alert { incident: incident(), sequence, kind: AlertKind::Fired, to, next: String::new() }
}

/// SplitMix64: a seed means the same for ever.
pub(crate) struct Seed(pub(crate) u64);

impl Seed {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Small, huge and everything between.
    fn number(&mut self) -> u64 {
        let shift = self.below(64);
        self.next() >> shift
    }

    fn small(&mut self) -> u32 {
        u32::try_from(self.number() & 0xffff_ffff).expect("it is masked")
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(2) == 0).then(|| make(self))
    }

    fn list<T>(&mut self, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(4)).map(|_| make(self)).collect()
    }

    fn text(&mut self) -> String {
        const PARTS: [&str; 9] =
            ["up", " ", "\n", "\r\n", "\0", "\"\\", "\u{1f415}", "\u{202e}", "memory (2710 MiB)"];
        (0..self.below(6)).map(|_| PARTS[self.below(9) as usize]).collect()
    }

    fn identity(&mut self) -> ProcessIdentity {
        let pid = Pid(i32::try_from(self.small() >> 1).expect("31 bits"));
        ProcessIdentity { pid, started_ticks: self.number() }
    }

    fn cause(&mut self) -> Cause {
        let index = CheckIndex(u16::try_from(self.below(65_536)).expect("16 bits"));
        match self.below(7) {
            0 => Cause::Down,
            1 => Cause::UpUnwanted,
            2 => Cause::Unclear,
            3 => Cause::Unkillable,
            4 => Cause::SetAside,
            5 => Cause::Check(CheckKind::Process, index),
            _ => Cause::CheckUnknown(CheckKind::Process, index),
        }
    }

    fn incident(&mut self) -> Incident {
        Incident {
            service: name("shop"),
            number: self.small(),
            cause: self.cause(),
            title: self.text(),
            opened: Wall(self.number()),
            closed: self.maybe(|s| Wall(s.number())),
            story: self.list(|s| StoryLine { at: Wall(s.number()), text: s.text() }),
            dropped_lines: self.small(),
            output: Output {
                head: Untrusted::from(self.text().as_str()),
                tail: Untrusted::from(self.text().as_str()),
                dropped_bytes: self.number(),
            },
            told: self.small(),
            told_at: Wall(self.number()),
        }
    }

    pub(crate) fn memory(&mut self) -> Memory {
        let desired = [Desired::Up, Desired::Down, Desired::Unmonitored][self.below(3) as usize];
        let by = match self.below(3) {
            0 => Who::Config,
            1 => Who::Operator { uid: Uid(self.small()), pid: self.identity().pid },
            _ => Who::Rule(self.text().into()),
        };
        Memory {
            intent: Intent { desired, by, at: Wall(self.number()) },
            incidents_opened: self.small(),
            open: self.list(Self::incident),
            last: self.maybe(Self::incident),
            fingerprints: self.list(|s| (s.number(), s.number())),
            claim: self.maybe(|s| s.number()),
            checks: self.list(|s| s.number()),
            boot: BootMemory {
                acquaintance: Acquaintance::Left,
                main: self.maybe(Self::identity),
                starts: self.list(|s| Mono::from_nanos(s.number())),
                backoffs: self.small(),
                returns: self.small(),
                healthy_since: self.maybe(|s| Mono::from_nanos(s.number())),
                backoff_until: self.maybe(|s| Mono::from_nanos(s.number())),
                leaving: self.maybe(Self::identity),
                braked: self.list(|s| Mono::from_nanos(s.number())),
                workers_taken: self.list(|s| Mono::from_nanos(s.number())),
                verifying: self.maybe(|s| Mono::from_nanos(s.number())),
            },
        }
    }
}
