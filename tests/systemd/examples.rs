//! The examples of conf.d/examples beside the servers they are about, from Debian's packages: heeler starts
//! each, brings it back, reloads it and stops it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::host::{Host, can_boot};
use crate::shop::{lay_heeler, status, wait_held};
use crate::support::house::PATIENCE;
use crate::support::{Need, can_run, wait_for};

/// A server, and whether it answers.
struct Server {
    name: &'static str,
    text: &'static str,
    answers: fn(&Host) -> bool,
    /// How the titles of its processes begin.
    title: &'static str,
}

macro_rules! example {
    ($name:literal) => {
        include_str!(concat!("../../conf.d/examples/", $name, ".toml"))
    };
}

const SERVERS: [Server; 5] = [
    Server {
        name: "nginx",
        text: example!("nginx"),
        answers: |host| talk(host, 80, "GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200 OK"),
        title: "nginx: ",
    },
    Server {
        name: "php-fpm",
        text: example!("php-fpm"),
        answers: |host| UnixStream::connect(host.path("/run/php/php8.2-fpm.sock")).is_ok(),
        title: "php-fpm: ",
    },
    Server {
        name: "redis",
        text: example!("redis"),
        answers: |host| talk(host, 6379, "PING\r\nQUIT\r\n").starts_with("+PONG"),
        title: "/usr/bin/redis-server",
    },
    Server {
        name: "memcached",
        text: example!("memcached"),
        answers: |host| talk(host, 11211, "version\r\nquit\r\n").starts_with("VERSION"),
        title: "/usr/bin/memcached",
    },
    Server {
        name: "postgres",
        text: example!("postgres"),
        answers: |host| {
            let ask = "runuser -u postgres -- psql -Atc 'select 6*7'";
            host.exec(&["sh", "-c", ask]).stdout == b"42\n"
        },
        title: "postgres: |/usr/lib/postgresql",
    },
];

/// What a server of the host says; nothing where nobody listens.
fn talk(host: &Host, port: u16, say: &str) -> String {
    host.in_its_network(|| {
        let limit = Duration::from_secs(2);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut said = Vec::new();
        if let Ok(mut stream) = TcpStream::connect_timeout(&address, limit) {
            stream.set_read_timeout(Some(limit)).expect("is not zero");
            // One that dies meanwhile has said what it said.
            let _ended = stream.write_all(say.as_bytes());
            let _ended = stream.read_to_end(&mut said);
        }
        String::from_utf8_lossy(&said).into_owned()
    })
}

fn wait_answering(host: &Host, server: &Server) {
    wait_for(&format!("{} to answer", server.name), PATIENCE, || {
        (server.answers)(host).then_some(())
    });
}

/// How many processes of it there are.
fn count(host: &Host, server: &Server) -> usize {
    let output = host.exec(&["pgrep", "-f", &format!("^({})", server.title)]);
    String::from_utf8_lossy(&output.stdout).lines().count()
}

#[test]
fn servers_are_started_brought_back_reloaded_and_stopped() {
    let debian = [
        Need::Program("/usr/sbin/nginx", "nginx-light"),
        Need::Program("/usr/sbin/php-fpm8.2", "php8.2-fpm"),
        Need::Program("/usr/bin/redis-server", "redis-server"),
        Need::Program("/usr/bin/memcached", "memcached"),
        Need::Program("/usr/lib/postgresql/15/bin/postgres", "postgresql-15"),
        Need::Program("/usr/bin/pgrep", "procps"),
    ];
    if !can_boot() || !can_run(&debian) {
        return;
    }
    let mut host = Host::new();
    lay_heeler(&host, &SERVERS.map(|server| (server.name, server.text)));
    host.write("/etc/heeler/conf.d/heeler.toml", OFTEN);
    host.boot();
    for server in &SERVERS {
        live_through(&host, server);
    }
    for server in &SERVERS {
        all_checks_hold(&host, server);
    }
}

/// A large package, and slow: `HEELER_EXAMPLES=all cargo test --test systemd examples` (Debian's mariadb-server).
#[test]
fn mariadb_too_when_asked() {
    let asked = std::env::var_os("HEELER_EXAMPLES").is_some();
    if !asked || !can_boot() || !can_run(&[Need::Program("/usr/sbin/mariadbd", "mariadb-server")]) {
        return;
    }
    let server = Server {
        name: "mysql",
        text: example!("mysql"),
        answers: |host| host.exec(&["mariadb", "-BNe", "select 6*7"]).stdout == b"42\n",
        title: "/usr/sbin/mariadbd",
    };
    let mut host = Host::new();
    lay_heeler(&host, &[(server.name, server.text)]);
    host.boot();
    live_through(&host, &server);
    all_checks_hold(&host, &server);
}

/// Each a way to run an application of the user deploy.
const RUBY: [Server; 5] = [
    Server { name: "puma", text: example!("puma"), answers: says_ok, title: "puma" },
    Server { name: "puma-run", text: example!("puma-run"), answers: says_ok, title: "puma" },
    Server {
        name: "puma-systemd",
        text: example!("puma-systemd"),
        answers: says_ok,
        title: "puma",
    },
    Server {
        name: "unicorn",
        text: example!("unicorn"),
        answers: |host| {
            UnixStream::connect(host.path("/srv/shop/shared/tmp/sockets/unicorn.sock")).is_ok()
        },
        title: "unicorn (master|worker)",
    },
    Server {
        name: "sidekiq@1",
        text: example!("sidekiq@1"),
        answers: |host| {
            let ask = "redis-cli del pong >/dev/null; redis-cli lpush queue:default \
                       '{\"class\":\"Ping\",\"args\":[],\"jid\":\"1\",\"retry\":false}'; \
                       redis-cli blpop pong 2";
            host.exec(&["sh", "-c", ask]).stdout.ends_with(b"pong\nok\n")
        },
        title: "sidekiq ",
    },
];

fn says_ok(host: &Host) -> bool {
    let said = talk(host, 3000, "GET /up HTTP/1.0\r\nHost: shop\r\n\r\n");
    said.contains(" 200 OK") && said.ends_with("ok")
}

/// An application at /srv/shop that each of them can run.
fn lay_application(host: &Host) {
    let shared = "/srv/shop/shared/tmp";
    let puma = format!(
        "directory '/srv/shop/current'\nbind 'tcp://127.0.0.1:3000'\nworkers 2\n\
         pidfile '{shared}/pids/puma.pid'\nstate_path '{shared}/pids/puma.state'\n\
         state_permission 0o600\nactivate_control_app 'unix://{shared}/sockets/control.sock'\n"
    );
    let unicorn = format!(
        "working_directory '/srv/shop/current'\nlisten '{shared}/sockets/unicorn.sock'\n\
         pid '{shared}/pids/unicorn.pid'\nstderr_path 'log/unicorn.log'\n"
    );
    let ping = "class Ping\n  include Sidekiq::Worker\n  def perform\n    \
                Sidekiq.redis { |redis| redis.lpush('pong', 'ok') }\n  end\nend\n";
    for (name, text) in [
        ("Gemfile", "gem 'puma'\ngem 'unicorn'\ngem 'sidekiq'\n"),
        ("config.ru", "run(->(_) { [200, { 'content-type' => 'text/plain' }, ['ok']] })\n"),
        ("config/puma.rb", &puma),
        ("config/unicorn.rb", &unicorn),
        ("config/sidekiq.yml", ":require: ./ping.rb\n:concurrency: 2\n"),
        ("ping.rb", ping),
        ("log/puma.log", ""),
    ] {
        host.write(&format!("/srv/shop/releases/1/{name}"), text);
    }
    host.link("releases/1", "/srv/shop/current");
    for below in ["pids", "sockets"] {
        host.write(&format!("{shared}/{below}/.keep"), "");
    }
    let unit = "/home/deploy/.config/systemd/user/puma-shop.service";
    host.write_deploys(unit, &unit_in(example!("puma-systemd")));
}

/// The unit that the example shows in its comment.
fn unit_in(example: &str) -> String {
    let lines = example.lines().filter_map(|line| line.strip_prefix("#   "));
    let unit: Vec<_> = lines.skip_while(|line| *line != "[Service]").collect();
    let end = unit.iter().position(|line| line.starts_with("heeler")).unwrap_or(unit.len());
    unit[..end].join("\n") + "\n"
}

#[test]
fn an_application_is_run_in_each_of_the_ways_shown() {
    let debian = [
        Need::Program("/usr/bin/bundle", "bundler"),
        Need::Program("/usr/bin/unicorn", "unicorn"),
        Need::Program("/usr/bin/sidekiq", "ruby-sidekiq"),
        Need::Program("/usr/bin/redis-server", "redis-server"),
        Need::Program("/usr/bin/pgrep", "procps"),
    ];
    if !can_boot() || !can_run(&debian) {
        return;
    }
    for server in &RUBY {
        let mut host = Host::new();
        lay_application(&host);
        lay_heeler(&host, &[(server.name, server.text), ("redis", example!("redis"))]);
        host.write("/etc/heeler/conf.d/heeler.toml", OFTEN);
        host.own_by_deploy("/srv/shop");
        host.boot();
        live_through(&host, server);
        all_checks_hold(&host, server);
    }
}

/// Looks often, so that a test is short.
const OFTEN: &str = "[defaults]\nevery = \"1s\"\n";

/// heeler starts it at boot; it is killed and comes back; it is reloaded, stopped, started.
fn live_through(host: &Host, server: &Server) {
    let name = server.name;
    let first = wait_held(host, name, None);
    wait_answering(host, server);

    host.shell(&format!("kill -9 {first}"));
    let began = Instant::now();
    let second = wait_held(host, name, Some(first));
    wait_answering(host, server);
    println!("MEASURED {name}: answers {:.2} s after kill -9", began.elapsed().as_secs_f64());

    if ["unit = ", "unit    = ", "reload"].iter().any(|key| server.text.contains(key)) {
        let (code, out, err) = host.heeler(&["reload", name]);
        assert_eq!(code, 0, "{name}: {out}{err}");
        wait_answering(host, server);
    }
    let began = Instant::now();
    let (code, out, err) = host.heeler(&["stop", name]);
    println!("MEASURED {name}: stopped in {:.2} s", began.elapsed().as_secs_f64());
    assert_eq!(code, 0, "{name}: {out}{err}");
    assert_eq!((count(host, server), (server.answers)(host)), (0, false), "{name}");

    let (code, out, err) = host.heeler(&["start", name]);
    assert_eq!(code, 0, "{name}: {out}{err}");
    wait_answering(host, server);
    let third = wait_held(host, name, Some(second));
    assert!(count(host, server) > 0 && third != second);
}

/// Everything that the example checks was looked at, and holds.
fn all_checks_hold(host: &Host, server: &Server) {
    wait_for(&format!("the checks of {}", server.name), PATIENCE, || {
        let found = status(host, server.name);
        // Puma 5.6 gives its state file to everybody, whatever its configuration says; that is told.
        let exposed = |wrong: &serde_json::Value| {
            wrong.as_str().is_some_and(|text| text.starts_with("everybody can read the state file"))
        };
        let wrong = found["wrong"].as_array()?;
        let well = found["health"] == "good" || !wrong.is_empty() && wrong.iter().all(exposed);
        let holds = |check: &serde_json::Value| {
            let looked = check["text"].as_str().is_some_and(|text| text.contains('('));
            assert!(check["state"] == "ok" && well, "{found}");
            looked
        };
        let checks = found["checks"].as_array()?;
        (!checks.is_empty() && checks.iter().all(holds)).then_some(())
    });
}
