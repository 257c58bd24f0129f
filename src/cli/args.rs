//! The command line, parsed.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, CommandFactory, Parser, Subcommand};

use crate::cli::completions::{self, Shell};
use crate::cli::{Rc, Wanted, complain, manual};
use crate::model::limits;
use crate::model::order::{Order, WorkerPick};
use crate::model::process::Pid;
use crate::model::selector::Selector;
use crate::model::units::{parse_duration, show_duration};
use crate::wire::control::Follow;

/// What the command line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Invocation {
    /// To be asked of the keeper.
    Client {
        /// `--socket`.
        socket: Option<PathBuf>,
        /// `--json`.
        json: bool,
        /// What.
        command: ClientCommand,
    },
    /// To be done without a keeper.
    Local(Local),
    /// To be printed, and that is all.
    Print(String),
}

/// What is done without a keeper.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Local {
    /// Be the keeper.
    Run {
        /// The configuration directory.
        dir: Option<PathBuf>,
        /// Accept a tree of the invoking sudo user's.
        demo: bool,
    },
    /// Check a configuration directory.
    Validate {
        /// Which.
        dir: Option<PathBuf>,
        /// Findings as JSON.
        json: bool,
    },
    /// Examine the machine for a configuration.
    Doctor {
        /// Which.
        dir: Option<PathBuf>,
        /// Where the daemon is asked, and how it is told.
        wanted: Wanted,
    },
    /// Say what a configuration directory would change, beside what was last in force.
    Plan {
        /// Which.
        dir: Option<PathBuf>,
        /// As JSON.
        json: bool,
    },
    /// Run a command exactly as an action would.
    RunAs {
        /// As whom.
        user: String,
        /// What; at least the program.
        argv: Vec<OsString>,
    },
    /// Show the environment of a service's or user's commands.
    Env {
        /// A service or a user.
        who: String,
        /// The configuration directory to find the service in.
        dir: Option<PathBuf>,
    },
}

/// Which services a command is about. Words are as typed: names, and patterns of names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "each is what it is on the command line")]
pub struct Chosen {
    pub words: Vec<String>,
    pub groups: Vec<String>,
    pub all: bool,
}

/// What is asked of the keeper. Names are as typed: one that cannot be a service is no such service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientCommand {
    /// How services stand; all when none is chosen.
    Status(Chosen),
    /// Why one stands as it does.
    Why(String),
    /// What happened; to all when none is chosen.
    Events {
        /// To which.
        chosen: Chosen,
        /// How many.
        last: Option<u32>,
        /// What comes, too?
        follow: Follow,
    },
    /// Run checks once, and do nothing about it.
    Probe {
        /// Of which service.
        name: String,
        /// Which of its checks; all where it is not said.
        check: Option<String>,
    },
    /// How its workers are.
    Workers(String),
    /// Take a worker away.
    Kill {
        /// Of which service.
        name: String,
        /// Which.
        pick: WorkerPick,
    },
    /// Have a Puma take up its new release, and see that to its end.
    ReloadVerified {
        /// Of which service.
        name: String,
        /// How long it may take.
        within: Option<Duration>,
    },
    /// Do something with some.
    Order {
        /// What.
        order: Order,
        /// With which.
        chosen: Chosen,
        /// Whether to wait until it is known how it ended.
        wait: bool,
    },
    /// Send a test mail by each server; to all who get alerts when nobody is named.
    MailTest(Vec<String>),
    /// Read the configuration anew.
    ReloadConfig,
    /// Say what reading a directory would change; the keeper's own when none is named.
    Plan(Option<PathBuf>),
}

/// A watchdog for Linux services.
#[derive(Parser)]
#[command(
    name = "heeler",
    version,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 not running, 4 no such service, \
                  5 not allowed, 6 no daemon"
)]
struct Args {
    /// The control socket [default: $HEELER_SOCKET, else where the daemon puts it]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Word,
}

#[derive(Subcommand)]
enum Word {
    /// Watch the services of a configuration directory
    Run {
        /// Where the configuration is
        dir: Option<PathBuf>,
        /// Try it out: accept files of the user who called sudo
        #[arg(long)]
        demo: bool,
    },
    /// Check a configuration directory
    Validate {
        /// Where the configuration is
        dir: Option<PathBuf>,
    },
    /// See whether this machine lets heeler do what its configuration says
    Doctor {
        /// Where the configuration is
        dir: Option<PathBuf>,
    },
    /// Show how services stand
    Status(Which),
    /// Show why a service stands as it does
    Why {
        /// Which
        name: String,
    },
    /// Show what happened: who asked for what, what ended, what was done
    Events {
        #[command(flatten)]
        which: Which,
        /// No more than so many, the newest [default: all that are kept, 10 with --follow]
        #[arg(long, value_name = "N")]
        last: Option<u32>,
        /// Go on showing what happens
        #[arg(long, short)]
        follow: bool,
    },
    /// Run the checks of a service once, show what they see, and do nothing about it
    Probe {
        /// Which service
        name: String,
        /// Which of its checks: a label, a number, or a part of a label; all where it is not said
        check: Option<String>,
    },
    /// Show the workers of a service, by a fresh look at each
    Workers {
        /// Which service
        name: String,
    },
    /// Take a worker away, unless too few would serve without it
    #[command(group = ArgGroup::new("which").args(["worker", "stuck"]).required(true))]
    Kill {
        /// Of which service
        name: String,
        /// This one: it is told to go, and killed when its time is over
        #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(2..))]
        worker: Option<i32>,
        /// The one its master has told to go, and waits for in vain
        #[arg(long)]
        stuck: bool,
    },
    /// Start services, and keep them up
    Start(Whom),
    /// Stop services, and keep them down
    Stop(Whom),
    /// Stop and start services
    Restart(Whom),
    /// Have services take up their configuration or new code without a stop
    Reload {
        #[command(flatten)]
        which: Which,
        /// Return at once; `heeler status` tells how it went
        #[arg(long)]
        no_wait: bool,
        /// Of one Puma: see that all its workers run the new release and answer well, or take it back
        #[arg(long, conflicts_with_all = ["no_wait", "group", "all"])]
        verified: bool,
        /// Take it back when it has not come to its end after this long [default: 10m]
        #[arg(long, value_name = "TIME", requires = "verified", value_parser = verify_timeout)]
        timeout: Option<Duration>,
    },
    /// Read the configuration anew; no process is touched
    ReloadConfig,
    /// Show what `reload-config` would change, and change nothing
    Plan {
        /// The directory to compare with what is in force [default: the daemon's own]
        dir: Option<PathBuf>,
    },
    /// Watch services again
    Monitor(Whom),
    /// Leave services alone
    Unmonitor(Whom),
    /// See whether mail arrives
    Mail {
        #[command(subcommand)]
        word: MailWord,
    },
    /// Run a command exactly as an action would
    RunAs {
        /// As whom
        user: String,
        /// The command, after --
        #[arg(last = true, required = true, value_name = "CMD")]
        argv: Vec<OsString>,
    },
    /// Show the environment that commands of a service or user get
    Env {
        /// A service or a user
        #[arg(value_name = "NAME|USER")]
        who: String,
        /// The configuration directory to find the service in
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Print what a shell needs to complete commands and names of services
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the manual page
    Man,
}

#[derive(Subcommand)]
enum MailWord {
    /// Send a test mail by each mail server, and say what each did with it
    Test {
        /// To whom; all who get alerts when nobody is named
        address: Vec<String>,
    },
}

/// None, for what is about all then.
#[derive(clap::Args, PartialEq, Eq, Default)]
struct Which {
    /// Which: names, or patterns in quotes ('web-*')
    #[arg(value_name = "NAME|PATTERN")]
    name: Vec<String>,
    /// All of a group; may be said again
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// All there are
    #[arg(long, conflicts_with_all = ["name", "group"])]
    all: bool,
}

impl Which {
    fn chosen(self) -> Chosen {
        Chosen { words: self.name, groups: self.group, all: self.all }
    }
}

/// At least one.
#[derive(clap::Args)]
#[command(group = ArgGroup::new("chosen").args(["name", "group", "all"]).required(true).multiple(true))]
struct Whom {
    #[command(flatten)]
    which: Which,
    /// Return at once; `heeler status` tells how it went
    #[arg(long)]
    no_wait: bool,
}

fn stands_for_many(word: &str) -> bool {
    matches!(Selector::parse(word), Ok(Selector::Pattern(_) | Selector::Group(_) | Selector::All))
}

fn verify_timeout(text: &str) -> Result<Duration, String> {
    let span = parse_duration(text).map_err(|error| error.to_string())?;
    if limits::VERIFY_TIMEOUTS.contains(&span) {
        return Ok(span);
    }
    let ends = [limits::VERIFY_TIMEOUTS.start(), limits::VERIFY_TIMEOUTS.end()];
    let [least, most] = ends.map(|end| show_duration(*end));
    Err(format!("it is from {least} to {most}"))
}

/// The definition of the command line, with what clap adds to it.
fn whole() -> clap::Command {
    let mut command = Args::command();
    command.build();
    command
}

/// So many events are shown before those to come.
const LAST_BEFORE_FOLLOWING: u32 = 10;

/// Parses the command line; `args` begins with the program's name.
///
/// # Errors
/// What to exit with; help, version or mistake has been printed.
pub fn parse(args: Vec<OsString>) -> Result<Invocation, Rc> {
    let Args { socket, json, command } = Args::try_parse_from(args).map_err(|told| {
        // A closed stdout or stderr has nobody to tell.
        drop(told.print());
        if told.use_stderr() { Rc::Usage } else { Rc::Ok }
    })?;
    let given = socket.clone();
    let client = |command| Ok(Invocation::Client { socket, json, command });
    let order = |order, Whom { which, no_wait }: Whom| ClientCommand::Order {
        order,
        chosen: which.chosen(),
        wait: !no_wait,
    };
    match command {
        Word::Run { dir, demo } => Ok(Invocation::Local(Local::Run { dir, demo })),
        Word::Validate { dir } => Ok(Invocation::Local(Local::Validate { dir, json })),
        Word::Completions { shell } => Ok(Invocation::Print(completions::script(&whole(), shell))),
        Word::Man => Ok(Invocation::Print(manual::page(&whole()))),
        Word::Doctor { dir } => {
            let wanted = Wanted { socket: given, json };
            Ok(Invocation::Local(Local::Doctor { dir, wanted }))
        }
        Word::RunAs { user, argv } => Ok(Invocation::Local(Local::RunAs { user, argv })),
        Word::Env { who: _, dir: _ } if json => {
            complain("`heeler env` prints lines only; a service's child sees exactly these");
            Err(Rc::Usage)
        }
        Word::Env { who, dir } => Ok(Invocation::Local(Local::Env { who, dir })),
        Word::Status(which) => client(ClientCommand::Status(which.chosen())),
        Word::Why { name } => client(ClientCommand::Why(name)),
        Word::Probe { name, check } => client(ClientCommand::Probe { name, check }),
        Word::Workers { name } => client(ClientCommand::Workers(name)),
        Word::Kill { name, worker, stuck: _ } => {
            let pick = worker.map_or(WorkerPick::Stuck, |pid| WorkerPick::Pid(Pid(pid)));
            client(ClientCommand::Kill { name, pick })
        }
        Word::Events { which, last, follow } => {
            let last = last.or_else(|| follow.then_some(LAST_BEFORE_FOLLOWING));
            let follow = if follow { Follow::Yes } else { Follow::No };
            client(ClientCommand::Events { chosen: which.chosen(), last, follow })
        }
        Word::Mail { word: MailWord::Test { address } } => client(ClientCommand::MailTest(address)),
        Word::ReloadConfig => client(ClientCommand::ReloadConfig),
        Word::Plan { dir } => client(ClientCommand::Plan(dir)),
        Word::Start(whom) => client(order(Order::Start, whom)),
        Word::Stop(whom) => client(order(Order::Stop, whom)),
        Word::Restart(whom) => client(order(Order::Restart, whom)),
        Word::Monitor(whom) => client(order(Order::Monitor, whom)),
        Word::Unmonitor(whom) => client(order(Order::Unmonitor, whom)),
        Word::Reload { which, verified: true, timeout, .. } => match which.name.as_slice() {
            [name] if !stands_for_many(name) => {
                client(ClientCommand::ReloadVerified { name: name.clone(), within: timeout })
            }
            _ => {
                complain("`--verified` is about one service: `heeler reload NAME --verified`");
                Err(Rc::Usage)
            }
        },
        Word::Reload { which, no_wait, .. } if which != Which::default() => {
            client(order(Order::Reload, Whom { which, no_wait }))
        }
        Word::Reload { .. } => {
            complain(
                "which service is to be reloaded? `heeler reload NAME`; to have heeler read its \
                 configuration anew: `heeler reload-config`",
            );
            Err(Rc::Usage)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Invocation, Rc> {
        parse(line.split(' ').map(OsString::from).collect())
    }

    #[test]
    fn the_command_line_says_what_it_means() {
        let client = |socket: Option<&str>, json, command| {
            Ok(Invocation::Client { socket: socket.map(PathBuf::from), json, command })
        };
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let chosen = |words: &[&str]| Chosen { words: names(words), ..Chosen::default() };
        let status = |words: &[&str]| ClientCommand::Status(chosen(words));
        assert_eq!(parsed("heeler status"), client(None, false, status(&[])));
        assert_eq!(
            parsed("heeler status a b --json --socket /s"),
            client(Some("/s"), true, status(&["a", "b"]))
        );
        let of = Chosen { groups: names(&["g", "h"]), ..chosen(&["a*"]) };
        assert_eq!(
            parsed("heeler status a* --group g --group h"),
            client(None, false, ClientCommand::Status(of.clone()))
        );
        let restart = |chosen| ClientCommand::Order { order: Order::Restart, chosen, wait: true };
        assert_eq!(
            parsed("heeler restart --group g a* --group h"),
            client(None, false, restart(of))
        );
        let all = Chosen { all: true, ..Chosen::default() };
        assert_eq!(parsed("heeler restart --all"), client(None, false, restart(all)));
        for order in Order::ALL {
            let line = format!("heeler --socket /s {} a b --no-wait", order.name());
            let command = ClientCommand::Order { order, chosen: chosen(&["a", "b"]), wait: false };
            assert_eq!(parsed(&line), client(Some("/s"), false, command));
        }
        assert_eq!(parsed("heeler why a"), client(None, false, ClientCommand::Why("a".to_owned())));

        let probe = |check: Option<&str>| ClientCommand::Probe {
            name: "a".to_owned(),
            check: check.map(str::to_owned),
        };
        assert_eq!(parsed("heeler probe a"), client(None, false, probe(None)));
        assert_eq!(parsed("heeler probe a 2 --json"), client(None, true, probe(Some("2"))));
        let events = |chosen, last, follow| {
            client(None, false, ClientCommand::Events { chosen, last, follow })
        };
        assert_eq!(parsed("heeler events"), events(chosen(&[]), None, Follow::No));
        assert_eq!(parsed("heeler events a --last 3"), events(chosen(&["a"]), Some(3), Follow::No));
        assert_eq!(parsed("heeler events -f a*"), events(chosen(&["a*"]), Some(10), Follow::Yes));
        let workers = ClientCommand::Workers("a".to_owned());
        assert_eq!(parsed("heeler workers a --json"), client(None, true, workers));
        let kill = |pick| client(None, false, ClientCommand::Kill { name: "a".to_owned(), pick });
        assert_eq!(parsed("heeler kill a --stuck"), kill(WorkerPick::Stuck));
        assert_eq!(parsed("heeler kill a --worker 77"), kill(WorkerPick::Pid(Pid(77))));
        let verified = |within| {
            client(None, false, ClientCommand::ReloadVerified { name: "a".to_owned(), within })
        };
        assert_eq!(parsed("heeler reload a --verified"), verified(None));
        let half = Some(Duration::from_secs(90));
        assert_eq!(parsed("heeler reload --verified --timeout 1m30s a"), verified(half));
        let test = ClientCommand::MailTest(names(&["a@b", "c"]));
        assert_eq!(parsed("heeler mail test a@b c --json"), client(None, true, test));
        assert_eq!(
            parsed("heeler reload-config --json"),
            client(None, true, ClientCommand::ReloadConfig)
        );
        assert_eq!(parsed("heeler plan"), client(None, false, ClientCommand::Plan(None)));
        let plan = ClientCommand::Plan(Some("d".into()));
        assert_eq!(parsed("heeler plan d"), client(None, false, plan));
        let local = |local| Ok(Invocation::Local(local));
        assert_eq!(parsed("heeler run"), local(Local::Run { dir: None, demo: false }));
        let run = Local::Run { dir: Some("conf.d".into()), demo: true };
        assert_eq!(parsed("heeler run conf.d --demo"), local(run));
        let run_as = Local::RunAs { user: "anna".into(), argv: vec!["ls".into(), "--json".into()] };
        assert_eq!(parsed("heeler run-as anna -- ls --json"), local(run_as));
        let env = Local::Env { who: "anna".into(), dir: Some("d".into()) };
        assert_eq!(parsed("heeler env anna --dir d"), local(env));
        let doctor = |dir: Option<&str>, json| Local::Doctor {
            dir: dir.map(PathBuf::from),
            wanted: Wanted { socket: None, json },
        };
        assert_eq!(parsed("heeler doctor"), local(doctor(None, false)));
        assert_eq!(parsed("heeler doctor d --json"), local(doctor(Some("d"), true)));
        let validate = Local::Validate { dir: Some("d".into()), json: false };
        assert_eq!(parsed("heeler validate d"), local(validate));
    }

    #[test]
    fn mistakes_are_usage_and_help_is_not_a_mistake() {
        for line in [
            "heeler",
            "heeler statsu",
            "heeler start",
            "heeler start --no-wait",
            "heeler start a --all",
            "heeler start --all --group g",
            "heeler start --group",
            "heeler why",
            "heeler why a b",
            "heeler probe",
            "heeler completions",
            "heeler completions tcsh",
            "heeler man page",
            "heeler probe a b c",
            "heeler workers",
            "heeler workers a b",
            "heeler kill a",
            "heeler kill --stuck",
            "heeler kill a --worker 77 --stuck",
            "heeler kill a --worker 1",
            "heeler kill a --worker -7",
            "heeler kill a --worker x",
            "heeler mail",
            "heeler status --no-wait",
            "heeler run-as anna ls",
            "heeler run-as anna",
            "heeler reload",
            "heeler reload-config d",
            "heeler plan d e",
            "heeler reload --verified",
            "heeler reload --verified --all",
            "heeler reload --verified --group g",
            "heeler reload a b --verified",
            "heeler reload a* --verified",
            "heeler reload a --verified --no-wait",
            "heeler reload a --timeout 5m",
            "heeler reload a --verified --timeout 5",
            "heeler reload a --verified --timeout 0s",
            "heeler reload a --verified --timeout 25h",
            "heeler restart a --verified",
        ] {
            assert_eq!(parsed(line), Err(Rc::Usage), "{line}");
        }
        assert_eq!(parsed("heeler --help"), Err(Rc::Ok));
        assert_eq!(parsed("heeler --version"), Err(Rc::Ok));
    }
}
