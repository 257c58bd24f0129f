//! The other side of the engine: carries effects out in the small world, answers, judges and writes the
//! transcript.

use std::collections::VecDeque;
use std::time::Duration;

use heeler::engine::Engine;
use heeler::engine::effect::Effect;
use heeler::engine::input::{Delivery, Input};
use heeler::model::ids::AskId;
use heeler::model::incident::{Alert, AlertKind};
use heeler::model::job::{Job, JobKind, Ladder};
use heeler::model::order::ReplyResult;
use heeler::model::process::{Absence, Identification, Pid, Signal};
use heeler::model::puma::Trouble;
use heeler::model::time::Now;

use super::{Claim, Story, clock};

impl Story {
    pub(crate) fn input(&mut self, input: Input) {
        let before = self.engine.memory(&self.def.name);
        let mut effects = Vec::new();
        let now = self.now();
        let shown = format!("{input:?}");
        self.engine.step(now, input, &mut effects);
        let after = self.engine.memory(&self.def.name);
        let persisted = effects.iter().any(|effect| matches!(effect, Effect::Persist { .. }));
        assert!(before == after || persisted, "not persisted after {shown}: {before:?} {after:?}");
        self.carry_out(effects);
    }

    /// Something is done with the engine itself.
    pub(super) fn engine_does(&mut self, what: impl FnOnce(&mut Engine, Now, &mut Vec<Effect>)) {
        let now = self.now();
        let before = self.engine.memory(&self.def.name);
        let mut effects = Vec::new();
        what(&mut self.engine, now, &mut effects);
        let after = self.engine.memory(&self.def.name);
        let persisted = effects.iter().any(|effect| matches!(effect, Effect::Persist { .. }));
        assert!(before == after || after.is_none() || persisted, "not persisted");
        self.carry_out(effects);
    }

    pub(super) fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut queue: VecDeque<Input> = VecDeque::new();
        for effect in effects {
            queue.extend(self.effect(effect));
        }
        // Every answer is a step of its own, in the order of the questions.
        for answer in queue {
            self.input(answer);
        }
    }

    fn note(&mut self, text: String) {
        self.transcript.push(format!("{} {text}", clock(self.clock)));
    }

    fn ask(&mut self, what: &'static str, ask: AskId, answer: Option<Input>) -> Option<Input> {
        if answer.is_none() {
            self.unanswered.insert(what, ask);
        } else {
            self.unanswered.remove(what);
        }
        answer
    }

    /// Carries one effect out; answers with what comes of it at once.
    fn effect(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Identify { service, ask } => {
                let found = self.world.identification();
                if let Some(Identification::One(identity) | Identification::Succeeded(identity)) =
                    found
                {
                    self.held.insert(identity);
                    self.main = Some(identity);
                }
                let answer = found.map(|found| Input::Identified { service, ask, found });
                self.ask("identify", ask, answer)
            }
            Effect::Hold { service, ask, identity } => {
                self.note(format!("hold {identity}"));
                let found = if self.world.lives(identity) {
                    self.held.insert(identity);
                    self.main = Some(identity);
                    Identification::One(identity)
                } else {
                    Identification::None(match self.world.claim {
                        Claim::Names(pid) => Absence::Stale(Pid(pid)),
                        Claim::NoPidfile => Absence::NoPidfile,
                        Claim::Managed(absence) => absence,
                        Claim::NoProcess
                        | Claim::Succeeds(_)
                        | Claim::Refused(_)
                        | Claim::Unknown(_)
                        | Claim::Silent => Absence::NoProcess,
                    })
                };
                Some(Input::Identified { service, ask, found })
            }
            Effect::Unwatch { identity, .. } if self.watched_workers.remove(&identity) => None,
            Effect::Unwatch { identity, .. } if self.forgotten_workers.remove(&identity) => None,
            // One that was not told to go is not watched either.
            Effect::Unwatch { identity, .. }
                if self.world.crew.iter().any(|member| member.identity == identity) =>
            {
                None
            }
            Effect::Unwatch { identity, .. } => {
                assert!(self.held.remove(&identity), "{identity} is not held");
                self.note(format!("let go of {identity}"));
                None
            }
            Effect::Confirm { service, ask, identity } => {
                let how = self.world.confirmation(identity);
                Some(Input::Confirmed { service, ask, how })
            }
            Effect::Survey { service, ask, dead } => {
                self.note(format!("survey what {dead} left"));
                if let Some(why) = self.world.survey_fails {
                    return Some(Input::Surveyed { service, ask, survivors: Err(why.into()) });
                }
                let mut survivors = self.world.left.clone();
                survivors.retain(|left| self.world.lives(left.identity));
                self.held.extend(survivors.iter().map(|left| left.identity));
                Some(Input::Surveyed { service, ask, survivors: Ok(survivors) })
            }
            Effect::Sample { service, ask, identity } => {
                assert!(self.held.contains(&identity), "{identity} is not held");
                let seen = self.world.sample.clone();
                let answer = seen.map(|seen| Input::Sampled { service, ask, seen });
                self.ask("sample", ask, answer)
            }
            Effect::LookAtCrew { service, ask, main, .. } => {
                assert!(self.held.contains(&main), "{main} is not held");
                let (seen, puma) = (Ok(self.world.muster()), self.world.puma.clone());
                let answer = Input::CrewSeen { service, ask, seen, puma };
                self.ask("crew", ask, (!self.world.crew_is_slow).then_some(answer))
            }
            Effect::AskPuma { service, ask, what } => {
                self.note(format!("puma {}", what.word()));
                let heard = match self.world.puma_hears {
                    Some(kind) => Err(Trouble::new(kind, "")),
                    None => Ok(()),
                };
                Some(Input::PumaAsked { service, ask, heard })
            }
            Effect::SignalWorker { service, ask, worker, signal, .. } => {
                self.note(format!("worker {worker} {}", signal.name()));
                let lives = self.world.crew.iter().any(|member| member.identity == worker);
                let result = match self.world.refuses_signals {
                    Some(why) => Delivery::Refused(why.into()),
                    None if lives => Delivery::Sent,
                    None => Delivery::Gone,
                };
                if result == Delivery::Sent {
                    self.watched_workers.insert(worker);
                }
                let evidence = (signal == Signal::Kill).then(|| "state S".into());
                Some(Input::WorkerSignalled { service, ask, result, evidence })
            }
            Effect::Probe { service, ask, check } => {
                self.probes += 1;
                let seen = self.world.probe.clone();
                let answer = seen.map(|seen| Input::Observed { service, ask, check, seen });
                self.ask("probe", ask, answer)
            }
            Effect::Signal { service, ask, identity, signal, .. } => {
                assert!(self.held.contains(&identity), "{identity} is not held");
                self.note(format!("signal {identity} {}", signal.name()));
                let result = match self.world.refuses_signals {
                    Some(why) => Delivery::Refused(why.into()),
                    None if self.world.lives(identity) => Delivery::Sent,
                    None => Delivery::Gone,
                };
                Some(Input::Signalled { service, ask, result })
            }
            Effect::Run(job) => {
                self.runs(*job);
                None
            }
            Effect::RecordLadder { ladder, .. } => {
                self.ladder = ladder;
                let begin = self.begin;
                let text = ladder.map_or_else(
                    || "ladder over".to_owned(),
                    |Ladder { identity, kill_at }| {
                        let at = Duration::from_nanos(kill_at.as_nanos()).saturating_sub(begin);
                        format!("ladder: {identity} until {}", clock(at))
                    },
                );
                self.note(text);
                None
            }
            Effect::RemoveStalePidfile { dead, .. } => {
                self.note(format!("remove the pidfile of {dead}"));
                if matches!(self.world.claim, Claim::Names(pid) if pid == dead.pid.0) {
                    self.world.claim = Claim::NoPidfile;
                }
                None
            }
            Effect::Persist { service } => {
                self.memory = self.engine.memory(&service);
                None
            }
            Effect::Alert(alert) => {
                self.alerted(*alert);
                None
            }
            Effect::Event(event) => {
                assert_eq!(event.at, self.now().wall);
                let (at, kind) = (clock(self.clock), event.kind.name());
                self.events.push(format!("{at} {kind}: {}", event.text));
                None
            }
            Effect::Log { text, .. } => {
                self.log.push(format!("{} {text}", clock(self.clock)));
                None
            }
            Effect::Answer { request, reply } => {
                assert!(self.requests.remove(&request), "answered twice: {request}");
                let result = match reply.result {
                    ReplyResult::Done => "done",
                    ReplyResult::Failed => "failed",
                };
                self.note(format!("answer {request} {result}: {}", reply.text));
                None
            }
        }
    }

    fn runs(&mut self, job: Job) {
        self.note(format!("run {}: {}", job.kind.name(), job.command));
        assert!(
            self.jobs.iter().all(|(other, _)| other.kind == JobKind::Instance),
            "two jobs at once: {job:?}"
        );
        if matches!(job.kind, JobKind::Start | JobKind::Instance) {
            let living = self.main.filter(|main| self.world.lives(*main));
            assert_eq!(living, None, "a second copy is started beside a living one");
        }
        self.jobs.push((job, self.clock));
    }

    fn alerted(&mut self, alert: Alert) {
        let incident = &alert.incident;
        let kind = match alert.kind {
            AlertKind::Fired => "fired",
            AlertKind::FiredAndResolved => "fired and resolved",
            AlertKind::Resolved => "resolved",
            AlertKind::Reminder => "reminder",
        };
        let (number, sequence) = (incident.number, alert.sequence);
        self.note(format!("mail {number}.{sequence} {kind}: {}", incident.title));
        let thread: Vec<_> =
            self.mails.iter().filter(|mail| mail.incident.token() == incident.token()).collect();
        assert_eq!(usize::try_from(sequence).unwrap(), thread.len(), "a gap in the thread");
        let over = [AlertKind::FiredAndResolved, AlertKind::Resolved];
        assert!(!thread.iter().any(|mail| over.contains(&mail.kind)), "a mail after the end");
        self.mails.push(alert);
    }
}
