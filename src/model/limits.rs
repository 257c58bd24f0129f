//! Every bound of the program, in one place, with what must hold between them.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::model::workers::Budget;

/// A service name.
pub const NAME_BYTES_MAX: usize = 64;
/// A pattern of service names.
pub const NAME_PATTERN_BYTES_MAX: usize = 128;
/// Groups of one service.
pub const GROUPS_MAX: usize = 32;
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
/// What is kept of the output of a check's program: its beginning.
pub const OUTPUT_PROBE_BYTES: usize = 64 << 10;
/// Numbers taken from the output of one run of a plugin.
pub const PERFDATA_MAX: usize = 256;
/// The label of such a number.
pub const PERFDATA_LABEL_BYTES_MAX: usize = 128;
/// What is kept of an action's output: its beginning and its end. The rest is counted and dropped.
pub const OUTPUT_HEAD_BYTES: usize = 4096;
/// See [`OUTPUT_HEAD_BYTES`].
pub const OUTPUT_TAIL_BYTES: usize = 4096;
/// The text of an alert.
pub const ALERT_BYTES_MAX: usize = 16 << 10;
/// Alerts waiting in the outbox; past it the oldest detail is dropped and counted.
pub const OUTBOX_MAILS_MAX: usize = 1000;
/// A line of the log; the rest is cut off.
pub const LOG_LINE_BYTES_MAX: usize = 8 << 10;
/// Lines of an incident's story; past it the middle is dropped and counted.
pub const STORY_LINES_MAX: usize = 64;
/// Names of those that a service in trouble holds back, in its alert.
pub const HELD_BACK_NAMED_MAX: usize = 16;
/// Events kept of one service; past it its oldest goes.
pub const EVENTS_PER_SERVICE_MAX: usize = 128;
/// Events kept of all services together.
pub const EVENTS_MAX: usize = 2048;
/// The text of an event.
pub const EVENT_CHARS_MAX: usize = 300;
/// The file of events is written anew, without the old ones, when it is longer than this and twice as long
/// as it has to be.
pub const EVENTS_COMPACT_BYTES: u64 = 256 << 10;
/// What is read of that file: its newest part. Twice what all events at their longest fill (JSON writes a
/// control character in six bytes).
pub const EVENTS_BYTES_MAX: u64 = 2 * (EVENTS_MAX * (6 * EVENT_CHARS_MAX + 512)) as u64;
/// Events that wait for one client who follows them; one who is further behind is hung up on.
pub const EVENTS_BEHIND_MAX: usize = 4096;
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
/// Threads that read files which may block, while none does.
pub const FILE_POOL_THREADS: usize = 4;
/// How long such a read may take before it is Unknown.
pub const FILE_POOL_DEADLINE: Duration = Duration::from_secs(5);

/// What heeler keeps between two of its own starts of one service, whatever the start limit says.
pub const START_GAP_MIN: Duration = Duration::from_secs(1);
/// After KILL, how long until a process counts as unkillable.
pub const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a pidfile is looked at while a successor or a start is waited for.
pub const SUCCESSOR_POLL: Duration = Duration::from_millis(50);
/// The same where it is a manager that is asked: each look is a process.
pub const UNIT_POLL: Duration = Duration::from_millis(250);
/// How long a manager may take to say how a unit stands.
pub const UNIT_LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often workers are looked at while one of them is under way.
pub const CREW_BUSY_PACE: Duration = Duration::from_secs(1);
/// How soon after a worker went its successor is looked for.
pub const CREW_SUCCESSOR_POLL: Duration = Duration::from_millis(250);
/// After so long a worker that went has no successor any more: there are fewer from then on.
pub const CREW_SHORT_MAX: Duration = Duration::from_secs(60);
/// Younger than this a worker of a master that does not say so counts as not ready yet.
pub const WORKER_BOOTS: Duration = Duration::from_secs(5);
/// How long a verified reload may take, unless it is said.
pub const VERIFY_TIMEOUT: Duration = Duration::from_secs(600);
/// What may be said for it.
pub const VERIFY_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
/// How often its workers are looked at meanwhile.
pub const VERIFY_PACE: Duration = Duration::from_millis(250);
/// How soon a Puma that said yes has to begin.
pub const VERIFY_HEARD: Duration = Duration::from_secs(10);
/// How long all has to stay well before a reload counts as verified.
pub const VERIFY_SETTLE: Duration = Duration::from_secs(10);
/// So many bad answers of its pages in a row, and the new release is taken back.
pub const VERIFY_BAD_ANSWERS: u32 = 2;
/// How long a Puma has to come back to the release before.
pub const VERIFY_RETURN: Duration = Duration::from_secs(120);
/// How long a new release may try itself, unless it is said.
pub const TRIAL_TIMEOUT: Duration = Duration::from_secs(60);
/// Managers asked at once; and of those the manager of one user, which may hang.
pub const UNIT_LOOKS_MAX: usize = 32;
/// See [`UNIT_LOOKS_MAX`].
pub const UNIT_LOOKS_PER_USER_MAX: usize = 4;
/// After a boot a missing user manager is on its way for so long.
pub const MANAGER_PATIENCE: Duration = Duration::from_secs(120);
/// The name of a unit (unit names of systemd: UNIT_NAME_MAX).
pub const UNIT_NAME_BYTES_MAX: usize = 255;
/// Processes of one control group that are looked at.
pub const CGROUP_PROCESSES_MAX: usize = 4096;
/// How much longer than the moment of its death a process of a dead main process's control group must
/// have lived to be what that one left, and not a successor.
pub const CGROUP_SURVIVOR_AGE_MIN: Duration = Duration::from_secs(1);
/// How long it may not be told, while a service is being started, whether it is there: its pidfile is
/// written in steps.
pub const WRITING: Duration = Duration::from_secs(2);
/// How long a pidfile may name a dead process after a start before the start counts as failed: some
/// daemons write the number of a process on the way first.
pub const DEAD_ON_ARRIVAL: Duration = Duration::from_secs(1);
/// How long the dead process's descendants may take to go by themselves before one that holds a
/// listening socket is told to (Puma's workers take up to half a second: `reference/puma.md`).
pub const CLEARING_PATIENCE: Duration = Duration::from_secs(2);
/// What heeler takes away by itself on a machine unless `brake` says otherwise: enough for a bad night of
/// some services, and not for all of them again and again.
pub const HOST_BRAKE: Budget = Budget { actions: 30, window: Duration::from_secs(600) };
/// So many of these a service remembers for a next heeler.
pub const HOST_BRAKE_REMEMBERED_MAX: usize = 32;
/// So many moments the host brake remembers: a larger `brake` counts as this.
pub const HOST_BRAKE_KEPT_MAX: usize = 4096;
/// How old a look at workers may be for one of them to be taken away: who serves, and who is not ready,
/// changes from second to second.
pub const CREW_LOOK_FRESH: Duration = Duration::from_secs(5);
/// How long a worker of a Puma whose master is gone may take once it was told to go. It ends by itself as
/// soon as it can run ("Detected parent died, dying" and `exit!`: puma, `lib/puma/cluster/worker.rb`), so
/// it drains nothing: one that is still there cannot run, and keeps the port.
pub const PUMA_ORPHAN_GRACE: Duration = Duration::from_secs(5);
/// An incident that no action ends is told after this, so that a mail is never late for its story.
pub const TELL_AFTER: Duration = Duration::from_secs(5);
/// Deaths without a window of health between that are each an incident; from the next on they are one.
pub const RETURNS_ORDINARY: u32 = 2;
/// How often an unanswered question (`Identify`, `Sample`) is given up on.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(30);
/// Slots of the schedule: due times are rounded to a tenth of their interval within these bounds, so that checks
/// share wake-ups. A page that is asked alone costs five times what it costs among others.
pub const SCHEDULE_SLOT: Duration = Duration::from_millis(100);
/// What is looked at seldom still comes in a second of its own, not all at once.
pub const SCHEDULE_SLOT_MAX: Duration = Duration::from_secs(1);

const _: () = assert!(SUCCESSOR_POLL.as_millis() >= 10, "a poll must not become a spin");
const _: () = assert!(UNIT_LOOK_TIMEOUT.as_millis() < ASK_TIMEOUT.as_millis());
const _: () = assert!(UNIT_LOOKS_PER_USER_MAX < UNIT_LOOKS_MAX);
const _: () = assert!(PIDFILE_BYTES_MAX < CONFIG_FILE_BYTES_MAX);
const _: () = assert!(OUTPUT_HEAD_BYTES + OUTPUT_TAIL_BYTES < ALERT_BYTES_MAX);
// JSON writes a control character in six bytes, and heeler's own lines come on top.
const _: () = assert!(6 * OUTPUT_PROBE_BYTES + 64 * UNTRUSTED_BYTES_MAX < RECORD_BYTES_MAX);
const _: () = assert!(CONTROL_CLIENTS_PER_UID_MAX < CONTROL_CLIENTS_MAX);
const _: () = assert!(UNTRUSTED_BYTES_MAX < ALERT_BYTES_MAX);

/// Steps of a pidfile's path, those of its symbolic links included.
pub const PATH_STEPS_MAX: usize = 256;
/// Symbolic links in a pidfile's path.
pub const PATH_LINKS_MAX: usize = 32;
/// How much younger than its pidfile a process may be: clock ticks, and a file stamped by a coarse clock.
pub const PIDFILE_AGE_SLACK: Duration = Duration::from_secs(2);
/// A file of /proc about one process that is read whole.
pub const PROC_FILE_BYTES_MAX: usize = 16 << 10;
/// What is read of a process title to match it (long Java command lines name their program last).
pub const TITLE_BYTES_MAX: usize = 64 << 10;
/// What is read of one table of sockets (/proc/PID/net/tcp: 150 bytes a connection).
pub const SOCKET_TABLE_BYTES_MAX: u64 = 64 << 20;
/// Descriptors of one survivor that are looked at for a listening socket.
pub const SURVIVOR_FDS_MAX: usize = 64 << 10;
/// Descriptors of a main process that are looked at for the sockets to remember: who inherited one is
/// known by it after its death. Those it listens on are among its first.
pub const MAIN_FDS_MAX: usize = 1024;
/// Processes of one service that are added up for its tree metrics.
pub const TREE_PROCESSES_MAX: usize = 4096;
/// Steps from a process up to its oldest ancestor.
pub const ANCESTORS_MAX: usize = 64;
/// Exits taken from the watch at once.
pub const WATCH_BATCH: usize = 256;
/// Supplementary groups of a peer (the kernel's NGROUPS_MAX).
pub const PEER_GROUPS_MAX: usize = 65_536;
/// One record of the journal. A memory that does not fit loses detail (output, then story), never its wish.
pub const JOURNAL_LINE_BYTES_MAX: usize = 64 << 10;
/// A journal smaller than this is not compacted.
pub const JOURNAL_COMPACT_BYTES: u64 = 1 << 20;
/// What is read of a journal: its newest part. Twice what every service at its most can fill, so a
/// journal that heeler wrote is always read whole.
pub const JOURNAL_BYTES_MAX: u64 = 2 * (CONFIG_FILES_MAX * JOURNAL_LINE_BYTES_MAX) as u64;
/// One queued alert on disk.
pub const OUTBOX_ENTRY_BYTES_MAX: usize = 256 << 10;
/// Mails rendered in one turn of the store thread, between two commits.
pub const OUTBOX_TURN: usize = 32;
/// Files that were set aside (`.bad-`, `.newer-`, `.poisoned-`); past it the oldest goes.
pub const SET_ASIDE_FILES_MAX: usize = 8;
/// How long an operator waits for a disk before the answer says that it does not.
pub const STORE_PATIENCE: Duration = Duration::from_secs(5);
/// How soon a failed write is tried again.
pub const STORE_RETRY: Duration = Duration::from_secs(2);
/// A start that crashes within this long of restoring memories counts against them.
pub const POISON_WINDOW: Duration = Duration::from_secs(60);
/// So many of them in that window, and the memories are set aside.
pub const POISON_STARTS: usize = 3;
/// The subject of a mail, in characters.
pub const SUBJECT_CHARS_MAX: usize = 160;
/// Recipients of one mail.
pub const RECIPIENTS_MAX: usize = 64;

const _: () = assert!(JOURNAL_COMPACT_BYTES < JOURNAL_BYTES_MAX);
const _: () = assert!(OUTPUT_HEAD_BYTES + OUTPUT_TAIL_BYTES < JOURNAL_LINE_BYTES_MAX / 2);
/// Places among [`CONTROL_CLIENTS_MAX`] kept for root and heeler's own user, so that nobody else can
/// lock the operator out.
pub const CONTROL_CLIENTS_KEPT: usize = 4;
/// The request line and headers of a control request.
pub const CONTROL_HEAD_BYTES_MAX: usize = 16 << 10;
/// Patterns and groups in one control request: each looks at every service the peer may see.
pub const CONTROL_PATTERNS_MAX: usize = 32;
/// Header lines of a control request.
pub const CONTROL_HEADERS_MAX: usize = 64;
/// One control answer; past it the client is asked to name fewer services.
pub const CONTROL_RESPONSE_BYTES_MAX: usize = 8 << 20;
/// Time a client has to take its answer.
pub const CONTROL_RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

const _: () = assert!(CONTROL_CLIENTS_PER_UID_MAX + CONTROL_CLIENTS_KEPT < CONTROL_CLIENTS_MAX);
const _: () = assert!(CONTROL_HEAD_BYTES_MAX < CONTROL_REQUEST_BYTES_MAX);
/// Hazards told of one configuration file.
pub const CONFIG_FINDINGS_MAX: usize = 50;
/// What is told of a configuration at a reload.
pub const CONFIG_REPORT_BYTES_MAX: usize = 1 << 20;
/// How long reading the configuration may take: its file system may hang.
pub const CONFIG_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Lines that an incident tells of a bad file.
pub const CONFIG_TOLD_MAX: usize = 16;
/// The shortest `every`.
pub const EVERY_MIN: Duration = Duration::from_millis(200);
/// The shortest of all other times that may not be zero.
pub const SPAN_MIN: Duration = Duration::from_millis(100);
/// The text of a `match`.
pub const PATTERN_BYTES_MAX: usize = 4096;
/// The longest `timeout` of a check.
pub const PROBE_TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// Entries of a list or a table in a check.
pub const WORDS_MAX: usize = 64;
/// Each of the two texts in a scout's answer.
pub const SCOUT_TEXT_BYTES_MAX: usize = 512;
/// One packet between keeper and scout.
pub const SCOUT_PACKET_BYTES_MAX: usize = 128 << 10;
/// Network probes at once.
pub const PROBES_MAX: usize = 256;
/// Network probes of one service at once: one that hangs counts against its own service first.
pub const PROBES_PER_SERVICE_MAX: usize = 16;
/// All that `heeler doctor` does, and one look of it.
pub const DOCTOR_TIME: Duration = Duration::from_secs(90);
/// See [`DOCTOR_TIME`].
pub const DOCTOR_ERRAND_TIME: Duration = Duration::from_secs(10);
/// Requests to run checks once that are done at a time.
pub const TRIALS_MAX: usize = 4;
/// For so long what a master uses may be deleted until that is told: a deploy may be about to end.
pub const HAZARD_DELETED_PATIENCE: Duration = Duration::from_secs(10);
/// For so long a deploy may be half done until that is told.
pub const HAZARD_DEPLOY_PATIENCE: Duration = Duration::from_secs(600);
/// What will go off some day is reminded of so many times less often than what has.
pub const HAZARD_REMIND_TIMES: u32 = 42;
/// Who may wait for a look at the workers of one service.
pub const ROLL_WAITING_MAX: usize = 8;
/// Checks of one such request that run at once: the real ones have to find room beside them.
pub const TRIAL_LOOKS_MAX: usize = 4;
/// Programs of checks at once.
pub const PROGRAMS_MAX: usize = 32;
/// How long a probe may wait for others to end before it is Unknown.
pub const PROBE_QUEUE_MAX: Duration = Duration::from_secs(2);
/// How much later than its time a probe's answer may come before the scout counts as hung.
pub const SCOUT_GRACE: Duration = Duration::from_secs(3);
/// Later than this, a timeout says more about heeler than about the target.
pub const LATE: Duration = Duration::from_millis(250);
/// The text of an `if`.
pub const CONDITION_BYTES_MAX: usize = 2048;
/// The path of a Unix socket: `sun_path` less its NUL (unix(7)).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

const _: () = assert!(EVERY_MIN.as_millis() >= SCHEDULE_SLOT.as_millis());
const _: () = assert!(PATTERN_BYTES_MAX < REGEX_BYTES_MAX);
/// A service's `env_file`.
pub const ENV_FILE_BYTES_MAX: usize = 256 << 10;
/// What a job that was told to end at its deadline has until KILL.
pub const JOB_GRACE: Duration = Duration::from_secs(5);
/// How long the output of a job whose command ended is waited for.
pub const OUTPUT_PATIENCE: Duration = Duration::from_millis(200);
/// Names asked of one resolver.
pub const RESOLVE_NAMES_MAX: usize = 65_536;
/// What is held of what one dead main process left; past it the others are not waited for.
pub const SURVIVORS_MAX: usize = 256;
/// Threads of the file pool with those that hang: so many services may have one each before others wait.
pub const FILE_POOL_THREADS_MAX: usize = 64;
/// Threads of that pool where most are stuck.
pub const FILE_POOL_STUCK_THREADS: usize = 256;

const _: () = assert!(FILE_POOL_THREADS < FILE_POOL_STUCK_THREADS);
/// How soon it is asked again who is left of a dead process, where that could not be told.
pub const SURVEY_AGAIN: Duration = Duration::from_secs(1);
/// What is read of a file's new lines in one look; the rest is read in the next.
pub const CONTENT_BYTES_PER_LOOK: u64 = 1 << 20;
/// A line of a watched file; what is longer is matched by its beginning.
pub const CONTENT_LINE_BYTES_MAX: usize = 64 << 10;
/// So far behind its end, a watched file is said to grow faster than it is read.
pub const CONTENT_BEHIND_BYTES_MAX: u64 = 64 << 20;
/// What is shown of a line that matched.
pub const CONTENT_SHOWN_BYTES_MAX: usize = 200;
/// Bytes before the place that was read to, by which a file is known again.
pub const CONTENT_KNOWN_BY_BYTES: u64 = 256;
/// Entries of a log's directory among which the file it was renamed to is looked for.
pub const ROTATED_AMONG_MAX: usize = 10_000;
/// A file whose checksum is taken, where `max_read` is not said.
pub const CHECKSUM_BYTES_MAX: u64 = 64 << 20;
/// Entries of a directory that are counted.
pub const ENTRIES_MAX: usize = 100_000;
/// What is read of /etc/passwd and /etc/group.
pub const NAMES_FILE_BYTES_MAX: u64 = 8 << 20;
/// What is read of a file of the kernel about the machine: /proc/stat, mountinfo (a line for each mount).
pub const KERNEL_FILE_BYTES_MAX: u64 = 8 << 20;

const _: () =
    assert!((CONTENT_LINE_BYTES_MAX as u64) < CONTENT_BYTES_PER_LOOK, "a look must get on");
/// How long a mail server may take to accept a connection.
pub const MAIL_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a mail server may take for each of its answers.
pub const MAIL_COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one server may take for one mail, from the name look-up to its last answer.
pub const MAIL_TIMEOUT: Duration = Duration::from_secs(120);
/// One answer of a mail server. lettre reads an answer of many lines anew with each line, so this bounds
/// its time, too (RFC 5321, 4.5.3.1.5: a line has 512 bytes; EHLO's answer has some dozen lines).
pub const MAIL_REPLY_BYTES_MAX: usize = 8 << 10;
/// Mail servers in `[mail]`.
pub const MAIL_SERVERS_MAX: usize = 8;
/// One message of the keeper to the scout that mails: the servers with their certificates, or a mail.
pub const MAIL_MESSAGE_BYTES_MAX: usize = 16 << 20;
/// How long the scout that mails stays with nothing to do: its memory is given back.
pub const MAIL_IDLE: Duration = Duration::from_secs(10);
/// How long a file of `[mail]` (password, certificates) may take to be read.
pub const MAIL_FILES_TIMEOUT: Duration = Duration::from_secs(10);
/// A file with a password.
pub const PASSWORD_BYTES_MAX: usize = 4096;
/// A file with certificates to trust.
pub const CA_BYTES_MAX: usize = 1 << 20;
/// How long an alert waits for others to the same people, so that a burst is one mail.
pub const MAIL_LINGER: Duration = Duration::from_secs(1);
/// After a mail, what comes for the same people is gathered for so long, and twice as long each time
/// more is to be told.
pub const MAIL_GATHER_MIN: Duration = Duration::from_secs(10);
/// See [`MAIL_GATHER_MIN`]: not longer than this.
pub const MAIL_GATHER_MAX: Duration = Duration::from_secs(60);
/// After a failure mail is tried again after this, then twice as late each time.
pub const MAIL_RETRY_MIN: Duration = Duration::from_secs(60);
/// See [`MAIL_RETRY_MIN`]: not later than this.
pub const MAIL_RETRY_MAX: Duration = Duration::from_secs(3600);
/// An alert that could not be delivered for so long becomes a file.
pub const MAIL_AGE_MAX: Duration = Duration::from_secs(5 * 24 * 3600);
/// More alerts than this that wait for the same people become one mail.
pub const DIGEST_ABOVE: usize = 3;
/// Alerts in one digest; the rest makes another.
pub const DIGEST_ALERTS_MAX: usize = 250;
/// The stories in a digest; past it the oldest are left out, and counted.
pub const DIGEST_STORIES_BYTES_MAX: usize = 64 << 10;
/// The alerts' own lines in a digest's head, each.
pub const DIGEST_LINE_CHARS_MAX: usize = 200;

const _: () = assert!(RECIPIENTS_MAX * (SCOUT_TEXT_BYTES_MAX + 16) < SCOUT_PACKET_BYTES_MAX);
const _: () =
    assert!(MAIL_SERVERS_MAX * (CA_BYTES_MAX + PASSWORD_BYTES_MAX) < MAIL_MESSAGE_BYTES_MAX);
/// Workers of one service.
pub const WORKERS_MAX: u32 = 512;
/// What is read of a Puma's state file, or of a file with its token.
pub const PUMA_STATE_BYTES_MAX: usize = 16 << 10;
/// One answer of a Puma's control server, head and body.
pub const PUMA_ANSWER_BYTES_MAX: usize = 1 << 20;
/// How long a Puma's control server may take from the connection to the last byte.
pub const PUMA_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the program that asks a Puma may take, from its shim on.
pub const PUMA_ASK_TIMEOUT: Duration = Duration::from_secs(6);
/// Pumas asked at once.
pub const PUMA_ASKS_MAX: usize = 8;
/// One line between heeler and the program that asks a Puma.
pub const PUMA_LINE_BYTES_MAX: usize = 8 << 10;

const _: () = assert!(PUMA_ANSWER_TIMEOUT.as_millis() < PUMA_ASK_TIMEOUT.as_millis());
