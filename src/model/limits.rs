//! Every bound of the program, in one place, with what must hold between them.

use std::time::Duration;

/// A service name.
pub const NAME_BYTES_MAX: usize = 64;
/// A file in conf.d.
pub const CONFIG_FILE_BYTES_MAX: usize = 1 << 20;
/// Files in conf.d.
pub const CONFIG_FILES_MAX: usize = 10_240;
/// Checks in one service.
pub const CHECKS_PER_SERVICE_MAX: usize = 64;
/// A compiled regular expression.
pub const REGEX_BYTES_MAX: usize = 1 << 20;
/// What is read of a pidfile.
pub const PIDFILE_BYTES_MAX: usize = 4096;
/// A run_dir record, a shim's plan.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// What is kept of an action's output: its beginning and its end. The rest is counted and dropped.
pub const OUTPUT_HEAD_BYTES: usize = 4096;
/// See [`OUTPUT_HEAD_BYTES`].
pub const OUTPUT_TAIL_BYTES: usize = 4096;
/// The text of an alert.
pub const ALERT_BYTES_MAX: usize = 16 << 10;
/// Alerts waiting in the outbox; past it the oldest detail is dropped and counted.
pub const OUTBOX_MAILS_MAX: usize = 1000;
/// Lines of an incident's story; past it the middle is dropped and counted.
pub const STORY_LINES_MAX: usize = 64;
/// A text from outside, once it is kept ([`crate::model::text::Untrusted`]).
pub const UNTRUSTED_BYTES_MAX: usize = 1024;

/// Clients of the control socket at once.
pub const CONTROL_CLIENTS_MAX: usize = 32;
/// Clients of one uid at once.
pub const CONTROL_CLIENTS_PER_UID_MAX: usize = 16;
/// One control request, head and body.
pub const CONTROL_REQUEST_BYTES_MAX: usize = 64 << 10;
/// Time a client has to send its request.
pub const CONTROL_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Descriptors kept free for actions.
pub const FDS_RESERVED: u64 = 32;
/// Threads that read /proc files which may block.
pub const FILE_POOL_THREADS: usize = 4;
/// How long such a read may take before it is Unknown.
pub const FILE_POOL_DEADLINE: Duration = Duration::from_secs(5);

/// What heeler keeps between two of its own starts of one service, whatever the start limit says.
pub const START_GAP_MIN: Duration = Duration::from_secs(1);
/// After KILL, how long until a process counts as unkillable.
pub const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a pidfile is looked at while a successor or a start is waited for.
pub const SUCCESSOR_POLL: Duration = Duration::from_millis(50);
/// How long the dead process's descendants may take to go by themselves before one that holds a
/// listening socket is told to (Puma's workers take up to half a second: `reference/puma.md`).
pub const CLEARING_PATIENCE: Duration = Duration::from_secs(2);
/// An incident that no action ends is told after this, so that a mail is never late for its story.
pub const TELL_AFTER: Duration = Duration::from_secs(5);
/// How often an unanswered question (`Identify`, `Sample`) is given up on.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(30);
/// Slots of the schedule: due times are rounded to it, so that checks share wake-ups.
pub const SCHEDULE_SLOT: Duration = Duration::from_millis(100);

const _: () = assert!(SUCCESSOR_POLL.as_millis() >= 10, "a poll must not become a spin");
const _: () = assert!(PIDFILE_BYTES_MAX < CONFIG_FILE_BYTES_MAX);
const _: () = assert!(OUTPUT_HEAD_BYTES + OUTPUT_TAIL_BYTES < ALERT_BYTES_MAX);
const _: () = assert!(CONTROL_CLIENTS_PER_UID_MAX < CONTROL_CLIENTS_MAX);
const _: () = assert!(UNTRUSTED_BYTES_MAX < ALERT_BYTES_MAX);

/// A service's `env_file`.
pub const ENV_FILE_BYTES_MAX: usize = 256 << 10;
/// What a job that was told to end at its deadline has until KILL.
pub const JOB_GRACE: Duration = Duration::from_secs(5);
/// How long the output of a job whose command ended is waited for.
pub const OUTPUT_PATIENCE: Duration = Duration::from_millis(200);
/// Names asked of one resolver.
pub const RESOLVE_NAMES_MAX: usize = 65_536;
