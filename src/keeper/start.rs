//! From nothing to the loop, in the order that must hold: settings, the one lock, the store, the
//! services, who is who, what an earlier keeper left; only then the socket, so that nobody talks to a
//! keeper that does not know yet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::config::error::{Diagnostic, render};
use crate::config::settings::Settings;
use crate::config::trust::{Refusal, Rule};
use crate::config::{self, BadFile, LoadAs, Loaded, Role};
use crate::engine::Engine;
use crate::engine::effect::Level;
use crate::keeper::control::ControlSocket;
use crate::keeper::deaths::MemoryKills;
use crate::keeper::events::Events;
use crate::keeper::intake::{Defined, wanted_by_its_file};
use crate::keeper::log::Log;
use crate::keeper::manager::Manager;
use crate::keeper::operators::Operators;
use crate::keeper::people::People;
use crate::keeper::pool::Pool;
use crate::keeper::post::Post;
use crate::keeper::reload::{Conf, text_mark};
use crate::keeper::scout::Scout;
use crate::keeper::served::File;
use crate::keeper::trials::Trials;
use crate::keeper::{Ears, Keeper, Options, Signals, now};
use crate::mail::HostFacts;
use crate::model::change::Instead;
use crate::model::ids::ServiceName;
use crate::model::memory::Memory;
use crate::model::process::Uid;
use crate::store::definitions::{self, DefinitionName};
use crate::store::thread::Delivery;
use crate::store::{self, Message, StoreHandle};
use crate::sys::defaults::raise_open_files;
use crate::sys::fork::keep_the_dead;
use crate::sys::lock::{self, Lock, TryLock};
use crate::sys::placement::Delegated;
use crate::sys::selfexe::SelfExe;
use crate::sys::watch::Watch;
use crate::sys::{clock, heap, records};
use crate::wire::shim::{LADDER_FILE, MAIN_FILE, PROBE_FILES, Slot, SlotFile};

/// Runs until told to end.
pub(super) async fn keep(options: &Options) -> Result<(), String> {
    keep_the_dead().map_err(|error| format!("failed to reset SIGCHLD: {error}"))?;
    let exe = SelfExe::open().map_err(|error| {
        format!("failed to open heeler's own program by /proc/self/exe: {error}; is /proc mounted?")
    })?;
    let log = Log::start(std::env::var_os("JOURNAL_STREAM"))
        .map_err(|error| format!("failed to start the log: {error}"))?;
    if let Err(error) = raise_open_files() {
        let text = format!("failed to raise the limit of open files: {error}");
        log.say(now().wall, Level::Warning, "heeler", text);
    }
    let who = load_as(options);
    let loaded = load(options, &who, &log)?;
    let settings = &loaded.settings.clone();
    if let Some(to) = &settings.log {
        log.write_to(to.clone());
    }
    let (manager, note) = Manager::of(|name| std::env::var_os(name));
    if let Some(note) = note {
        log.say(now().wall, Level::Warning, "heeler", note);
    }
    make_dir(&settings.run_dir, 0o755)?;
    for dir in [&settings.run_dir, &settings.state_dir] {
        only_trusted_above(dir, &who)?;
    }
    let _keeper_lock = take_keeper_lock(&settings.run_dir)?;
    let groups = groups(&log);
    let boot_id = clock::boot_id().map_err(|error| {
        format!(
            "failed to read the boot id in /proc/sys: {error}; heeler needs all of /proc (it \
                 may be mounted with subset=pid)"
        )
    })?;
    forget_other_boots(&settings.run_dir, &boot_id)?;
    let (ack, acks) = mpsc::unbounded_channel();
    let about = store_settings(settings, &who, &boot_id);
    let post = Post::new(settings.mail.clone(), about.host.clone(), &settings.state_dir);
    let (store, stored) = StoreHandle::spawn(&settings.state_dir, about, move |said| {
        let _loop_is_there = ack.send(said);
    })
    .map_err(|error| error.to_string())?;
    let (done_to, done) = mpsc::unbounded_channel();
    let (people_to, people_heard) = mpsc::unbounded_channel();
    let (people, rights) = People::new(who.uid, who.user.as_deref(), people_to);
    let watch =
        Watch::new().map_err(|error| format!("failed to make an epoll instance: {error}"))?;
    let watcher =
        watch.into_async().map_err(|error| format!("failed to wait for processes: {error}"))?;
    let mut engine = Engine::new(now().wall.0 << 20);
    engine.brake_at(settings.brake);
    let mut keeper = Keeper {
        engine,
        services: BTreeMap::new(),
        inbox: VecDeque::new(),
        effects: Vec::new(),
        surveys: Vec::new(),
        survey_took: Duration::ZERO,
        outgoing: Vec::new(),
        dirty: BTreeSet::new(),
        watcher,
        sources: BTreeMap::new(),
        next_token: 0,
        pool: Pool::new(done_to),
        store,
        log,
        manager,
        exe,
        groups,
        memory_kills: MemoryKills::begin(),
        boot_id,
        running: Vec::new(),
        shims: BTreeMap::new(),
        deferred_exits: Vec::new(),
        operators: Operators::default(),
        trials: Trials::default(),
        events: Events::after(stored.events),
        people,
        load_as: who,
        scout: Scout::default(),
        looks: BTreeSet::new(),
        pumas_in_pool: BTreeSet::new(),
        passwords: BTreeMap::new(),
        programs_waiting: VecDeque::new(),
        units_waiting: VecDeque::new(),
        pumas_waiting: VecDeque::new(),
        post,
        look_up_at: None,
        conf: Conf::new(&options.dir, settings.clone(), loaded.settings_text.clone()),
        unclaimed: BTreeSet::new(),
        next_claim: 0,
    };
    for note in &stored.notes {
        keeper.say(Level::Warning, note);
    }
    let chosen = keeper.choose(loaded);
    let signals = Signals::catch().map_err(|error| format!("failed to catch signals: {error}"))?;
    let (control_to, control) = mpsc::channel(CONTROL_QUEUE);
    let mut ears = Ears { done, acks, control, people: people_heard, signals };
    keeper.serve_all(chosen, stored.memories, &mut ears).await?;
    let socket = ControlSocket::bind(&settings.socket)?;
    keeper.say_hello(options, settings);
    keeper.manager.ready(keeper.engine.tally());
    // What reading the configuration took is not needed again.
    heap::give_back();
    let serving = tokio::spawn(socket.serve(rights, control_to));
    let result = keeper.watch_over(ears).await;
    serving.abort();
    // The socket's file goes with the task.
    let _aborted = serving.await;
    result
}

/// What a start takes in.
struct Chosen {
    services: Vec<Defined>,
    bad: Vec<BadFile>,
    /// Whether there was not one file.
    empty: bool,
}

/// Requests waiting for the loop; more wait in their connections.
const CONTROL_QUEUE: usize = 64;
/// How long the first looks wait for user names.
const FIRST_LOOK_UP: Duration = Duration::from_secs(1);

impl Keeper {
    /// Which definition of each service is in force: the file's, or for a bad file its last good one.
    fn choose(&mut self, loaded: Loaded) -> Chosen {
        let empty = loaded.is_empty();
        let mut services = Vec::new();
        for good in loaded.services {
            let (name, text) = (good.name().clone(), text_mark(&good.text));
            let name = DefinitionName::Service(name);
            self.store.send([Message::SaveDefinition(name, good.text)]);
            services.push(Defined { definition: good.definition, text, file: File::There });
        }
        if let Some(text) = loaded.settings_text {
            self.store.send([Message::SaveDefinition(DefinitionName::Daemon, text)]);
        }
        for warning in &loaded.warnings {
            self.say_lines(Level::Warning, std::slice::from_ref(warning));
        }
        for bad in &loaded.bad {
            self.say_lines(Level::Error, &bad.diagnostics);
            let Role::Service(name) = &bad.role else { continue };
            let last = self.last_good(name);
            let instead = if last.is_some() { Instead::LastGood } else { Instead::Nothing };
            self.say(Level::Error, &format!("{name}.toml is bad: {}", instead.words()));
            services.extend(last);
        }
        Chosen { services, bad: loaded.bad, empty }
    }

    /// What the file of a service said when it was last good.
    pub(super) fn last_good(&self, name: &ServiceName) -> Option<Defined> {
        let (settings, who) = (&self.conf.settings, &self.load_as);
        let file = DefinitionName::Service(name.clone());
        let text = definitions::load(&settings.state_dir, &file).ok().flatten()?;
        let parsed = config::parse_service(name, "last good definition", &text, settings, who);
        let (definition, _) = parsed.ok()?;
        Some(Defined { definition, text: text_mark(&text), file: File::There })
    }

    fn say_lines(&self, level: Level, diagnostics: &[Diagnostic]) {
        for line in render(diagnostics).lines() {
            self.say(level, line);
        }
    }

    /// Takes the services in: records, users, what is in flight; the engine begins to look.
    async fn serve_all(
        &mut self,
        mut chosen: Chosen,
        mut memories: BTreeMap<ServiceName, Memory>,
        ears: &mut Ears,
    ) -> Result<(), String> {
        let own = memories.remove(&ServiceName::heeler());
        let defined = chosen.services.iter().map(|one| &one.definition.service);
        self.settle_names(defined, &mut memories)?;
        config::parents_first(&mut chosen.services, |one| &one.definition.service);
        let mut services = Vec::new();
        for defined in chosen.services {
            services.push(self.take_in(defined)?);
        }
        self.meet_people();
        if self.somebody_unknown() {
            // Local users are known in milliseconds; a name service that hangs must not hold up the start.
            if let Ok(Some(answer)) = tokio::time::timeout(FIRST_LOOK_UP, ears.people.recv()).await
            {
                self.hear_people(answer);
            }
        }
        self.plan_look_up();
        for def in services {
            let memory = memories.remove(&def.name);
            self.begin(def, memory.map(wanted_by_its_file));
        }
        self.begin_own(own);
        let fallback = if self.conf.text.is_some() { Instead::LastGood } else { Instead::Defaults };
        self.files_are(&chosen.bad, fallback, &[]);
        self.good_files_are_good();
        if chosen.empty && !memories.is_empty() {
            let text =
                "there is not one file in it: nothing is forgotten, in case it is not mounted";
            self.say(Level::Warning, text);
            self.conf.awaited = memories;
        } else {
            self.forget_all(memories);
        }
        Ok(())
    }

    fn say_hello(&self, options: &Options, settings: &Settings) {
        let dir = options.dir.display();
        let count = self.services.len();
        self.say(
            Level::Info,
            &format!("watching {count} services of {dir}; ask with `heeler status`"),
        );
        if self.load_as.uid != Uid(0) {
            let text = "not root: watching services of this user only, and there is no boundary between \
                        heeler and what it reads from the network";
            self.say(Level::Info, text);
        }
        if !self.post.delivers() {
            let outbox = settings.state_dir.join("outbox");
            let text = format!(
                "no mail server in heeler.toml: mails become files in {}",
                outbox.display()
            );
            self.say(Level::Info, &text);
        }
        if settings.socket != default_socket(&self.load_as) {
            let text = format!(
                "the control socket is {}; export HEELER_SOCKET",
                settings.socket.display()
            );
            self.say(Level::Info, &text);
        }
    }
}

fn default_socket(who: &LoadAs) -> std::path::PathBuf {
    Settings::of(who).socket
}

fn load_as(options: &Options) -> LoadAs {
    let mut who = LoadAs::of_process();
    if options.demo && who.uid == Uid(0) {
        let sudo = |value: OsString| value.to_str().and_then(|text| text.parse().ok()).map(Uid);
        who.demo_owner = std::env::var_os("SUDO_UID").and_then(sudo);
    }
    who
}

/// Loads the configuration. Only an unusable directory ends the start; a bad file is said and passed by.
fn load(options: &Options, who: &LoadAs, log: &Log) -> Result<Loaded, String> {
    let defaults = Settings::of(who);
    let last = definitions::load(&defaults.state_dir, &DefinitionName::Daemon).ok().flatten();
    let loaded = config::load(&options.dir, who, last.as_deref()).map_err(|unusable| {
        format!(
            "failed to use {}\n{}",
            options.dir.display(),
            render(std::slice::from_ref(&unusable))
        )
    })?;
    log.say(now().wall, Level::Info, "heeler", format!("reading {}", options.dir.display()));
    Ok(loaded)
}

pub(super) fn store_settings(settings: &Settings, who: &LoadAs, boot_id: &str) -> store::Settings {
    let hostname = settings.hostname.clone().unwrap_or_else(|| {
        let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        name.filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".to_owned()).into()
    });
    let user = if who.uid == Uid(0) { "root" } else { "heeler" };
    store::Settings {
        boot_id: boot_id.into(),
        host: HostFacts {
            hostname,
            from: settings.mail.as_ref().map(|mail| mail.from.clone()),
            user: user.into(),
            zone: jiff::tz::TimeZone::system(),
        },
        delivery: match &settings.mail {
            Some(mail) if !mail.servers.is_empty() => Delivery::Smtp(mail.rate),
            Some(_) | None => Delivery::Folder,
        },
    }
}

/// The control group that was left to heeler, with heeler in its leaf. Without one everything is as it is,
/// but that what a service leaves is known by its session alone.
fn groups(log: &Log) -> Option<Delegated> {
    let say = |level, text: String| log.say(now().wall, level, "heeler", text);
    let Some(groups) = Delegated::find() else {
        let text = "no control group was left to heeler: what it starts stays in its own";
        say(Level::Info, text.to_owned());
        return None;
    };
    match groups.settle() {
        Ok(()) => Some(groups),
        Err(error) => {
            let text = format!(
                "failed to use the control group that was left to heeler: {error}; what it starts stays in \
                 its own"
            );
            say(Level::Warning, text);
            None
        }
    }
}

/// Held for life: two keepers would each start what the other stops.
fn take_keeper_lock(run_dir: &Path) -> Result<Lock, String> {
    let path = run_dir.join("keeper.lock");
    match lock::try_lock(&path) {
        Ok(TryLock::Taken(lock)) => Ok(lock),
        Ok(TryLock::Busy) => Err(format!(
            "another heeler is running already (it holds {}); ask it with `heeler status`",
            path.display()
        )),
        Err(error) => Err(format!("failed to take {}: {error}", path.display())),
    }
}

/// Process facts mean nothing in another boot. On a tmpfs they are gone anyway.
fn forget_other_boots(run_dir: &Path, boot_id: &str) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("failed to prepare {}: {error}", run_dir.display());
    let mark = run_dir.join("boot");
    if fs::read_to_string(&mark).is_ok_and(|mark| mark == boot_id) {
        return Ok(());
    }
    let services = match fs::read_dir(run_dir.join("svc")) {
        Ok(services) => services,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return write_mark(&mark, boot_id).map_err(fail);
        }
        Err(error) => return Err(fail(error)),
    };
    for service in services {
        let dir = service.map_err(fail)?.path();
        let slots = Slot::ACTIONS.into_iter().flat_map(|slot| {
            [SlotFile::Job, SlotFile::Child, SlotFile::Outcome].map(|file| slot.file(file))
        });
        let of_probes = fs::read_dir(&dir).map_err(fail)?.filter_map(|entry| {
            entry.ok()?.file_name().into_string().ok().filter(|name| name.starts_with(PROBE_FILES))
        });
        let others = [LADDER_FILE, MAIN_FILE].map(str::to_owned);
        for name in slots.chain(of_probes).chain(others) {
            records::remove_record(&dir, &name).map_err(fail)?;
        }
    }
    write_mark(&mark, boot_id).map_err(fail)
}

fn write_mark(path: &Path, boot_id: &str) -> std::io::Result<()> {
    fs::File::create(path)?.write_all(boot_id.as_bytes())
}

/// Records say what may be signalled, and the last good definitions what is run: whoever could put
/// another directory in the place of these would be heeler. What is not there yet is made below what is.
fn only_trusted_above(dir: &Path, who: &LoadAs) -> Result<(), String> {
    let there = dir.ancestors().find(|dir| dir.symlink_metadata().is_ok());
    let there = there.unwrap_or_else(|| Path::new("/"));
    match Rule::root_and([who.uid]).resolve(there) {
        Ok(_) => Ok(()),
        Err(Refusal::Io(error)) => Err(format!("failed to look at {}: {error}", there.display())),
        Err(Refusal::Unsafe { message, hint }) => {
            Err(format!("failed to keep anything in {}: {message}; {hint}", dir.display()))
        }
    }
}

/// Makes a directory that only heeler's user can write, or makes sure that one is.
pub(super) fn make_dir(path: &Path, mode: u32) -> Result<(), String> {
    let shown = path.display();
    let fail = |error: std::io::Error| {
        format!("failed to make {shown}: {error}; may this user write there?")
    };
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(fail)?;
    let facts = fs::symlink_metadata(path).map_err(fail)?;
    let own = nix::unistd::geteuid().as_raw();
    if !facts.is_dir() || facts.uid() != own || facts.mode() & 0o022 != 0 {
        return Err(format!(
            "{shown} must be a directory of uid {own} that nobody else can write \
             (it is of uid {}, mode {:04o}); mend it with `chown {own} {shown} && chmod 755 {shown}`",
            facts.uid(),
            facts.mode() & 0o7777
        ));
    }
    Ok(())
}
