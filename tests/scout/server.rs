//! A small HTTP server: `/ok` answers, `/bad` answers 500, `/hang` accepts and never answers.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::house::House;

pub(crate) struct Server {
    port: u16,
    asked: Arc<AtomicU64>,
    moments: Arc<Mutex<Vec<(String, Instant)>>>,
}

impl Server {
    pub(crate) fn begin() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let (asked, moments) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (count, noted) = (Arc::clone(&asked), Arc::clone(&moments));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (count, noted) = (Arc::clone(&count), Arc::clone(&noted));
                let answer = move || {
                    let _closed_by_the_client = answer(stream, &count, &noted);
                };
                let small = std::thread::Builder::new().stack_size(64 << 10);
                small.spawn(answer).expect("a thread");
            }
        });
        Self { port, asked, moments }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// How many requests came so far.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// The longest pause between two requests for a path within a span of time.
    pub(crate) fn longest_pause(&self, path: &str, from: Instant, to: Instant) -> Duration {
        let moments = self.moments.lock().expect("not poisoned");
        let of_path = moments.iter().filter(|(asked, _)| asked == path).map(|(_, at)| *at);
        let within: Vec<_> = [from]
            .into_iter()
            .chain(of_path.filter(|at| *at > from && *at < to))
            .chain([to])
            .collect();
        within.windows(2).map(|pair| pair[1] - pair[0]).max().expect("there are two")
    }

    /// Defines a service that is only a check of a page.
    pub(crate) fn page(&self, house: &House, name: &str, path: &str, lines: &str) {
        let url = self.url(path);
        house.define(name, &format!("[[check]]\ntype = \"http\"\nurl = {url:?}\n{lines}\n"));
    }
}

fn answer(
    stream: TcpStream,
    count: &AtomicU64,
    noted: &Mutex<Vec<(String, Instant)>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    count.fetch_add(1, Ordering::Relaxed);
    noted.lock().expect("not poisoned").push((path.clone(), Instant::now()));
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let status = match path.as_str() {
        "/hang" => {
            // Until the client gives up.
            reader.read_line(&mut line)?;
            return Ok(());
        }
        "/bad" => "500 Internal Server Error",
        _ => "200 OK",
    };
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    reader.get_mut().write_all(answer.as_bytes())
}
