//! What each client command asks, shows, and exits with.
#![forbid(unsafe_code)]

use std::env;
use std::io::{self, IsTerminal};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;

use crate::cli::args::{Chosen, ClientCommand};
use crate::cli::client::{self, Answer, Failure, Patience, ask, listen};
use crate::cli::render::{self, Style, Whose};
use crate::cli::{Rc, Written, complain, print, write_out};
use crate::model::ids::{GroupName, ServiceName};
use crate::model::order::{Order, WorkerPick};
use crate::model::selector::Selector;
use crate::model::text::escape;
use crate::wire::control::{
    ErrorAnswer, Event, EventsAnswer, Follow, Health, MailTestAnswer, OrderAnswer, OrderEnd,
    ProbeAnswer, ProbeVerdict, ReloadAnswer, Request, StatusAnswer, WhyAnswer, WorkersAnswer,
    WorkersVerdict,
};

/// Does a client command.
///
/// # Errors
/// Where it can be done without a daemon, and there is none.
pub(super) fn run(
    socket: Option<PathBuf>,
    json: bool,
    command: &ClientCommand,
    columns: fn() -> Option<u16>,
) -> Result<Rc, WithoutDaemon> {
    let socket = client::socket_path(socket);
    let done = match command {
        ClientCommand::Status(chosen) => status(&socket, json, chosen, columns),
        ClientCommand::Why(name) => why(&socket, json, name, columns),
        ClientCommand::Events { chosen, last, follow } => {
            events(&socket, json, chosen, (*last, *follow), columns)
        }
        ClientCommand::Probe { name, check } => {
            probe(&socket, json, name, check.as_deref(), columns)
        }
        ClientCommand::Workers(name) => workers(&socket, json, name, columns),
        ClientCommand::Kill { name, pick } => kill(&socket, json, name, *pick),
        ClientCommand::ReloadVerified { name, within } => {
            reload_verified(&socket, json, name, *within)
        }
        ClientCommand::Order { order, chosen, wait } => give(&socket, json, *order, chosen, *wait),
        ClientCommand::MailTest(to) => mail_test(&socket, json, to),
        ClientCommand::ReloadConfig => read_anew(&socket, json, &Request::ReloadConfig),
        ClientCommand::Plan(dir) => match plan(&socket, json, dir.as_deref()) {
            Err(Failure { rc: Rc::NoDaemon, .. }) => return Err(WithoutDaemon),
            done => done,
        },
    };
    Ok(done.unwrap_or_else(|Failure { rc, text, body }| {
        complain(&text);
        match body {
            Some(body) if json => print(&body, rc),
            Some(_) | None => rc,
        }
    }))
}

/// There is no daemon, and it can be done without one.
pub(super) struct WithoutDaemon;

fn read_anew(socket: &Path, json: bool, request: &Request) -> Result<Rc, Failure> {
    // It may take as long as the file system does; the keeper has a deadline for that.
    let answer: Answer<ReloadAnswer> = ask(socket, request, Patience::Endless)?;
    let json = json.then_some(answer.json);
    Ok(show_reload(&answer.value, json))
}

fn plan(socket: &Path, json: bool, dir: Option<&Path>) -> Result<Rc, Failure> {
    let absolute = dir.map(std::path::absolute).transpose().map_err(|error| Failure {
        rc: Rc::Failed,
        text: format!("failed to find the directory: {error}"),
        body: None,
    })?;
    let dir = absolute.map(|dir| dir.to_string_lossy().into_owned());
    read_anew(socket, json, &Request::Plan { dir })
}

/// Shows what came of reading a configuration, or would: as JSON where that is given.
pub(super) fn show_reload(answer: &ReloadAnswer, json: Option<String>) -> Rc {
    let text = json.unwrap_or_else(|| render::reload(answer));
    print(&text, if answer.good { Rc::Ok } else { Rc::Failed })
}

fn status(
    socket: &Path,
    json: bool,
    chosen: &Chosen,
    columns: fn() -> Option<u16>,
) -> Result<Rc, Failure> {
    let all = chosen.all || *chosen == Chosen::default();
    let names = &chosen.words;
    let request = Request::Status { services: if all { Vec::new() } else { selectors(chosen)? } };
    let answer: Answer<StatusAnswer> = ask(socket, &request, Patience::Short)?;
    let services = &answer.value.services;
    // Asked about by name, a service that was stopped on purpose is as little running as a dead one.
    let down = services
        .iter()
        .any(|service| if all { service.health == Health::Down } else { service.pid.is_none() });
    let mut rc = if down { Rc::NotRunning } else { Rc::Ok };
    // One that went away while we asked.
    let plain = names.iter().filter(|name| ServiceName::parse(name).is_ok());
    for name in plain.filter(|name| !services.iter().any(|s| s.service == **name)) {
        complain(&escape(&ErrorAnswer::no_such_service(name).text));
        rc = Rc::NoService;
    }
    let style = style(columns);
    let mut text = match (services.as_slice(), names.as_slice()) {
        _ if json => answer.json,
        ([], _) if all => {
            "no services; each *.toml in the configuration directory is one\n".to_owned()
        }
        ([], _) => String::new(),
        ([service], [name]) if service.service == *name => render::detail(service, &style),
        (services, _) => render::table(services, &style),
    };
    if let (Some(mail), false) = (&answer.value.mail, json) {
        text.push_str(&render::mail_line(mail, &style));
    }
    if let (Some(config), false) = (&answer.value.config, json) {
        text.push_str(&render::config_lines(config));
    }
    if let (Some(state), false) = (&answer.value.state, json) {
        text.push_str(&render::state_line(state, &style));
    }
    Ok(print(&text, rc))
}

fn mail_test(socket: &Path, json: bool, to: &[String]) -> Result<Rc, Failure> {
    let request = Request::MailTest { to: to.to_vec() };
    // Each server has its own time to answer.
    let answer: Answer<MailTestAnswer> = ask(socket, &request, Patience::Endless)?;
    let servers = &answer.value.servers;
    let good = !servers.is_empty() && servers.iter().all(|server| server.delivered);
    let text = if json { answer.json } else { render::mail_test(&answer.value) };
    Ok(print(&text, if good { Rc::Ok } else { Rc::Failed }))
}

fn why(socket: &Path, json: bool, name: &str, columns: fn() -> Option<u16>) -> Result<Rc, Failure> {
    let request = Request::Why { service: parse_name(name)? };
    let answer: Answer<WhyAnswer> = ask(socket, &request, Patience::Short)?;
    let text = if json { answer.json } else { render::why(&answer.value, &style(columns)) };
    Ok(print(&text, Rc::Ok))
}

fn events(
    socket: &Path,
    json: bool,
    chosen: &Chosen,
    (last, follow): (Option<u32>, Follow),
    columns: fn() -> Option<u16>,
) -> Result<Rc, Failure> {
    let services = if chosen.all { Vec::new() } else { selectors(chosen)? };
    let one = matches!(services.as_slice(), [Selector::Name(_)]);
    let whose = if one { Whose::Known } else { Whose::Shown };
    let request = Request::Events { services, last, follow };
    let mut wide = render::Columns::default();
    let mut show = |events: &[Event]| render::events(events, whose, &mut wide, &style(columns));
    if follow == Follow::No {
        let answer: Answer<EventsAnswer> = ask(socket, &request, Patience::Short)?;
        let text = if json { answer.json } else { show(&answer.value.events) };
        return Ok(print(&text, Rc::Ok));
    }
    listen(socket, &request, |line| {
        let text = if json {
            format!("{line}\n")
        } else {
            // What a newer keeper says beside events is not for this client.
            serde_json::from_str(line).map(|event| show(&[event])).unwrap_or_default()
        };
        match write_out(&text) {
            Written::Yes => ControlFlow::Continue(()),
            Written::NobodyReads => ControlFlow::Break(Rc::Ok),
            Written::Failed => ControlFlow::Break(Rc::Failed),
        }
    })
}

fn probe(
    socket: &Path,
    json: bool,
    name: &str,
    check: Option<&str>,
    columns: fn() -> Option<u16>,
) -> Result<Rc, Failure> {
    let request = Request::Probe { service: parse_name(name)?, check: check.map(str::to_owned) };
    // Each check has its own time to answer, and the keeper one for all.
    let answer: Answer<ProbeAnswer> = ask(socket, &request, Patience::Endless)?;
    let good = answer.value.checks.iter().all(|check| check.verdict == ProbeVerdict::Pass);
    let text = if json { answer.json } else { render::probe(&answer.value, &style(columns)) };
    Ok(print(&text, if good { Rc::Ok } else { Rc::Failed }))
}

fn workers(
    socket: &Path,
    json: bool,
    name: &str,
    columns: fn() -> Option<u16>,
) -> Result<Rc, Failure> {
    let request = Request::Workers { service: parse_name(name)? };
    let answer: Answer<WorkersAnswer> = ask(socket, &request, Patience::Short)?;
    let rc = match answer.value.verdict {
        WorkersVerdict::Well => Rc::Ok,
        WorkersVerdict::NotRunning => Rc::NotRunning,
        WorkersVerdict::Ill | WorkersVerdict::Unclear | WorkersVerdict::Other => Rc::Failed,
    };
    let text = if json { answer.json } else { render::workers(&answer.value, &style(columns)) };
    Ok(print(&text, rc))
}

fn kill(socket: &Path, json: bool, name: &str, pick: WorkerPick) -> Result<Rc, Failure> {
    let request = Request::Kill { service: parse_name(name)?, pick };
    // It has its time to go.
    Ok(tell_orders(&ask(socket, &request, Patience::Endless)?, json))
}

fn reload_verified(
    socket: &Path,
    json: bool,
    name: &str,
    within: Option<Duration>,
) -> Result<Rc, Failure> {
    let service = parse_name(name)?;
    if !json {
        tell_progress(socket.to_owned(), &service);
    }
    let request = Request::ReloadVerified { service, within };
    // The keeper ends it, one way or the other, and what it takes to go back comes on top of its time.
    Ok(tell_orders(&ask(socket, &request, Patience::Endless)?, json))
}

/// Shows what happens to a service while its reload is waited for. Who may reload and not look sees the end
/// only.
fn tell_progress(socket: PathBuf, service: &ServiceName) {
    let services = vec![Selector::Name(service.clone())];
    let request = Request::Events { services, last: Some(0), follow: Follow::Yes };
    thread::spawn(move || {
        let _why_it_ended = listen(&socket, &request, |line| {
            let event = serde_json::from_str::<Event>(line);
            // Its beginning and its end are said by who waits for the answer.
            let told = event.ok().filter(|event| !event.text.starts_with("verified reload"));
            let text =
                told.map(|event| format!("{}: {}\n", escape(&event.service), escape(&event.text)));
            match write_out(&text.unwrap_or_default()) {
                Written::Yes => ControlFlow::Continue(()),
                Written::NobodyReads | Written::Failed => ControlFlow::Break(Rc::Ok),
            }
        });
    });
}

fn give(
    socket: &Path,
    json: bool,
    order: Order,
    chosen: &Chosen,
    wait: bool,
) -> Result<Rc, Failure> {
    let services = selectors(chosen)?;
    let patience = if wait { Patience::Endless } else { Patience::Short };
    let request = Request::Order { order, services, wait };
    Ok(tell_orders(&ask(socket, &request, patience)?, json))
}

/// Says what came of it for each service.
fn tell_orders(answer: &Answer<OrderAnswer>, json: bool) -> Rc {
    let (mut good, mut rc) = (String::new(), Rc::Ok);
    for result in &answer.value.results {
        let line = format!("{}: {}", escape(&result.service), escape(&result.text));
        match result.result {
            OrderEnd::Done | OrderEnd::Accepted => good.push_str(&format!("{line}\n")),
            OrderEnd::Failed | OrderEnd::Other => {
                rc = Rc::Failed;
                complain(&line);
            }
        }
    }
    print(if json { &answer.json } else { &good }, rc)
}

fn selectors(chosen: &Chosen) -> Result<Vec<Selector>, Failure> {
    let words = chosen.words.iter().map(|word| Selector::parse(word).map_err(|_| no_such(word)));
    let groups = chosen.groups.iter().map(|name| {
        GroupName::parse(name).map(Selector::Group).map_err(|_| no_such(&format!("group {name}")))
    });
    words.chain(groups).chain(chosen.all.then_some(Ok(Selector::All))).collect()
}

fn parse_name(name: &str) -> Result<ServiceName, Failure> {
    ServiceName::parse(name).map_err(|_| no_such(name))
}

/// A text that cannot name a service names none.
fn no_such(name: &str) -> Failure {
    let text = escape(&ErrorAnswer::no_such_service(name).text);
    Failure { rc: Rc::NoService, text, body: None }
}

/// How to show: as the terminal is, and plain and unlimited when there is none.
pub(super) fn style(columns: fn() -> Option<u16>) -> Style {
    let terminal = io::stdout().is_terminal();
    let told = env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).filter(|n| *n > 0);
    let is = |name, value| env::var_os(name).is_some_and(|found| found == value);
    let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Style {
        width: told.or_else(|| terminal.then(|| columns().map_or(80, usize::from))),
        colour: terminal && !no_colour && !is("TERM", "dumb"),
        zone: TimeZone::system(),
        now_unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
    }
}
