//! **heeler** is a watchdog for Linux servers. A root daemon reads one TOML file per service from
//! `conf.d`, runs checks on schedule, and starts, stops and restarts the service **as its own user,
//! with that user's real environment**. It mails what happened. (A heeler is a working dog: it walks
//! behind the herd and nips the heels of the one that will not move.)
//!
//! This page is the plan: words, rooms, walls, invariants. A better idea changes it here, with the
//! reason in the commit.
//!
//! # Promises
//!
//! In order; when two conflict the first wins.
//!
//! 1. **Never harm what is healthy.** Only a process proved to be the one meant is ever signalled; in
//!    doubt heeler refuses and alerts. Its own start, stop, crash, reload or upgrade touches no service.
//! 2. **Nothing recorded is lost.** A wish, an alert, a counter survives `kill -9`; what was not
//!    recorded yet is seen again by the next probe.
//! 3. **Noticed at once.** A death is seen by event (pidfd). Polling contradicts the event stream, so a
//!    lost event costs one interval, not for ever.
//! 4. **Nothing waits for anything else.** What hangs delays no other service.
//! 5. **It never gives up in silence.** Back-off grows, ends with health, and the alert stays open.
//! 6. **Every decision can be explained**: which rule, which values, who asked, what was done, how it ended.
//! 7. **No byte from the network is parsed as root**, and every other foreign byte is bounded, escaped
//!    and never trusted.
//! 8. **heeler's own trouble** is reported as its own and never restarts a service.
//!
//! # Words
//!
//! | Word | Meaning |
//! | --- | --- |
//! | service | a named thing under watch; one file in conf.d. It may have no process of its own: then its checks are all there is ([`model::service`]) |
//! | group | a word that services share, to be named together by it; beside it patterns of names ([`model::selector`]) |
//! | check | a definition inside a service: type, interval, `if / for / then` ([`model::check`]) |
//! | probe | one run of a check: in the scout, in the file pool, by a shim, or a look at the process sample ([`checks::Probe`]) |
//! | trial | a probe for a person: by the way of the real one, and nothing comes of it |
//! | observation | what one probe saw. `Failed`: the target misbehaved. `Unknown`: heeler could not tell; it alerts, it never acts ([`model::observation`]) |
//! | metric | one named number with a unit ([`model::metric`]) |
//! | condition | the `if` of a check; gives a verdict: pass, fail, unknown ([`model::condition`]) |
//! | tolerance | the `for` of a check: N of M verdicts, or a duration ([`model::tolerance`]) |
//! | rule state | ok, pending, firing |
//! | event | a transition worth telling: ordered, exited, started, acted, failed, gave up, fired, resolved, changed ([`model::event`]) |
//! | incident | the span from fired to resolved; its mails share one thread ([`model::incident`]) |
//! | action | start, stop, restart, reload, exec, unmonitor, alert, recycle worker, kill worker ([`model::action`]) |
//! | job | an action made concrete: argv, user, environment, directory, deadline. What runs it cannot widen it ([`model::job`]) |
//! | parent | a service that one `depends_on`; while it is not up nothing of the dependant is started or judged (`engine/dependency.rs`) |
//! | unit | what systemd, the system's or a user's, keeps for it; `unit =` is a claim and a way of commanding ([`model::unit`]) |
//! | desired | up, down, unmonitored; changed only by an operator or a rule that says so, kept with who and when ([`model::intent`]) |
//! | phase | what heeler is doing now: watching, clearing, starting, start period, stopping, killing, backoff ([`model::status`]) |
//! | identity | pid + start time, within one boot ([`model::process`]) |
//! | claim | what says which process is the main one: a pidfile, a `match`, the shim's record, a unit's MainPID |
//! | survivor | a descendant that outlived its main process; an *orphan* when it holds a listening socket |
//! | worker | a descendant of a living main process by whose title `[workers]` knows it; proved before each signal ([`sys::workers`]) |
//! | generation | the workers born of one (re)start or reload of their master ([`model::workers::generation`]) |
//! | release | the directory a worker works in, beside what `current` leads to ([`model::workers::Place`]) |
//! | standing | how a Puma stands, judged by more than one answer of its control server ([`engine::standing`]) |
//! | guard | what must hold before a worker is signalled: proved, alone, within budget, enough others serving (`engine/guard.rs`) |
//! | verified reload | a reload that is watched until the new workers serve and answer, or is taken back (`engine/verified.rs`) |
//! | start limit | automatic starts per window before back-off |
//! | host brake | how much heeler takes away by itself of what runs on the machine: restarts by rule and workers (`engine/brake.rs`) |
//! | slot | `action` or `instance`: a service has at most one job in each ([`wire::shim`]) |
//!
//! # Rooms
//!
//! ```text
//! conf.d -> config -> model ;   clock -> Tick -> engine -> Confirm / Sample / Probe
//!  -> sys | file pool | scout | shim -> checks/TYPE.rs
//!  -> Input::{Confirmed, Sampled, Observed} -> judge -> tolerance -> table -> start_limit -> notify        (all pure)
//!  -> effects: Run(job) | Signal(identity) | Alert | Event | Persist -> shim / sys / store -> Input::Finished -> step ...
//! pidfd readable -> Input::Exited -> step        control socket -> Input::Ordered -> step
//! ```
//!
//! One binary, six roles. **keeper** (`heeler run`): the daemon, one thread that matters, a store
//! thread, a log thread, a small pool. **shim**: one per command; runs it as its user, outlives the
//! keeper. **resolve**: a short-lived child for user and group look-ups (they may hang, and may parse
//! network bytes). **ask**: a short-lived program of a service's user that puts one question to its Puma
//! ([`puma`]). **scout**: unprivileged, in a cage ([`sys::sandbox`]); one instance probes the
//! network, another delivers mail, so that probes never share memory with its passwords; each lives only
//! while it is needed. **client**: everything else. `main.rs` tells them apart before anything is built.
//!
//! # Walls
//!
//! Who may import whom is a table in `tests/tidy.rs`; there are no circles. `model`: std only.
//! `engine`, `sys`, `checks`, `wire`, `mail`: `model`. `config`: + `checks`. `store`: + `wire`, `mail`.
//! `shim`: `model`, `sys`, `wire::shim`. `puma`: `model`, `wire::puma`. `scout`: `model`, `checks`, its frames, `sys::sandbox`. `cli`: `model`, `wire::control`. `tools`: what needs no
//! daemon. `keeper`: everything but the other roles.
//!
//! # Invariants (about what is absent)
//!
//! - **No clock, I/O, randomness, async or hash map in [`engine`]**: it is a function of inputs, so a
//!   failing simulation seed replays. Timers are named deadlines in its state.
//! - **No signal without [`sys::identity::Proved`]**: nothing else can be sent one, and it cannot be
//!   made outside `sys::identity`. It owns a pidfd, so a reused number cannot be hit.
//! - **No second job in a slot**: the lock travels to the shim as an open file description, so there is
//!   no moment in which neither holds it.
//! - **No command runs with more than its plan says**, and none runs if any step before it failed.
//! - **Nothing is inherited by a command**: environment, descriptors, signal dispositions, limits and
//!   umask are built.
//! - **No byte of the network in the keeper**: a scout answers in frames of numbers and two short texts;
//!   one that says anything else is replaced. What somebody who takes a scout over can do is say false
//!   things about that scout's own checks (and so trigger their rules) and log in where they do, or nothing.
//! - **No token in a command line, an environment, a record or a log**: a question to a Puma goes to stdin
//!   of the program that asks, as the service's user; numbers and short texts come back ([`wire::puma`]).
//! - **No probe without exactly one answer**: whatever dies, hangs or lies, the engine hears Unknown.
//! - **No name service look-up in the keeper**, and no blocking /proc file, pidfile on a foreign file
//!   system, disk or log write in its loop.
//! - **No unsafe outside [`sys`]**; every other room forbids it.
//! - **No KILL before `stop_timeout`** (a Puma's orphan: five seconds) has passed since that very process was
//!   told to go; a new keeper keeps the grace of the old one (the ladder's record).
//! - **No second copy beside a living one**: a start happens only out of clearing, after the claim was
//!   looked at again and what the dead process left is gone or dealt with.
//! - **Reconcile, never replay**: desired against observed decides; records only say what may still be
//!   in flight.
//!
//! # What was settled while building
//!
//! - *Descendants of a dead main process* are proved by its session and process group: both are
//!   inherited only by fork, and the kernel keeps a number that names either, so nothing else can carry
//!   it. Where the session is a stranger's (`puma &` in a deploy), by the main process's own listening
//!   socket within it: that is what keeps a new copy from coming up. /proc's `children` file is not everywhere (it needs `CONFIG_PROC_CHILDREN`), and recording
//!   children beforehand would read all of /proc for services that only ask to be alive. One pass per
//!   turn of the loop serves all services that died in it.
//! - *In clearing* a survivor that holds a listening socket is told to go after two seconds and gets its
//!   whole `stop_timeout` (a Puma's has five seconds: it drains nothing, and ends by itself as soon as it can
//!   run); the others are waited for up to `start_timeout`, because a session that outlives its sshd is
//!   healthy (promise 1).
//! - *A descendant of a main process that heeler did not start* is in a session that is not its own. It
//!   is proved by a listening socket it shares with the dead one, within that session, of the same user,
//!   and younger. What lives under another service's main process is never a survivor.
//! - *Looking at a pidfile* cannot hang the loop: its directory is held, on a local file system, and a
//!   link in the file's place is not followed ([`sys::pidfile::Seat`]). That the path leads there still is
//!   asked of what the kernel remembers of paths, which cannot hang either: each minute while the file is the
//!   one that proved a living process, at each look while there is none. The pool walks the path itself where
//!   that is no answer, where a new claim comes more than a minute after the last walk (whose the directories
//!   above are is seen by a walk only), and each ten minutes.
//! - *A pidfile untouched since it proved a process* names no other: a reused number is stale, whatever
//!   the wall clock did. An empty pidfile that nobody is writing names nobody.
//! - *A ladder is recorded once its first signal was sent*: KILL is only for who was told to go, so the
//!   record must not come first.
//! - *A deploy's own stop and start is nobody's mail*; an orderly exit without a successor is told once
//!   it is known how that ended. A start in the first look of a boot is nobody's mail either.
//! - *One mail per ordinary crash*: a death is told when its story has an end (up again, and still up
//!   after `start_period` or ten seconds), or after five seconds without one. A service that had to
//!   back off, or died three times without a window of health between, whoever brought it up, counts as mended
//!   only after a full window of health: that is one incident, and says how often.
//! - *A restart by rule asks the host brake and the start limit before it stops anything*: what may not be
//!   started must not be stopped, and trouble of the machine looks like trouble of every service. What is
//!   down is brought up whatever the brake says. The brakes speak in this order: host, start limit, budget.
//! - *The process that is to go is remembered* (`BootMemory::leaving`), so an operator's stop that an
//!   earlier keeper did not finish is finished; any other process found up while wanted down is
//!   reported and left alone.
//! - *Where a probe is not judged*: no probe begins while the process is being started, stopped or
//!   cleared up after, and an answer about how things were with the process before is dropped. In the start
//!   period it shows and does not count.
//! - *heeler's own lateness is nobody's failure*: a scout whose loop did not run says Unknown instead of
//!   "too late"; a keeper that did not run gives the scout its time again.
//! - *`changed` is an event, not a state*: it is told once, with what was done about it, in one mail.
//! - *What happened once* (a change, a line of a log) no later look finds again. Where nothing may be done about it
//!   (its process comes or goes, is in its start period, or may be another one than the one it was of) it is told
//!   all the same, and nothing is done: the last words of a process are what everybody asks for, and must not
//!   restart the next one. So a look for it is never dropped, and the first one comes as soon as a process is up.
//! - *HTTP is spoken on a connection of heeler's own*: reqwest makes the request and reads the answer, hyper, of
//!   which it is made, speaks between. Its client opens connections by itself: who does not answer would be told
//!   by nobody, an answer that never begins would be bounded by nothing, and to relay between it and a connection
//!   costs as much again as the probe.
//! - *Certificate authorities are read by the scout itself*, not passed in by the keeper: nothing in them
//!   is private, and the keeper opens no file that a check names.
//! - *A process is sampled from files of /proc that stay open* while descriptors are plenty: an open one
//!   is that process's for ever, and opening costs more than reading. Resident size is read on the loop;
//!   PSS, which may block, only where the resident size exceeds the limit, in the pool.
//! - *A mail is sent until a server has taken it*: its alert stays in `outbox/queue` until then, for five
//!   days, with one Message-ID. The store decides what goes out ([`mail::office`]: one at a time, bursts as
//!   one digest, a rate for each person), the keeper hands it over, the mail scout alone speaks SMTP and
//!   sees a password. What a server says of itself is its own trouble (the next one is tried, then all
//!   wait); what it says of a recipient or of the mail concerns that mail: 4yz waits, 5yz is kept as a file.
//! - *A trial leaves nothing*: it goes on from the real probe's past and does not keep its own. A program
//!   never runs twice at once: whoever asks while it runs, person or engine, gets what that run sees.
//! - *The doctor asks as the user it is about*: the shim's own list of steps, with a look in place of the
//!   exec, under the same deadline. So it sees what a command would see, and nothing hangs it.
//! - *An event is for people*: nothing is decided by one, so it is written without a flush, survives
//!   `kill -9` and not a loss of power, and no answer waits for it. One service that never rests drives out
//!   its own past, not the others'. Who follows hears what it may see at that moment, from its own buffer.
//! - *Under a service manager* heeler says when it watches and how many services are how, and the loop itself
//!   answers the watchdog, once it has turned: a helper thread would answer for a loop that hangs. What a
//!   manager, a journal or a syslog has no room for is owed or counted; nobody waits for them.
//! - *A control group that systemd left to heeler* (`Delegate=`) is divided: heeler in `keeper`, what a start
//!   or `run` brought up in `svc-NAME~MARK`. No controller is enabled in it: systemd could then put no new heeler
//!   there while services of the last one live. A process is signalled for being in its service's group only
//!   if it also holds the dead one's own socket: a start may bring up what lives there for good (`epmd`).
//! - *A state folder that takes nothing* ends no watch: heeler starts without it, keeps in memory what it
//!   cannot write, says so once and in `status`, and mails all the same; an operator waits five seconds for a
//!   disk. Only wishes of earlier keepers must have been read first: with a folder that hangs, nothing starts.
//! - *The memory killer* is known by its counters, read at each death: of the control group the process was
//!   proved in, else of the machine.
//! - *A reload is an action like the others*, but it is nobody's death: a process that changes its pid in it, or is
//!   brought down by it, is looked at anew before anything is judged. An order to restart during it waits.
//! - *A unit's restart is its stop, proof of death, and its start*: never `systemctl restart`, which would not wait
//!   for a worker that will not go. `reset-failed` goes before each start, so that systemd's own start limit is not ours.
//! - *Who may start a unit while systemd is about to* (`Restart=`, a queued job, `activating`): systemd. heeler stands by,
//!   says so, and steps in when systemd gave up. Who stops a unit behind heeler's back has five seconds to start it
//!   again: a deploy's own restart is nobody's mail.
//! - *A manager that is gone* is started by root (`user@UID`) and counts with its unit as one start. One that hangs is
//!   asked again under a deadline; nothing is known meanwhile, so nothing is done.
//! - *A dependant's rules do not act while a parent is down*, and its parent's alert says for whom: one cause, one mail.
//!   They come back parents first. Circles are refused when the file is read.
//! - *A worker is judged alone, signalled under the guard*: the one its master waits for first, then the oldest. Who is
//!   `fork_worker`'s parent or holds what others live by is never killed. One that is stuck is an incident, though
//!   no rule speaks of it: whoever is killed is told of. A new keeper has no fresh budget. A grace begins with the TERM that was really
//!   sent; a new keeper begins it again, so it only gets longer.
//! - *Puma's yes is not the proof of a reload*: it says yes and does nothing, or dies of it. The proof is that workers of
//!   the new phase serve, run in the release `current` leads to, and answer the service's own checks.
//! - *A verified reload is taken back to the release before* by the link alone, and by another reload; while it goes on no
//!   rule of the service acts. Where it may not (`rollback` unsaid) it stops there and says what to type.
//! - *A new configuration takes the place of the old one service by service* (`engine/replace.rs`): a check that is the
//!   same keeps its state and counters wherever in the file it stands now, a job in flight goes on and is heard, no
//!   process is touched. A bad file keeps its last good definition, and that is an incident of its service. A
//!   foreground program whose file is gone goes on, unclaimed: it can be seen and stopped, nothing else. A verified
//!   reload ends, and says so, when its Puma is another one now.
//! - *Process facts live in `run_dir`* (tmpfs, write + rename); wishes, incidents and counters in the
//!   journal in `state_dir`. Actions wait for neither.
#![deny(unsafe_code)]

pub mod cli;
pub mod config;
pub mod engine;
pub mod keeper;
pub mod mail;
pub mod model;
pub mod puma;
pub mod scout;
pub mod shim;
pub mod store;
#[expect(unsafe_code, reason = "the one room where it may be")]
pub mod sys;
pub mod tools;
pub mod wire;

#[path = "../checks/mod.rs"]
pub mod checks;
