//! A systemd unit: which one, what its manager says of it, and what that means for the service.

use std::fmt;
use std::path::PathBuf;

use crate::model::process::Pid;

/// A unit that gives a service its life and its commands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unit {
    /// Its whole name: `puma-shop.service`.
    pub name: Box<str>,
    /// Whose unit it is.
    pub manager: Manager,
    /// Which of its processes is the main one.
    pub main: UnitMain,
}

/// A manager of units.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manager {
    /// The one of the service's user (`systemctl --user`).
    User,
    /// The machine's (`systemctl`), asked by heeler as itself.
    System,
}

/// What says which process of a unit is the main one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UnitMain {
    /// Its manager (`MainPID`).
    Manager,
    /// A pidfile; the process must be in the unit's control group.
    Pidfile(PathBuf),
    /// The title, among the processes of the unit's control group.
    Match(Box<str>),
}

/// What a manager is told to do with a unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each is the word of systemctl(1)")]
pub enum Verb {
    Start,
    Stop,
    ReloadOrRestart,
}

impl Verb {
    /// The word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::ReloadOrRestart => "reload-or-restart",
        }
    }
}

/// A call of systemctl, as people type it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Systemctl {
    /// Which manager.
    pub manager: Manager,
    /// What it is told.
    pub verb: Verb,
    /// About which unit.
    pub unit: Box<str>,
}

impl Systemctl {
    /// The command. Before a start the manager is made to forget earlier ones: past its own start limit
    /// it refuses (systemd.unit(5), StartLimitBurst=), and how often is heeler's to decide.
    #[must_use]
    pub fn argv(&self) -> Vec<Box<str>> {
        let user = match self.manager {
            Manager::User => " --user",
            Manager::System => "",
        };
        let verb = self.verb.name();
        match self.verb {
            Verb::Start => {
                let script = format!(
                    "systemctl{user} reset-failed -- \"$0\" 2>/dev/null; \
                     exec systemctl{user} --no-ask-password {verb} -- \"$0\""
                );
                vec!["/bin/sh".into(), "-c".into(), script.into(), self.unit.clone()]
            }
            Verb::Stop | Verb::ReloadOrRestart => {
                let words = ["systemctl", user.trim(), "--no-ask-password", verb, "--", &self.unit];
                words.into_iter().filter(|word| !word.is_empty()).map(Into::into).collect()
            }
        }
    }
}

impl fmt::Display for Systemctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = match self.manager {
            Manager::User => "--user ",
            Manager::System => "",
        };
        write!(f, "systemctl {user}{} {}", self.verb.name(), self.unit)
    }
}

/// The question to a manager: its properties, one `Name=value` a line.
#[must_use]
pub fn show(manager: Manager, unit: &str) -> Vec<Box<str>> {
    let user = match manager {
        Manager::User => "--user",
        Manager::System => "--system",
    };
    let properties = format!("--property={}", PROPERTIES.join(","));
    ["systemctl", user, "show", "--no-pager", &properties, "--", unit].map(Into::into).to_vec()
}

const PROPERTIES: [&str; 8] = [
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "MainPID",
    "ControlGroup",
    "Job",
    "NRestarts",
];

/// What a manager says of a unit (org.freedesktop.systemd1(5)). Nothing of it is trusted that /proc does
/// not confirm: a user's manager is that user's process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnitFacts {
    /// What it means for the service.
    pub standing: Standing,
    /// Its control group, where it has one.
    pub cgroup: Option<Box<str>>,
    /// Restarts its manager made by itself since the last start that somebody asked for.
    pub restarts: u64,
}

/// How a unit stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Up, with this main process.
    Up(Pid),
    /// Its manager is about to bring it up: activating, an automatic restart, a start that is queued.
    Coming,
    /// Its manager is taking it down.
    Going,
    /// Down, and nobody is about to bring it up.
    Down(UnitEnd),
    /// Why nothing can be said or done: the unit is not there, is masked, has no main process.
    Unusable(String),
}

impl UnitFacts {
    /// Reads what `systemctl show` printed for [`show`].
    ///
    /// # Errors
    /// When that is no answer to the question, with what was wrong.
    pub fn parse(unit: &str, text: &str) -> Result<Self, String> {
        let value = |name: &str| {
            let line =
                |line: &'_ str| Some(line.strip_prefix(name)?.strip_prefix('=')?.trim().to_owned());
            text.lines().find_map(line).unwrap_or_default()
        };
        let [load, active, sub, result, main, cgroup, job, restarts] = PROPERTIES.map(value);
        if load.is_empty() || active.is_empty() {
            return Err("systemctl did not say in which state the unit is".to_owned());
        }
        let main = main.parse::<i32>().ok().filter(|pid| *pid > 1).map(Pid);
        let queued = !matches!(job.as_str(), "" | "0");
        let standing = match (load.as_str(), active.as_str()) {
            ("not-found", _) if main.is_none() => Standing::Unusable(format!(
                "there is no unit {unit}: is the name right? after a change of its file: \
                 `systemctl daemon-reload` (with --user for a user's manager)"
            )),
            ("masked", "inactive" | "failed") => Standing::Unusable(format!(
                "unit {unit} is masked: `systemctl unmask {unit}` ends that"
            )),
            ("bad-setting" | "error", "inactive" | "failed") => Standing::Unusable(format!(
                "unit {unit} cannot be loaded: `systemctl status {unit}` says why"
            )),
            (_, "active" | "reloading" | "refreshing") => match main {
                Some(main) => Standing::Up(main),
                None if sub == "running" => Standing::Coming,
                None => Standing::Unusable(format!(
                    "unit {unit} is active ({sub}) without a main process: \
                     say which it is with `pidfile` or `match`"
                )),
            },
            (_, "activating") => Standing::Coming,
            (_, "deactivating") => Standing::Going,
            (_, "maintenance") => Standing::Going,
            (_, "inactive" | "failed") if queued => Standing::Coming,
            (_, "inactive" | "failed") => Standing::Down(UnitEnd::of(&result)),
            (_, other) => return Err(format!("a unit in the state `{}`", other.escape_debug())),
        };
        Ok(Self {
            standing,
            cgroup: Some(cgroup).filter(|cgroup| cgroup.len() > 1).map(Into::into),
            restarts: restarts.parse().unwrap_or(0),
        })
    }
}

/// How a unit that is down came to be so (systemd.service(5), `Result`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[expect(missing_docs, reason = "each is the result of its name")]
pub enum UnitEnd {
    Success,
    ExitCode,
    Signal,
    CoreDump,
    Timeout,
    StartLimit,
    OomKill,
    Watchdog,
    Resources,
    Protocol,
    Condition,
    Other,
}

impl UnitEnd {
    const ALL: [Self; 12] = [
        Self::Success,
        Self::ExitCode,
        Self::Signal,
        Self::CoreDump,
        Self::Timeout,
        Self::StartLimit,
        Self::OomKill,
        Self::Watchdog,
        Self::Resources,
        Self::Protocol,
        Self::Condition,
        Self::Other,
    ];

    fn of(result: &str) -> Self {
        let named = |end: &Self| end.result() == result;
        Self::ALL.into_iter().find(named).unwrap_or(Self::Other)
    }

    fn result(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::ExitCode => "exit-code",
            Self::Signal => "signal",
            Self::CoreDump => "core-dump",
            Self::Timeout => "timeout",
            Self::StartLimit => "start-limit-hit",
            Self::OomKill => "oom-kill",
            Self::Watchdog => "watchdog",
            Self::Resources => "resources",
            Self::Protocol => "protocol",
            Self::Condition => "exec-condition",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for UnitEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Success => "it ended in order, or was stopped",
            Self::ExitCode => "its process failed",
            Self::Signal => "its process was killed by a signal",
            Self::CoreDump => "its process crashed",
            Self::Timeout => "it did not start or stop in time",
            Self::StartLimit => "systemd gave up on it: it was started too often",
            Self::OomKill => "it was killed for want of memory",
            Self::Watchdog => "its watchdog was not served",
            Self::Resources => "systemd lacked something to start it",
            Self::Protocol => "it did not keep to the protocol of its Type=",
            Self::Condition => "a condition of its start does not hold",
            Self::Other => "see `systemctl status`",
        })?;
        write!(f, " (Result={})", self.result())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(text: &str) -> Standing {
        UnitFacts::parse("puma.service", text).expect("is an answer").standing
    }

    #[test]
    fn what_a_manager_says_is_what_it_means() {
        let up = "LoadState=loaded\nActiveState=active\nSubState=running\nMainPID=77\nNRestarts=2\n\
                  ControlGroup=/user.slice/puma.service\nResult=success\n";
        let facts = UnitFacts::parse("puma.service", up).expect("is an answer");
        assert_eq!(facts.standing, Standing::Up(Pid(77)));
        assert_eq!(
            (facts.restarts, facts.cgroup.as_deref()),
            (2, Some("/user.slice/puma.service"))
        );
        let of = |active: &str, rest: &str| {
            standing(&format!("LoadState=loaded\nActiveState={active}\n{rest}"))
        };
        assert_eq!(of("activating", "SubState=auto-restart\nMainPID=0"), Standing::Coming);
        assert_eq!(of("deactivating", "SubState=stop-sigterm\nMainPID=0"), Standing::Going);
        assert_eq!(of("inactive", "Job=17\nResult=success"), Standing::Coming);
        assert_eq!(of("inactive", "Job=0\nResult=success"), Standing::Down(UnitEnd::Success));
        assert_eq!(of("failed", "Result=start-limit-hit"), Standing::Down(UnitEnd::StartLimit));
        assert_eq!(of("failed", "Result=of-a-later-systemd"), Standing::Down(UnitEnd::Other));
        assert_eq!(of("reloading", "MainPID=5"), Standing::Up(Pid(5)));
        assert!(matches!(of("active", "SubState=exited\nMainPID=0"), Standing::Unusable(_)));
        // A unit whose file was taken away while it runs.
        let gone = "LoadState=not-found\nActiveState=active\nMainPID=5";
        assert_eq!(standing(gone), Standing::Up(Pid(5)));
        let never = "LoadState=not-found\nActiveState=inactive\nMainPID=0";
        assert!(matches!(standing(never), Standing::Unusable(why) if why.contains("no unit puma")));
        let masked = "LoadState=masked\nActiveState=inactive\n";
        assert!(matches!(standing(masked), Standing::Unusable(why) if why.contains("unmask")));
    }

    #[test]
    fn no_answer_is_no_state() {
        let odd = [
            "",
            "Failed to connect to bus: No medium found",
            "ActiveState=active\nMainPID=1",
            "LoadState=loaded\nActiveState=\u{1b}[2J",
        ];
        for text in odd {
            assert!(UnitFacts::parse("x.service", text).is_err(), "{text:?}");
        }
        // The first process, and numbers that are none, are nobody's main process.
        for main in ["1", "0", "-3", "99999999999", "x"] {
            let text =
                format!("LoadState=loaded\nActiveState=active\nSubState=exited\nMainPID={main}");
            assert!(matches!(standing(&text), Standing::Unusable(_)), "{main}");
        }
    }

    #[test]
    fn a_unit_name_is_never_an_option_and_never_shell() {
        let unit: Box<str> = "a$(reboot).service".into();
        let start = Systemctl { manager: Manager::User, verb: Verb::Start, unit: unit.clone() };
        let argv = start.argv();
        assert_eq!(argv.last(), Some(&unit));
        assert!(!argv[2].contains("reboot") && argv[2].contains("-- \"$0\""));
        let stop = Systemctl { manager: Manager::System, verb: Verb::Stop, unit };
        assert_eq!(
            stop.argv().iter().map(|word| &**word).collect::<Vec<_>>(),
            ["systemctl", "--no-ask-password", "stop", "--", "a$(reboot).service"]
        );
        assert_eq!(start.to_string(), "systemctl --user start a$(reboot).service");
    }
}
