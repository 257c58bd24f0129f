//! Passwords that checks log in with: read anew for each probe, in the pool, and forgotten with it. So a
//! file that was changed counts at once, and neither the keeper nor its scout keeps what is in it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::checks::Probe;
use crate::config::trust::read_password;
use crate::keeper::Keeper;
use crate::keeper::probes::Waiting;
use crate::keeper::turn::Done;
use crate::model::change::Kept;
use crate::model::ids::{AskId, CheckIndex, ServiceName};
use crate::model::limits;
use crate::model::observation::Observation;
use crate::model::password::Password;

/// The files that are being read, with the probes that wait for each: a file that hangs has one thread,
/// however many ask for it.
pub(super) type Passwords = BTreeMap<PathBuf, Vec<Waiting>>;

/// What the pool read of a file.
pub(super) struct PasswordRead {
    path: PathBuf,
    read: Result<Password, String>,
}

impl Keeper {
    /// The file of the password that a check logs in with.
    pub(super) fn password_file(
        &self,
        service: &ServiceName,
        check: CheckIndex,
    ) -> Option<(&Path, Duration)> {
        let (at, served) = (usize::from(check.0), self.services.get(service)?);
        let Probe::Network(settings) = served.probes.get(at)? else { return None };
        Some((settings.password_file()?, served.def.checks.get(at)?.timeout))
    }

    /// Has a password read for a probe.
    pub(super) fn read_password_for(
        &mut self,
        service: ServiceName,
        check: CheckIndex,
        ask: AskId,
    ) {
        let Some((path, timeout)) = self.password_file(&service, check) else { return };
        let path = path.to_owned();
        let until = Instant::now() + timeout.min(limits::FILE_POOL_DEADLINE);
        let waiting = Waiting { service, check, ask, until };
        if let Some(waits) = self.passwords.get_mut(&path) {
            waits.push(waiting);
            return;
        }
        self.passwords.insert(path.clone(), vec![waiting]);
        let own = self.load_as.uid;
        self.pool.submit(move || {
            let read = catch_unwind(AssertUnwindSafe(|| read_password(&path, own)));
            let read = read.unwrap_or_else(|_| {
                Err(format!("reading {} crashed: this is a bug of heeler", path.display()))
            });
            Done::PasswordRead(PasswordRead { path, read })
        });
    }

    /// A file was read: the probes that wait for it go on.
    pub(super) fn password_read(&mut self, PasswordRead { path, read }: PasswordRead) {
        for Waiting { service, check, ask, .. } in self.passwords.remove(&path).unwrap_or_default()
        {
            // A password is only for the check that names its file.
            let named = self.password_file(&service, check).map(|(path, _)| path);
            match &read {
                Ok(password) if named == Some(&path) => {
                    self.tell_scout(service, check, ask, Some(password.clone()));
                }
                Ok(_) => {
                    let text = "its definition changed meanwhile";
                    self.observed(service, check, ask, Observation::unknown(text));
                }
                Err(why) => self.observed(service, check, ask, Observation::unknown(why)),
            }
        }
    }

    /// The checks of a service are others now: those that go on keep waiting, at their new places.
    pub(super) fn carry_passwords(&mut self, service: &ServiceName, kept: &[Kept]) {
        let mut void = Vec::new();
        for waits in self.passwords.values_mut() {
            waits.retain_mut(|waiting| {
                let place = kept.iter().position(|kept| *kept == Kept::Same(waiting.check));
                let place = place.and_then(|at| u16::try_from(at).ok()).map(CheckIndex);
                let lost = waiting.service == *service && place.is_none();
                void.extend(lost.then_some(waiting.ask));
                if let Some(place) = place.filter(|_| waiting.service == *service) {
                    waiting.check = place;
                }
                !lost
            });
        }
        void.into_iter().for_each(|ask| self.trial_is_void(ask));
    }

    /// Probes that have waited for too long.
    pub(super) fn passwords_due(&mut self, now: Instant) {
        let mut over = Vec::new();
        for (path, waits) in &mut self.passwords {
            let late = waits.extract_if(.., |waiting| now >= waiting.until);
            over.extend(late.map(|waiting| (path.clone(), waiting)));
        }
        for (path, Waiting { service, check, ask, .. }) in over {
            let text = format!(
                "its password_file {} was not read in time: does its file system hang? try `df`",
                path.display()
            );
            self.observed(service, check, ask, Observation::unknown(&text));
        }
    }

    /// When the first of them has.
    pub(super) fn passwords_wakeup(&self) -> Option<Instant> {
        self.passwords.values().flatten().map(|waiting| waiting.until).min()
    }
}
