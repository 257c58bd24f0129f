//! The scout's end of its socket, and the runtime it lives in.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::UnixStream;

use crate::model::limits;

/// Runs a loop until the keeper closes the socket (0), or says what cannot be understood (2).
/// `name_threads` is how many names may be resolved at once.
pub(super) fn run<F>(
    socket: OwnedFd,
    name_threads: usize,
    serve: impl FnOnce(Packets) -> F,
) -> ExitCode
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(name_threads)
        .thread_stack_size(NAME_STACK_BYTES)
        .thread_keep_alive(Duration::from_secs(1))
        .build();
    let result = runtime.and_then(|runtime| {
        // As a task of its own: waking it is then a matter of this thread, where waking the runtime's own
        // task would be a system call for each answer.
        let served = runtime.block_on(async { tokio::spawn(serve(Packets::of(socket)?)).await? });
        // A name that is still being resolved must not hold up the end.
        runtime.shutdown_background();
        served
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(2),
    }
}

/// getaddrinfo(3) and the modules of the name service need little more.
const NAME_STACK_BYTES: usize = 512 << 10;

/// Packets in and out.
pub(super) struct Packets {
    socket: UnixStream,
    buffer: Vec<u8>,
    answers: VecDeque<Vec<u8>>,
}

impl Packets {
    /// A SOCK_SEQPACKET socket, of which read(2) gives one packet and write(2) makes one (unix(7)).
    fn of(socket: OwnedFd) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixStream::from(socket);
        socket.set_nonblocking(true)?;
        let socket = UnixStream::from_std(socket)?;
        let buffer = vec![0; limits::SCOUT_PACKET_BYTES_MAX];
        Ok(Self { socket, buffer, answers: VecDeque::new() })
    }

    /// Puts an answer on its way; it goes while [`Packets::next`] is waited for.
    pub(super) fn answer(&mut self, packet: Vec<u8>) {
        self.answers.push_back(packet);
    }

    /// Puts something short on its way, together with what else waits there.
    pub(super) fn say(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        match self.answers.back_mut() {
            Some(last) if last.len() < TOGETHER_BYTES => write(last),
            Some(_) | None => {
                let mut packet = Vec::new();
                write(&mut packet);
                self.answers.push_back(packet);
            }
        }
    }

    /// The next packet; none once the keeper has closed the socket. To be given up at any moment without
    /// loss.
    ///
    /// # Errors
    /// As the socket says.
    pub(super) async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let length = loop {
            tokio::select! {
                ready = self.socket.readable() => {
                    ready?;
                    match self.socket.try_read(&mut self.buffer) {
                        Ok(length) => break length,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                }
                ready = self.socket.writable(), if !self.answers.is_empty() => {
                    ready?;
                    self.send()?;
                }
            }
        };
        Ok(self.buffer.get(..length).filter(|packet| !packet.is_empty()))
    }

    fn send(&mut self) -> io::Result<()> {
        while let Some(packet) = self.answers.front() {
            match self.socket.try_write(packet) {
                Ok(_) => drop(self.answers.pop_front()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A packet that has so many bytes goes as it is.
const TOGETHER_BYTES: usize = 16 << 10;
const _: () =
    assert!(TOGETHER_BYTES + 4 * limits::SCOUT_TEXT_BYTES_MAX < limits::SCOUT_PACKET_BYTES_MAX);

/// What a keeper never says.
pub(super) fn invalid(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why.to_owned())
}
