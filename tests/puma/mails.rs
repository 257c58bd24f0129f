//! The mails of four troubles, as a real mail server with STARTTLS and a login gets them. They are printed
//! whole: `cargo test --test puma mails:: -- --nocapture`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use crate::server::{Manners, Papers, Received, Server};
use crate::shop::{Shop, Way, ask_for, freeze, workers};
use crate::support::house::{House, PATIENCE, signal};
use crate::support::{Need, can_run, wait_for};
use crate::world::world;

const ALERT: &str = "alert = [\"ops@example.com\"]\n";
const PAGE: &str = "
[[check]]
name = \"page\"
type = \"http\"
url = \"http://127.0.0.1:9292/page\"
body = \"^ok$\"
timeout = \"1s\"
for = \"3 of 5\"
then = \"restart\"
";
const MEMORY: &str = "
[[check]]
type = \"process\"
if = \"memory > 150MiB\"
for = \"2 of 3\"
then = \"restart\"
";

#[test]
fn of_a_wrong_page() {
    world(|| {
        let (server, mut shop) = posted(PAGE);
        shop.open();
        ask_for("/break");
        let text = arrives(&server, "shop: over after");
        for words in ["3 of 5", "out of order", "does not match \"^ok$\"", "heeler why shop"] {
            assert!(text.contains(words), "{words}: {text}");
        }
    });
}

#[test]
fn of_a_master_that_is_stopped() {
    world(|| {
        let (server, mut shop) = posted(PAGE);
        let first = shop.open();
        freeze(first.master);
        workers(first.master).into_iter().for_each(freeze);
        let text = arrives(&server, "shop: over after");
        for words in ["3 of 5", "accepts connections but did not answer within 1s"] {
            assert!(text.contains(words), "{words}: {text}");
        }
    });
}

#[test]
fn of_too_much_memory() {
    world(|| {
        let (server, mut shop) = posted(MEMORY);
        shop.open();
        ask_for("/leak?mb=200");
        let text = arrives(&server, "shop: over after");
        assert!(text.contains("> 150 MiB, 2 of 3"), "{text}");
    });
}

#[test]
fn of_a_certificate_that_expires_on_a_real_nginx() {
    let needs = [
        Need::Program("/usr/sbin/nginx", "nginx-light"),
        Need::Program("/usr/bin/openssl", "openssl"),
    ];
    if !can_run(&needs) {
        return;
    }
    let mut house = House::new("");
    let server = post(&house);
    let dir = house.path("");
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "10",
            "-subj",
            "/CN=localhost",
        ])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-keyout", "nginx.key", "-out", "nginx.pem"])
        .current_dir(&dir)
        .stderr(Stdio::null())
        .status();
    assert!(made.expect("openssl").success());
    // A port that is free now; nobody else of this test asks for one.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("bound")
        .port();
    let d = dir.display();
    house.write(
        "nginx.conf",
        &format!(
            "daemon off; pid {d}nginx.pid; error_log {d}nginx.log;\nevents {{ }}\nhttp {{ access_log off;\n\
             client_body_temp_path {d}tmp1; proxy_temp_path {d}tmp2; fastcgi_temp_path {d}tmp3;\n\
             uwsgi_temp_path {d}tmp4; scgi_temp_path {d}tmp5;\n\
             server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {d}nginx.pem;\n\
             ssl_certificate_key {d}nginx.key;\n\
             location / {{ return 200 'ok'; }} }} }}\n"
        ),
    );
    let conf = house.path("nginx.conf");
    let _nginx = Nginx(
        Command::new("nginx").arg("-c").arg(conf).stderr(Stdio::null()).spawn().expect("nginx"),
    );
    wait_for("nginx", PATIENCE, || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    let ca = house.path("nginx.pem");
    let check = format!(
        "every = \"1s\"\n{ALERT}[[check]]\nname = \"certificate\"\ntype = \"certificate\"\nhost = \"localhost\"\n\
         port = {port}\nca_file = {ca:?}\nif = \"failed or expires_in < 14d\"\n"
    );
    house.define("nginx", &check);
    house.open();
    let text = arrives(&server, "nginx: failed");
    for words in ["< 14d", "localhost", "heeler goes on checking: it has no process"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // Within the second in which it was made it has all of its ten days.
    assert!(text.contains("expires_in (9d23h") || text.contains("expires_in (10d)"), "{text}");
}

/// An nginx in the foreground; its workers go with it.
struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        signal(self.0.id(), "TERM");
        let _ended = self.0.wait();
    }
}

/// A shop whose alerts go out by a mail server.
fn posted(check: &str) -> (Server, Shop) {
    let shop = Shop::new(Way::Background, &format!("{ALERT}{check}"));
    (post(&shop.house), shop)
}

/// A mail server that wants TLS and a login, and a house that knows both.
fn post(house: &House) -> Server {
    let papers = Papers::new();
    let server =
        Server::start(&papers, false, Manners { auth: "PLAIN LOGIN", ..Manners::default() });
    let own = fs::read_to_string(house.path("conf.d/heeler.toml")).expect("reads");
    let (password, ca, port) = (house.path("password"), house.path("ca.pem"), server.port);
    let mail = format!(
        "[mail]\nfrom = \"heeler@web1.example.com\"\nservers = [{{ host = \"localhost\", port = {port}, \
         user = \"alert\", password_file = {password:?}, ca_file = {ca:?} }}]\n"
    );
    house.write("conf.d/heeler.toml", &format!("{own}hostname = \"web1.example.com\"\n{mail}"));
    house.write("ca.pem", &papers.authority);
    house.write("password", "geheim\n");
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).expect("chmod");
    server
}

/// The first mail with these words in its subject, with its lines put together again.
fn arrives(server: &Server, subject: &str) -> String {
    let has = |mail: &Received| mail.header("Subject").is_some_and(|text| text.contains(subject));
    let mail = wait_for(&format!("a mail with {subject:?}"), PATIENCE * 2, || {
        server.mails().into_iter().find(has)
    });
    for mail in server.mails() {
        let login = mail.login.as_ref().map(|(user, _)| user);
        println!(
            "----- to {:?}, encrypted {}, login {login:?}\n{}",
            mail.to, mail.encrypted, mail.raw
        );
    }
    assert!(mail.encrypted && mail.login == Some(("alert".to_owned(), "geheim".to_owned())));
    assert_eq!(
        (mail.to.as_slice(), mail.from.as_str()),
        (&["ops@example.com".to_owned()][..], "heeler@web1.example.com")
    );
    mail.text().split_whitespace().collect::<Vec<_>>().join(" ")
}
