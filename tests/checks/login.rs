//! A login over HTTP: who is told it, and what is said where it does not help.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::sync::Mutex;
use std::thread;

use heeler::checks::connect::Tools;
use heeler::model::observation::{Observation, Outcome};
use heeler::model::password::Password;

use crate::servers::{
    Authority, Dates, LONG, Wire, failure, ignorance, probe, probe_by, request, serve, serve_tls,
};

const PASSWORD: &str = "correct horse: b\u{e4}tt\u{eb}ry";
/// `monitor:` and the password in base64, by base64(1).
const TOKEN: &str = "bW9uaXRvcjpjb3JyZWN0IGhvcnNlOiBiw6R0dMOrcnk=";

/// What all servers of this process were told, in order.
static TOLD: Mutex<Vec<(SocketAddr, String)>> = Mutex::new(Vec::new());

/// One that wants the login; the path says what it does besides.
fn server() -> SocketAddr {
    serve(|request, out| {
        let _sent = answer(request, out);
    })
}

fn authorization(request: &str) -> &str {
    let mut lines = request.lines();
    let line = lines.find(|line| line.to_ascii_lowercase().starts_with("authorization: "));
    line.map(|line| &line[15..]).unwrap_or_default()
}

fn answer(request: &str, out: &mut dyn Wire) -> std::io::Result<()> {
    let host = request.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    let told = authorization(request).to_owned();
    if let Ok(address) = host.parse() {
        TOLD.lock().expect("not poisoned").push((address, told.clone()));
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let (status, head, body) = match path {
        "/digest" => {
            ("401 X", "WWW-Authenticate: Digest realm=\"a\", nonce=\"b\"\r\n".to_owned(), "")
        }
        "/to" => ("302 X", format!("Location: {query}\r\n"), ""),
        "/repeat" => ("307 X", format!("Location: {query}\r\n"), ""),
        "/echo" => ("500 X", format!("X-Was: {told}\r\nLocation: /?{told}\r\n"), request),
        "/echo-ok" => ("200 X", format!("X-Was: {told}\r\n"), request),
        "/echo-to" => ("302 X", format!("Location: ftp://x/{told}\r\n"), ""),
        _ if told == format!("Basic {TOKEN}") => ("200 X", String::new(), "let in"),
        _ => ("401 X", "WWW-Authenticate: Basic realm=\"shop\"\r\n".to_owned(), "no"),
    };
    let length = body.len();
    write!(out, "HTTP/1.1 {status}\r\n{head}Content-Length: {length}\r\n\r\n{body}")
}

/// What a server was told, in the order it was asked.
fn told(server: SocketAddr) -> Vec<String> {
    let told = TOLD.lock().expect("not poisoned");
    told.iter().filter(|(asked, _)| *asked == server).map(|(_, text)| text.clone()).collect()
}

/// Probes as the scout does, with what the keeper read.
fn log_in(lines: &str, password: &str) -> Observation {
    let tools = Tools { password: Password::of_file(password), ..Tools::default() };
    let login = "user = \"monitor\"\npassword_file = \"/etc/heeler/shop.password\"";
    let seen = probe_by(&tools, &format!("type = \"http\"\n{lines}\n{login}"), LONG);
    let shown = format!("{seen:?} {tools:?}");
    for secret in [PASSWORD, TOKEN, "correct horse", &TOKEN[..12]] {
        assert!(!shown.contains(secret), "{shown}");
    }
    seen
}

#[test]
fn a_login_lets_in_and_a_wrong_one_is_told_in_words() {
    let url = format!("url = \"http://{}/\"\nbody = '^let in$'", server());
    assert_eq!(log_in(&url, PASSWORD).outcome, Outcome::Ok);
    let begins = "status 401 Unauthorized, wanted 2xx; it ";
    let why = failure(&log_in(&url, "stale"));
    let rest = why.strip_prefix(begins).expect("so it begins");
    assert_eq!(
        rest,
        "does not take user \"monitor\" with the password in /etc/heeler/shop.password: \
         was one of them changed?; the body begins with \"no\"; \
         the body does not match \"^let in$\": it begins with \"no\""
    );
    let why = failure(&probe(&format!("type = \"http\"\n{url}")));
    let words = format!("{begins}wants a login (`user` and `password_file`)");
    assert!(why.starts_with(&words), "{why}");
    let why = failure(&log_in(&url.replace("/\"", "/digest\""), PASSWORD));
    let words = format!("{begins}wants a login of another kind than Basic: \"Digest realm=");
    assert!(why.starts_with(&words), "{why}");
    // Where 401 is what is wanted, nothing is wrong.
    assert_eq!(
        log_in(&format!("url = \"http://{}/digest\"\nstatus = 401", server()), "x").outcome,
        Outcome::Ok
    );
    // The keeper did not say it.
    let lines =
        "type = \"http\"\nurl = \"http://127.0.0.1:9/\"\nuser = \"a\"\npassword_file = \"/p\"";
    assert!(ignorance(&probe(lines)).contains("came without its password"));
}

#[test]
fn nobody_else_is_told_it_wherever_a_redirect_leads() {
    let home = server();
    let follow = |from: &str, to: &str| {
        log_in(&format!("url = \"http://{home}{from}?{to}\"\nfollow = 5"), PASSWORD)
    };
    for from in ["/to", "/repeat"] {
        let other = server();
        // Within its own server it is told again.
        assert_eq!(follow(from, "/").outcome, Outcome::Ok);
        assert_eq!(follow(from, &format!("http://{home}/")).outcome, Outcome::Ok);
        let why = failure(&follow(from, &format!("http://{other}/")));
        let words = format!(
            "it was redirected to http://{other}, and the login is only for the server in `url`"
        );
        assert!(why.contains(&words), "{why}");
        assert_eq!(told(other), [""]);
        // Nor does it come back by way of another.
        let before = told(home).len();
        let why = failure(&follow(from, &format!("http://{other}/to?http://{home}/")));
        assert!(why.contains(&words), "{why}");
        assert_eq!(told(other), ["", ""]);
        assert_eq!(
            told(home)[before..].iter().map(String::len).collect::<Vec<_>>(),
            [TOKEN.len() + 6, 0]
        );
        // Another name of the same place is another place.
        let named = format!("http://localhost:{}/", home.port());
        assert!(failure(&follow(from, &named)).contains("is only for the server in `url`"));
    }
}

/// A page that shows what it was asked with would carry the password into logs and mails.
#[test]
fn a_server_that_says_it_back_is_not_quoted() {
    let server = server();
    let hidden = "something that is not shown, because the password is in it";
    let why = failure(&log_in(&format!("url = \"http://{server}/echo\""), PASSWORD));
    assert!(why.ends_with(&format!("the body begins with {hidden}")), "{why}");
    let url = format!("url = \"http://{server}/echo-ok\"");
    for (lines, before) in [
        ("body = 'needle'", "it begins with "),
        ("not_body = 'asic'", "(`not_body`): "),
        ("not_body = 'cnk='", "(`not_body`): "),
        ("header = { x-was = '^$' }", "it is "),
    ] {
        let why = failure(&log_in(&format!("{url}\n{lines}"), PASSWORD));
        assert!(why.ends_with(&format!("{before}{hidden}")), "{lines}: {why}");
    }
    let why = failure(&log_in(&format!("url = \"http://{server}/echo-to\"\nfollow = 1"), PASSWORD));
    assert!(
        why.starts_with(&format!("status 302 Found to {hidden}, which is not followed")),
        "{why}"
    );
    // Matching is as it always is.
    assert_eq!(log_in(&format!("{url}\nbody = '{TOKEN}'"), PASSWORD).outcome, Outcome::Ok);
}

#[test]
fn it_goes_over_tls_and_over_a_unix_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let (ca, path) = (dir.path().join("ca.pem"), dir.path().join("web.sock"));
    let authority = Authority::new("Own Authority", Dates::Valid);
    fs::write(&ca, authority.pem()).expect("written");
    let port = serve_tls(&authority.issue(&["localhost"], Dates::Valid)).port();
    let seen = log_in(&format!("url = \"https://localhost:{port}/\"\nca_file = {ca:?}"), PASSWORD);
    assert_eq!(seen.outcome, Outcome::Ok, "{seen:?}");
    let listener = UnixListener::bind(&path).expect("a socket");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let asked = request(&mut stream).unwrap_or_default();
            let _sent = answer(&asked, &mut stream);
        }
    });
    let unix = format!("url = \"http://shop.example/\"\nunix = {path:?}\nbody = 'let in'");
    assert_eq!(log_in(&unix, PASSWORD).outcome, Outcome::Ok);
    assert!(failure(&log_in(&unix, "stale")).contains("does not take user"));
}
