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
    /// What all of its processes are called.
    comm: &'static str,
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
        comm: "nginx",
    },
    Server {
        name: "php-fpm",
        text: example!("php-fpm"),
        answers: |host| UnixStream::connect(host.path("/run/php/php8.2-fpm.sock")).is_ok(),
        comm: "php-fpm8.2",
    },
    Server {
        name: "redis",
        text: example!("redis"),
        answers: |host| talk(host, 6379, "PING\r\nQUIT\r\n").starts_with("+PONG"),
        comm: "redis-server",
    },
    Server {
        name: "memcached",
        text: example!("memcached"),
        answers: |host| talk(host, 11211, "version\r\nquit\r\n").starts_with("VERSION"),
        comm: "memcached",
    },
    Server {
        name: "postgres",
        text: example!("postgres"),
        answers: |host| {
            let ask = "runuser -u postgres -- psql -Atc 'select 6*7'";
            host.exec(&["sh", "-c", ask]).stdout == b"42\n"
        },
        comm: "postgres",
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
    let output = host.exec(&["pgrep", "-x", server.comm]);
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
    host.boot();
    for server in &SERVERS {
        let name = server.name;
        let first = wait_held(&host, name, None);
        wait_answering(&host, server);

        host.shell(&format!("kill -9 {first}"));
        let began = Instant::now();
        let second = wait_held(&host, name, Some(first));
        wait_answering(&host, server);
        println!("MEASURED {name}: answers {:.2} s after kill -9", began.elapsed().as_secs_f64());

        if server.text.contains("manager = \"system\"") {
            let (code, out, err) = host.heeler(&["reload", name]);
            assert_eq!(code, 0, "{name}: {out}{err}");
            wait_answering(&host, server);
        }
        let began = Instant::now();
        let (code, out, err) = host.heeler(&["stop", name]);
        println!("MEASURED {name}: stopped in {:.2} s", began.elapsed().as_secs_f64());
        assert_eq!(code, 0, "{name}: {out}{err}");
        assert_eq!((count(&host, server), (server.answers)(&host)), (0, false), "{name}");

        let (code, out, err) = host.heeler(&["start", name]);
        assert_eq!(code, 0, "{name}: {out}{err}");
        wait_answering(&host, server);
        let third = wait_held(&host, name, Some(second));
        assert!(count(&host, server) > 0 && third != second);
    }
    // And everything that the examples check was looked at, and holds.
    for server in &SERVERS {
        wait_for(&format!("the checks of {}", server.name), PATIENCE, || {
            let found = status(&host, server.name);
            let holds = |check: &serde_json::Value| {
                let looked = check["text"].as_str().is_some_and(|text| text.contains('('));
                assert!(check["state"] == "ok" && found["health"] == "good", "{found}");
                looked
            };
            let checks = found["checks"].as_array()?;
            (!checks.is_empty() && checks.iter().all(holds)).then_some(())
        });
    }
}
