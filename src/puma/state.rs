//! Puma's state file, and files with a token.
//!
//! `key: value` lines, with or without quotes. Pumas before 4 wrote YAML with their whole configuration
//! in it; of all that, four keys count, and the first of each.

use std::path::Path;

use super::read_file;
use crate::model::process::Pid;
use crate::model::puma::{ControlUrl, Secret, StateFile, Trouble, TroubleKind, UrlError};
use crate::model::text::Untrusted;

/// How to ask, and what else is of use.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) file: StateFile,
    pub(super) url: ControlUrl,
    pub(super) token: Option<Secret>,
}

/// Reads a state file.
pub(super) fn read(path: &Path) -> Result<Found, Trouble> {
    parse(&String::from_utf8_lossy(&read_file(path)?))
}

/// Reads a file with nothing but a token.
pub(super) fn token(path: &Path) -> Result<Secret, Trouble> {
    let bytes = read_file(path)?;
    let text = str::from_utf8(&bytes).ok().map(str::trim).and_then(Secret::token);
    let odd = || format!("what {} holds cannot be a token", path.display());
    text.ok_or_else(|| Trouble::new(TroubleKind::State, &odd()))
}

fn parse(text: &str) -> Result<Found, Trouble> {
    let [mut pid, mut url, mut token, mut from] = [const { None }; 4];
    for line in text.lines() {
        // What is indented belongs to something else.
        let Some((key, value)) = line.split_once(':').filter(|_| !line.starts_with([' ', '\t']))
        else {
            continue;
        };
        let slot = match key.trim_end() {
            "pid" => &mut pid,
            "control_url" => &mut url,
            "control_auth_token" => &mut token,
            "running_from" => &mut from,
            _ => continue,
        };
        if slot.is_none() {
            *slot = Some(unquoted(value.trim()));
        }
    }
    let odd = |what: &str| Trouble::new(TroubleKind::State, what);
    let url = url.filter(|url| !url.is_empty()).ok_or_else(|| {
        odd("the state file names no control server: puma.rb needs activate_control_app")
    })?;
    let url = ControlUrl::parse(&url).map_err(|error| {
        let words = match error {
            UrlError::Odd => format!("{error}: {url}"),
            UrlError::Tls => error.to_string(),
        };
        Trouble::new(TroubleKind::Address, &words)
    })?;
    // Puma's own word for "no token".
    let token = match token.filter(|token| !token.is_empty() && token != "none") {
        None => None,
        Some(token) => Some(Secret::token(&token).ok_or_else(|| odd("its token cannot be one"))?),
    };
    let master = pid.and_then(|pid| pid.parse().ok()).filter(|pid| *pid > 0).map(Pid);
    let running_from = from
        .filter(|from| !from.is_empty())
        .map(|from| Untrusted::bounded(from.as_bytes(), PATH_BYTES_MAX));
    Ok(Found { file: StateFile { master, running_from }, url, token })
}

const PATH_BYTES_MAX: usize = 4096;

/// The text of a scalar: as it is, or between quotes.
fn unquoted(value: &str) -> String {
    let between = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    if let Some(inner) = between('\'') {
        return inner.replace("''", "'");
    }
    let Some(inner) = between('"') else { return value.to_owned() };
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_files_of_every_age_are_read() {
        let found = |url: &str, token: Option<&str>, from: Option<&str>| Found {
            file: StateFile { master: Some(Pid(4526)), running_from: from.map(Untrusted::from) },
            url: ControlUrl::parse(url).expect("an address"),
            token: token.map(|token| Secret::token(token).expect("a token")),
        };
        let url = "unix:///srv/shop/shared/pumactl.sock";
        for (text, expected) in [
            (
                "---\npid: 4526\ncontrol_url: unix:///srv/shop/shared/pumactl.sock\n\
                 control_auth_token: sekret\nrunning_from: \"/srv/shop/releases/1\"\n",
                found(url, Some("sekret"), Some("/srv/shop/releases/1")),
            ),
            // Puma 3: psych, with the configuration as an object.
            (
                "--- \npid: 4526\nconfig: !ruby/object:Puma::Configuration\n  cli_options: \n    \
                 :control_url: tcp://evil:1\n  control_url: unix:///evil\ncontrol_url: tcp://127.0.0.1:9293\n\
                 control_auth_token: '0123'\n",
                found("tcp://127.0.0.1:9293", Some("0123"), None),
            ),
            (
                "pid: \"4526\"\r\ncontrol_url: \"unix://@shop\"\r\ncontrol_auth_token: none\r\n\
                 control_url: unix:///second\nunknown: x\nrunning_from: \"/srv/my \\\"shop\\\"\"\n",
                found("unix://@shop", None, Some("/srv/my \"shop\"")),
            ),
            ("pid: 4526\ncontrol_url: unix://tmp/x.sock", found("unix://tmp/x.sock", None, None)),
        ] {
            assert_eq!(parse(text).expect("readable"), expected, "{text}");
        }
        let without = parse("pid: -1\ncontrol_url: unix:///x\n").expect("readable");
        assert_eq!(without.file, StateFile::default());
    }

    #[test]
    fn what_does_not_say_how_to_ask_is_told() {
        for (text, kind, words) in [
            ("", TroubleKind::State, "names no control server"),
            ("---\npid: 7\n", TroubleKind::State, "activate_control_app"),
            ("control_url: \n", TroubleKind::State, "names no control server"),
            ("control_url: ssl://127.0.0.1:1?key=k", TroubleKind::Address, "does not speak TLS"),
            ("control_url: http://x", TroubleKind::Address, "not the address"),
            (
                "control_url: unix:///x\ncontrol_auth_token: a b",
                TroubleKind::State,
                "cannot be one",
            ),
            ("control_url: unix:///x\ncontrol_auth_token: \"a&b\"", TroubleKind::State, "cannot"),
            ("\u{0}\u{fffd}: \"", TroubleKind::State, "names no control server"),
        ] {
            let trouble = parse(text).expect_err("is of no use");
            assert_eq!(trouble.kind, kind, "{text}");
            assert!(trouble.to_string().contains(words), "{trouble}");
            assert!(!trouble.to_string().contains("a b"), "a token is not shown");
        }
    }
}
