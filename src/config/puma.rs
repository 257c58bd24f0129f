//! `[puma]`: where a Puma can be asked, and how a deploy of it works.

use toml::de::DeTable;

use crate::config::command::command;
use crate::config::document::{Document, Field, field, get, shorten};
use crate::model::limits;
use crate::model::puma::{Control, ControlUrl, Puma, Rollback, Secret, Token, UrlError};

const KEYS: [&str; 8] =
    ["state", "control", "token", "token_file", "current", "workers", "rollback", "release"];
const HINT: &str = "write it as [puma], with state = \"/srv/shop/shared/pids/puma.state\"";

/// Before anything is found in the file: what is found is printed and logged.
pub(crate) fn hide_token(doc: &mut Document<'_>, table: &DeTable<'_>) {
    let puma = table.get("puma").and_then(|puma| puma.get_ref().as_table());
    if let Some(token) = puma.and_then(|puma| puma.get("token")) {
        doc.hide(token);
    }
}

/// What `[puma]` says.
pub(crate) fn puma(doc: &mut Document<'_>, at: Field<'_>) -> Option<Puma> {
    let table = doc.table(at, HINT)?;
    doc.known_keys(table, &KEYS, &[], &[]);
    let control = control(doc, at, table);
    let current = get(doc, table, "current", Document::path);
    let workers =
        get(doc, table, "workers", |doc, at| doc.number(at, 1..=limits::WORKERS_MAX, "4"));
    let rollback = get(doc, table, "rollback", rollback);
    if rollback == Some(Rollback::Symlink) && !table.contains_key("current") {
        let at = field(table, "rollback").map(|at| at.value.span());
        let hint = "for example: current = \"/srv/shop/current\"";
        doc.missing(at, "nothing says which link is to go back: there is no `current`", hint);
    }
    let release = get(doc, table, "release", command);
    Some(Puma { control: control?, current, workers, rollback, release })
}

/// Where it is asked: exactly one of `state` and `control`.
fn control(doc: &mut Document<'_>, at: Field<'_>, table: &DeTable<'_>) -> Option<Control> {
    let state = get(doc, table, "state", |doc, at| {
        let path = doc.path(at)?;
        if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            doc.error(at.value.span(), "`state` names a directory", None);
            return None;
        }
        Some(Control::State(path))
    });
    if table.contains_key("state") {
        let hint = "the state file says where Puma can be asked, and with which token";
        let others = ["control", "token", "token_file"];
        doc.misplaced(table, &others, "cannot be together with `state`", hint);
        return state;
    }
    if !table.contains_key("control") {
        let message = "`[puma]` does not say where Puma can be asked";
        doc.missing(
            Some(at.value.span()),
            message,
            "say `state` (state_path of puma.rb), or `control`",
        );
        return None;
    }
    let url = get(doc, table, "control", url);
    let token_file = get(doc, table, "token_file", Document::path);
    let said = get(doc, table, "token", token);
    if table.contains_key("token") {
        let hint = "keep one of the two";
        doc.misplaced(table, &["token_file"], "cannot be together with `token`", hint);
    }
    let token = match (table.contains_key("token"), table.contains_key("token_file")) {
        (true, _) => Token::Said(said?),
        (false, true) => Token::File(token_file?),
        (false, false) => Token::None,
    };
    Some(Control::Url { url: url?, token })
}

fn url(doc: &mut Document<'_>, at: Field<'_>) -> Option<ControlUrl> {
    let text = doc.string(at, "unix:///srv/shop/shared/sockets/pumactl.sock")?;
    match ControlUrl::parse(text) {
        Ok(ControlUrl::Unix(path)) if path.is_relative() => {
            let message = format!("`{}` is not an absolute path", shorten(&path.to_string_lossy()));
            doc.error(at.value.span(), message, Some("write unix:///, with three slashes"));
            None
        }
        Ok(ControlUrl::Unix(path)) if path.as_os_str().len() > limits::SOCKET_PATH_BYTES_MAX => {
            let message =
                format!("the path of a socket has at most {} bytes", limits::SOCKET_PATH_BYTES_MAX);
            doc.error(at.value.span(), message, None);
            None
        }
        Ok(url) => Some(url),
        Err(error @ UrlError::Odd) => {
            doc.error(at.value.span(), error.to_string(), Some(UrlError::HINT));
            None
        }
        Err(error @ UrlError::Tls) => {
            let all = error.to_string();
            let (message, hint) = all.split_once(": ").unwrap_or((&all, UrlError::HINT));
            doc.error(at.value.span(), message, Some(hint));
            None
        }
    }
}

fn token(doc: &mut Document<'_>, at: Field<'_>) -> Option<Secret> {
    let secret = Secret::token(doc.string(at, "...")?);
    if secret.is_none() {
        let hint = "letters, digits and most signs, but no blanks, quotes and none of & ; # < >";
        doc.error(at.value.span(), "this cannot be the token of a control server", Some(hint));
    }
    secret
}

fn rollback(doc: &mut Document<'_>, at: Field<'_>) -> Option<Rollback> {
    match at.value.get_ref().as_str() {
        Some("symlink") => Some(Rollback::Symlink),
        Some(word) if !word.contains(['/', ' ']) => {
            let message = format!("`{}` is no way to roll back", shorten(word));
            let hint =
                "say \"symlink\", or a command: rollback = \"/usr/local/bin/roll-back shop\"";
            doc.error(at.value.span(), message, Some(hint));
            None
        }
        Some(_) | None => command(doc, at).map(Rollback::Command),
    }
}
