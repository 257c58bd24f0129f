//! `heeler env NAME|USER`: the environment exactly as an action would have it.

use std::path::Path;
use std::process::ExitCode;

use super::run_as;
use crate::config::{self, LoadAs};
use crate::model::job::Job;
use crate::model::service::Service;
use crate::shim::Last;

/// Prints it, one `NAME=value` a line, escaped; [`run_as::run_as`]'s exit codes. It is built where
/// an action's is: in a child that has become the user. A service of the configuration in `dir` has its
/// own variables; any other name is a user's.
#[must_use]
pub fn env(who: &str, dir: &Path) -> ExitCode {
    let user = || run_as::job(who, vec!["true".to_owned()]);
    env_of(&service(who, dir).map_or_else(user, |service| of_service(&service)))
}

fn service(name: &str, dir: &Path) -> Option<Service> {
    let loaded = config::load(dir, &LoadAs::of_process(), None).ok()?;
    let mut services = loaded.services.into_iter().map(|loaded| loaded.definition.service);
    services.find(|service| service.name.as_str() == name)
}

fn of_service(service: &Service) -> Job {
    Job {
        service: service.name.clone(),
        user: service.user.clone(),
        group: service.group.clone(),
        env: service.env.clone(),
        env_file: service.env_file.clone(),
        cwd: service.cwd.clone(),
        ..run_as::job("", vec!["true".to_owned()])
    }
}

/// The same for a job, with its service's own variables.
#[must_use]
pub fn env_of(job: &Job) -> ExitCode {
    run_as::run(job, Last::ShowEnvironment)
}
