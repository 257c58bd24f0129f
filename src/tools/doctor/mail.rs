//! Mail: whether there is a way out, and whether somebody gets it. A server is called by a child that is
//! nobody's, and not a byte of what it says is read.

use std::collections::BTreeSet;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::config::settings::{MailServer, Settings};
use crate::config::trust::{Secret, read_trusted};
use crate::config::{Definition, LoadAs};
use crate::model::finding::Finding;
use crate::model::limits;
use crate::model::process::Uid;
use crate::tools::doctor::errand::{Errands, Whose};

const ABOUT: &str = "mail";
const CALL_TIME: Duration = Duration::from_secs(3);

/// Looks at `[mail]`.
pub(super) fn examine(
    settings: &Settings,
    all: &[&Definition],
    who: &LoadAs,
    errands: &mut Errands,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let servers = settings.mail.as_ref().map(|mail| &*mail.servers).unwrap_or_default();
    if servers.is_empty() {
        let outbox = settings.state_dir.join("outbox");
        let text = format!("no mail server: mails become files in {}", outbox.display());
        findings.push(Finding::warning(ABOUT, text, "say [mail] with `servers` in heeler.toml"));
    }
    for server in servers {
        findings.extend(files(server, who, errands));
        findings.push(reach(server, settings.scout_user.as_deref(), who, errands));
    }
    let unheard = all.iter().filter(|one| one.service.alert.is_empty());
    let unheard: Vec<_> = unheard.map(|one| one.service.name.as_str()).collect();
    if !unheard.is_empty() {
        let text =
            format!("nobody is told of {} service(s), {} among them", unheard.len(), unheard[0]);
        let todo = "say alert = [\"ops@example.com\"], in [defaults] for all";
        findings.push(Finding::warning(ABOUT, text, todo));
    }
    let people: BTreeSet<_> = all.iter().flat_map(|one| &one.service.alert).collect();
    if !people.is_empty() {
        let people: Vec<_> = people.into_iter().take(5).map(|person| &**person).collect();
        findings.push(Finding::ok(ABOUT, format!("alerts go to {}", people.join(", "))));
    }
    findings
}

fn files(server: &MailServer, who: &LoadAs, errands: &mut Errands) -> Vec<Finding> {
    let found = errands.ask(None, &|_| {
        let files = [
            (&server.password_file, Secret::Yes, limits::PASSWORD_BYTES_MAX),
            (&server.ca_file, Secret::No, limits::CA_BYTES_MAX),
        ];
        let tried = files.into_iter().filter_map(|(path, secret, most)| {
            read_trusted(path.as_deref()?, who.uid, secret, most).err()
        });
        tried
            .map(|why| Finding::error(ABOUT, why, "nothing is sent by this server until then"))
            .collect()
    });
    found.unwrap_or_else(|why| vec![Finding::error(ABOUT, why, "")])
}

/// Whether somebody listens there.
fn reach(server: &MailServer, scout: Option<&str>, who: &LoadAs, errands: &mut Errands) -> Finding {
    let shown = format!("{}:{}", server.host, server.port);
    let call = || -> Result<(), String> {
        let all = (&*server.host, server.port).to_socket_addrs();
        let all = all.map_err(|error| format!("its name has no address: {error}"))?;
        let mut last = "its name has no address".to_owned();
        for address in all {
            match TcpStream::connect_timeout(&address, CALL_TIME) {
                Ok(_) => return Ok(()),
                Err(error) => last = format!("{address}: {error}"),
            }
        }
        Err(last)
    };
    let todo = format!(
        "is it the right server? `heeler mail test` says more; try `nc -v {} {}`",
        server.host, server.port
    );
    let look = |_: &crate::shim::AsUser<'_>| {
        vec![match call() {
            Ok(()) => Finding::ok(ABOUT, format!("{shown} takes calls")),
            Err(why) => Finding::error(ABOUT, format!("{shown} cannot be reached: {why}"), &todo),
        }]
    };
    // Where there is no user for it, it is asked as nobody; without root, as who we are.
    let names = scout.into_iter().chain(["heeler", "nobody"]);
    let names = names.map(|name| Some(name.into())).take_while(|_| who.uid == Uid(0));
    let mut failed = String::new();
    for user in names.chain((who.uid != Uid(0)).then_some(None)) {
        match errands.ask(Some(&Whose { user, ..Whose::default() }), &look) {
            Ok(mut found) if !found.is_empty() => return found.remove(0),
            Ok(_) => {}
            Err(why) => failed = why,
        }
    }
    Finding::error(ABOUT, format!("{shown} was not called: {failed}"), todo)
}
