//! The bytes of a mail server on their way to lettre, which reads a line as long as it is: here they are
//! counted, and made ASCII, so that a server can neither fill the memory nor make an answer unreadable
//! (an unread "250" would be sent again and again).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::model::limits;

/// A connection, with words before the server's own first one. Each answer is bounded for itself.
pub(super) struct Wire<S> {
    stream: S,
    before: &'static [u8],
    left: usize,
}

impl<S> Wire<S> {
    pub(super) fn new(stream: S, before: &'static [u8]) -> Self {
        Self { stream, before, left: limits::MAIL_REPLY_BYTES_MAX }
    }
}

impl<S> fmt::Debug for Wire<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.before.is_empty() {
            let (now, later) = self.before.split_at(self.before.len().min(into.remaining()));
            into.put_slice(now);
            self.before = later;
            return Poll::Ready(Ok(()));
        }
        if self.left == 0 {
            let text = "the server says more than an answer may have";
            return Poll::Ready(Err(io::Error::other(text)));
        }
        let room = into.remaining().min(self.left);
        let mut part = ReadBuf::new(into.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut part))?;
        let fresh = part.filled_mut();
        for byte in &mut *fresh {
            if !byte.is_ascii() {
                *byte = b'?';
            }
        }
        let count = fresh.len();
        self.left -= count;
        into.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // What is said from here on answers this.
        self.left = limits::MAIL_REPLY_BYTES_MAX;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> AsyncTokioStream for Wire<S> {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        // lettre asks for it only where a caller does, and none does.
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }
}
