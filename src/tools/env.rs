//! `heeler env USER`: the environment exactly as an action would have it.

use std::process::ExitCode;

use super::run_as;
use crate::model::job::Job;
use crate::shim::Last;

/// Prints it, one `NAME=value` a line, escaped; [`run_as::run_as`]'s exit codes. It is built where
/// an action's is: in a child that has become the user.
#[must_use]
pub fn env(user: &str) -> ExitCode {
    env_of(&run_as::job(user, vec!["true".to_owned()]))
}

/// The same for a job, with its service's own variables.
#[must_use]
pub fn env_of(job: &Job) -> ExitCode {
    run_as::run(job, Last::ShowEnvironment)
}
