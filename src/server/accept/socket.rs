//! The socket of a connection, whatever its kind.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::server::TlsStream;

use super::{
    escape::Escaping,
    protocol::{BEGINNING_BYTES, Protocol},
};

/// A socket. One type for all, so that the code of a connection exists once.
#[derive(Debug)]
pub struct Socket {
    kind: Kind,
    first: First,
    /// Only of HTTP/1.1. In a box, because few connections have it.
    escaping: Option<Box<Escaped>>,
}

/// What escapes the targets of requests, and escaped bytes that were not read yet.
#[derive(Debug, Default)]
struct Escaped {
    escaping: Escaping,
    left: Vec<u8>,
    read: usize,
}

#[derive(Debug)]
enum Kind {
    Plain(TcpStream),
    Unix(UnixStream),
    /// In a box, because the state of TLS is large.
    Secure(Box<TlsStream<TcpStream>>),
}

/// Bytes that were read to find the protocol, until they are read again.
#[derive(Debug, Default)]
struct First {
    bytes: [u8; BEGINNING_BYTES],
    length: usize,
    read: usize,
}

impl First {
    fn left(&self) -> &[u8] {
        self.bytes.get(self.read..self.length).unwrap_or_default()
    }
}

macro_rules! each {
    ($self:ident, $socket:ident => $call:expr) => {
        match &mut $self.get_mut().kind {
            Kind::Plain($socket) => $call,
            Kind::Unix($socket) => $call,
            Kind::Secure($socket) => $call,
        }
    };
}

impl From<TcpStream> for Socket {
    fn from(socket: TcpStream) -> Self {
        Self { kind: Kind::Plain(socket), first: First::default(), escaping: None }
    }
}

impl From<UnixStream> for Socket {
    fn from(socket: UnixStream) -> Self {
        Self { kind: Kind::Unix(socket), first: First::default(), escaping: None }
    }
}

impl From<TlsStream<TcpStream>> for Socket {
    fn from(socket: TlsStream<TcpStream>) -> Self {
        Self { kind: Kind::Secure(Box::new(socket)), first: First::default(), escaping: None }
    }
}

impl Socket {
    /// Whether others on the way can read what is sent over it.
    pub fn is_plain_tcp(&self) -> bool {
        matches!(self.kind, Kind::Plain(_))
    }

    /// Waits for the first bytes of the client, if they are needed to find its protocol. They are read again later.
    ///
    /// # Errors
    /// The client has closed the connection.
    pub async fn protocol(&mut self) -> io::Result<Protocol> {
        if let Kind::Secure(socket) = &self.kind
            && let Some(agreed) = Protocol::agreed(socket.get_ref().1.alpn_protocol())
        {
            return Ok(agreed);
        }
        let mut first = First::default();
        loop {
            let room = first.bytes.get_mut(first.length..).unwrap_or_default();
            let read = self.read(room).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            first.length += read;
            if let Some(protocol) = Protocol::of(first.left()) {
                self.first = first;
                return Ok(protocol);
            }
        }
    }

    /// Escapes the targets of requests of HTTP/1.1 from now on.
    pub fn escape_targets(&mut self) {
        self.escaping = Some(Box::default());
    }

    fn poll_read_raw(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let left = self.first.left();
        if !left.is_empty() {
            let bytes = left.len().min(buffer.remaining());
            buffer.put_slice(left.get(..bytes).unwrap_or_default());
            self.first.read += bytes;
            return Poll::Ready(Ok(()));
        }
        match &mut self.kind {
            Kind::Plain(socket) => Pin::new(socket).poll_read(context, buffer),
            Kind::Unix(socket) => Pin::new(socket).poll_read(context, buffer),
            Kind::Secure(socket) => Pin::new(socket).poll_read(context, buffer),
        }
    }

    /// Closes the connection when its client acknowledges nothing, or has no room, for this long. Only for TCP: the other
    /// end of a socket in the file system is a process of this machine, whose end is noticed.
    pub fn close_after(&self, limit: Duration) -> io::Result<()> {
        let socket = match &self.kind {
            Kind::Plain(socket) => socket,
            Kind::Secure(socket) => socket.get_ref().0,
            Kind::Unix(_) => return Ok(()),
        };
        let millis = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        // 0 would be the default of the system.
        Ok(rustix::net::sockopt::set_tcp_user_timeout(socket, millis.max(1))?)
    }
}

impl Escaped {
    /// Reads bytes that are left. False if there are none.
    fn read(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let left = self.left.get(self.read..).unwrap_or_default();
        if left.is_empty() {
            return false;
        }
        let bytes = left.len().min(buffer.remaining());
        buffer.put_slice(left.get(..bytes).unwrap_or_default());
        self.read += bytes;
        if self.read == self.left.len() {
            (self.left, self.read) = (Vec::new(), 0);
        }
        true
    }

    /// Escapes the bytes of a buffer after the first ones.
    fn escape(&mut self, buffer: &mut ReadBuf<'_>, before: usize) {
        let new = buffer.filled().get(before..).unwrap_or_default();
        if let Some(escaped) = self.escaping.escape(new) {
            buffer.set_filled(before);
            self.left = escaped;
            self.read(buffer);
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.escaping.as_mut().is_some_and(|escaped| escaped.read(buffer)) {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(self.poll_read_raw(context, buffer))?;
        if let Some(escaped) = &mut self.escaping {
            escaped.escape(buffer, before);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, socket => Pin::new(socket).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, socket => Pin::new(socket).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, socket => Pin::new(socket).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, socket => Pin::new(socket).poll_shutdown(context))
    }
}
