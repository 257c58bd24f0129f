//! What the child tells its shim on its way to the exec: each step as it begins, and a failure.

use std::fs::File;
use std::io::{self, Read, Write};

use crate::model::limits::UNTRUSTED_BYTES_MAX;

/// A step, in words that follow "failed to".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// By the shim.
    MakeProcess,
    /// By the shim.
    RecordProcess,
    WaitAtGate,
    EnterGroup,
    FindUser,
    ResetSignals,
    BeginSession,
    ResetLimits,
    CloseDescriptors,
    SeparateKeys,
    BecomeUser,
    ProveUser,
    BuildEnvironment,
    ChangeDirectory,
    FindProgram,
    Execute,
}

impl Stage {
    const ALL: [Self; 16] = [
        Self::MakeProcess,
        Self::RecordProcess,
        Self::WaitAtGate,
        Self::EnterGroup,
        Self::FindUser,
        Self::ResetSignals,
        Self::BeginSession,
        Self::ResetLimits,
        Self::CloseDescriptors,
        Self::SeparateKeys,
        Self::BecomeUser,
        Self::ProveUser,
        Self::BuildEnvironment,
        Self::ChangeDirectory,
        Self::FindProgram,
        Self::Execute,
    ];

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::MakeProcess => "make a process",
            Self::RecordProcess => "record the process",
            Self::WaitAtGate => "begin",
            Self::EnterGroup => "enter its control group",
            Self::FindUser => "find the user",
            Self::ResetSignals => "reset the signals",
            Self::BeginSession => "begin a session",
            Self::ResetLimits => "reset the limits",
            Self::CloseDescriptors => "close inherited files",
            Self::SeparateKeys => "separate the keyrings",
            Self::BecomeUser => "become the user",
            Self::ProveUser => "prove to be the user",
            Self::BuildEnvironment => "build the environment",
            Self::ChangeDirectory => "change directory",
            Self::FindProgram => "find the program",
            Self::Execute => "execute",
        }
    }
}

/// One thing the child says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Message {
    /// This step begins.
    Stage(Stage),
    /// Worth telling however it ends.
    Note(String),
    /// Worth telling if the command fails.
    Hint(String),
    /// The step that began last failed: nothing is executed.
    Failed(String),
}

impl Message {
    /// Writes it in one piece (pipe(7): up to PIPE_BUF is atomic).
    pub(super) fn send(&self, mut report: &File) -> io::Result<()> {
        let stage;
        let (tag, text) = match self {
            Self::Stage(at) => {
                let at = Stage::ALL.iter().position(|all| all == at).unwrap_or_default();
                stage = [u8::try_from(at).unwrap_or_default()];
                (b'S', &stage[..])
            }
            Self::Note(text) => (b'N', text.as_bytes()),
            Self::Hint(text) => (b'H', text.as_bytes()),
            Self::Failed(text) => (b'F', text.as_bytes()),
        };
        let text = &text[..text.len().min(UNTRUSTED_BYTES_MAX)];
        let length = u16::try_from(text.len()).unwrap_or_default().to_le_bytes();
        report.write_all(&[&[tag], &length[..], text].concat())
    }
}

/// The shim's end: a non-blocking pipe, read as it comes.
pub(super) struct Reader {
    pipe: File,
    pending: Vec<u8>,
}

impl Reader {
    pub(super) fn new(pipe: File) -> Self {
        Self { pipe, pending: Vec::new() }
    }

    pub(super) fn pipe(&self) -> &File {
        &self.pipe
    }

    /// What was said since the last call, and whether that was all there will be.
    pub(super) fn read(&mut self) -> (Vec<Message>, bool) {
        let mut chunk = [0; 4096];
        let over = loop {
            match (&self.pipe).read(&mut chunk) {
                Ok(0) => break true,
                Ok(read) => self.pending.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error.kind() != io::ErrorKind::WouldBlock,
            }
        };
        let mut messages = Vec::new();
        while let Some((message, used)) = first(&self.pending) {
            self.pending.drain(..used);
            messages.extend(message);
        }
        (messages, over)
    }
}

/// The first message, if it is there as a whole, and its length. `None` inside: not one we know.
fn first(bytes: &[u8]) -> Option<(Option<Message>, usize)> {
    let (header, rest) = bytes.split_first_chunk::<3>()?;
    let length = usize::from(u16::from_le_bytes([header[1], header[2]]));
    let body = rest.get(..length)?;
    let text = || String::from_utf8_lossy(body).into_owned();
    let message = match header[0] {
        b'S' => {
            body.first().and_then(|at| Stage::ALL.get(usize::from(*at))).map(|s| Message::Stage(*s))
        }
        b'N' => Some(Message::Note(text())),
        b'H' => Some(Message::Hint(text())),
        b'F' => Some(Message::Failed(text())),
        _ => None,
    };
    Some((message, 3 + length))
}
