//! Passwords that checks log in with: read for each probe, and nowhere else to be found.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::cage::wait_scout;
use crate::neighbours::Dead;
use crate::support::house::{House, pids, signal};
use crate::support::{HEELER, Need, can_run};

/// By base64(1): `monitor:` and each of them.
const LOGINS: [(&str, &str); 2] = [
    ("Zaunkoenig-eins", "bW9uaXRvcjpaYXVua29lbmlnLWVpbnM="),
    ("Zaunkoenig-zwei", "bW9uaXRvcjpaYXVua29lbmlnLXp3ZWk="),
];

/// A server that lets in who says the token of now, and says everything back.
struct Gate {
    port: u16,
    token: Arc<Mutex<&'static str>>,
}

impl Gate {
    fn begin() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let token = Arc::new(Mutex::new(LOGINS[0].1));
        let wanted = Arc::clone(&token);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _closed_by_the_client = answer(stream, *wanted.lock().expect("not poisoned"));
            }
        });
        Self { port, token }
    }

    fn wants(&self, login: usize) {
        *self.token.lock().expect("not poisoned") = LOGINS[login].1;
    }

    fn check(&self, file: &Path, lines: &str) -> String {
        format!(
            "[[check]]\nname = \"page\"\ntype = \"http\"\nurl = \"http://127.0.0.1:{}/\"\n\
             user = \"monitor\"\npassword_file = {file:?}\nevery = \"200ms\"\ntimeout = \"2s\"\n{lines}\n",
            self.port
        )
    }
}

fn answer(stream: TcpStream, token: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut line) = (String::new(), String::new());
    while reader.read_line(&mut line)? > 2 {
        head.push_str(&line);
        line.clear();
    }
    let good = head.contains(&format!("uthorization: Basic {token}\r\n"));
    let status = if good { "200 OK" } else { "401 Unauthorized" };
    let length = head.len();
    let answer =
        format!("HTTP/1.1 {status}\r\nX-Was: {head:?}\r\nContent-Length: {length}\r\n\r\n{head}");
    reader.get_mut().write_all(answer.as_bytes())
}

fn keep(house: &House, text: &str, mode: u32) {
    let path = house.path("shop.password");
    let new = house.path("shop.password.new");
    fs::write(&new, text).expect("written");
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).expect("chmod");
    fs::rename(new, path).expect("renamed");
}

/// Every file below a directory, whatever is in it.
fn files(dir: &Path, all: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(dir).expect("there").flatten() {
        let kind = entry.file_type().expect("there");
        if kind.is_dir() {
            files(&entry.path(), all);
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).unwrap_or_default();
            all.push((entry.path().display().to_string(), bytes));
        }
    }
}

#[test]
fn a_password_is_read_for_each_probe_and_is_nowhere_to_be_found() {
    let gate = Gate::begin();
    let mut house = House::new("");
    let file = house.path("shop.password");
    keep(&house, &format!("{}\n", LOGINS[0].0), 0o600);
    // One that restarts at its first failure, and one that is told back what it said and complains of it.
    let shop = gate.check(&file, "then = \"restart\"");
    house.daemon(
        "shop",
        "",
        &format!("start_period = \"100ms\"\nstart_limit = \"100 per 1m\"\n{shop}"),
    );
    house.define("echo", &gate.check(&file, "body = 'needle'\nheader = { x-was = '^$' }"));
    house.open();
    let pid = house.wait_up("shop", None);
    house.wait_check("shop", "page", "ok", "200 OK");
    house.wait_check("echo", "page", "firing", "not shown, because the password is in it");

    // The other one from now on; nobody says so to heeler.
    gate.wants(1);
    house.wait_check(
        "echo",
        "page",
        "firing",
        "does not take user \"monitor\" with the password in ",
    );
    house.wait_up("shop", Some(pid));
    keep(&house, LOGINS[1].0, 0o600);
    house.wait_check("echo", "page", "firing", "not shown, because");
    house.wait_check("shop", "page", "ok", "200 OK");
    let pid = house.wait_up("shop", None);
    // Whoever replaces the scout is told it, too.
    signal(wait_scout(&house, None), "KILL");
    house.wait_check("shop", "page", "ok", "200 OK");

    // What is wrong with the file is nobody's failure, but heeler's ignorance.
    let both = format!("{}\n{}\n", LOGINS[0].0, LOGINS[1].0);
    let long = LOGINS[0].0.repeat(1000);
    for (text, mode, words) in [
        (LOGINS[1].0, 0o644, "is not used: others may read it (mode 0644); `chmod 600 "),
        (LOGINS[1].0, 0o622, "is writable by everybody"),
        ("\n", 0o600, "is empty: it holds the password and nothing else"),
        (&both, 0o600, "is not one line, or has control characters in it"),
        (&long, 0o600, "is longer than 4096 bytes"),
    ] {
        keep(&house, text, mode);
        let seen = house.wait_check("shop", "page", "ok", words);
        assert!(seen.contains("the password_file /"), "{seen}");
        let output = Command::new(HEELER).arg("validate").arg(house.path("conf.d")).output();
        let output = output.expect("heeler runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(words), "{said}");
    }
    fs::remove_file(&file).expect("removed");
    house.wait_check("shop", "page", "ok", "No such file or directory");
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRUSR).expect("a pipe");
    house.wait_check("shop", "page", "ok", "is not a regular file");
    keep(&house, LOGINS[1].0, 0o600);
    house.wait_check("shop", "page", "ok", "200 OK");
    assert_eq!(house.wait_up("shop", None), pid, "nothing was done about that");

    let mut said = Vec::new();
    for args in [
        &["status", "--json"][..],
        &["status"],
        &["why", "shop"],
        &["why", "echo", "--json"],
        &["events", "--json"],
        &["probe", "shop"],
        &["probe", "echo", "--json"],
        &["plan"],
        &["env", "shop"],
        &["validate", house.path("conf.d").to_str().expect("text")],
        &["doctor", house.path("conf.d").to_str().expect("text")],
    ] {
        let (code, out, err) = house.heeler(args);
        assert!(out.len() + err.len() > 0, "{args:?} said nothing ({code})");
        said.push((args.join(" "), (out + &err).into_bytes()));
    }
    let own: BTreeSet<_> =
        [Some(house.keeper()), Some(wait_scout(&house, None)), house.pid("shop")]
            .into_iter()
            .flatten()
            .collect();
    for pid in pids() {
        let read = |what: &str| fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
        // This test has them in its program, not in its command line.
        said.push((format!("cmdline of {pid}"), read("cmdline")));
        if own.contains(&pid) {
            said.push((format!("environ of {pid}"), read("environ")));
        }
    }
    // Also what a stop writes.
    assert_eq!(house.close(), Some(0));
    files(&house.path(""), &mut said);
    assert!(said.iter().any(|(name, _)| name.ends_with("/log")));
    assert!(said.iter().any(|(name, _)| name.contains("/state/")), "nothing was kept");
    assert!(house.mails().len() > 1, "nothing was mailed");
    for (name, bytes) in said.iter().filter(|(name, _)| !name.ends_with("/shop.password")) {
        for secret in
            LOGINS.iter().flat_map(|(password, token)| [*password, *token, &token[12..28]])
        {
            let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found, "{secret} is in {name}:\n{}", String::from_utf8_lossy(bytes));
        }
    }
}

#[test]
fn a_password_on_a_dead_file_system_holds_up_nobody_else() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let gate = Gate::begin();
    let mut house = House::new("");
    keep(&house, LOGINS[0].0, 0o600);
    let dead = Dead::make(&house).expect("a dead file system (root, /dev/fuse)");
    for n in 0..20 {
        house.define(&format!("dead{n}"), &gate.check(&dead.at.join("password"), ""));
    }
    house.define("well", &gate.check(&house.path("shop.password"), ""));
    house.open();
    for n in 0..20 {
        house.wait_check(&format!("dead{n}"), "page", "ok", "was not read in time: does its file");
    }
    house.wait_check("well", "page", "ok", "200 OK");
    // All of them wait for one reading.
    let tasks = fs::read_dir(format!("/proc/{}/task", house.keeper())).expect("it lives");
    let pool = tasks.flatten().filter(|task| {
        fs::read_to_string(task.path().join("comm"))
            .is_ok_and(|name| name.starts_with("heeler-files"))
    });
    assert!(pool.count() <= 4);
    // Who is asked meanwhile is answered, and where the file is another one it counts at once.
    house.define("dead0", &gate.check(&house.path("shop.password"), ""));
    house.reload_well();
    house.wait_check("dead0", "page", "ok", "200 OK");
    assert_eq!(house.close(), Some(0));
}
