//! The output of a connection, collected: what all its streams give in one turn leaves in one write.
//!
//! h2 writes and flushes after each frame of more than a few hundred bytes, and a write to a socket costs more than all the
//! work before it. So [`Collecting`] keeps small writes and ignores flushes, and the task of the connection sends what was
//! kept at the end of its turn. A large write is not kept: it leaves at once, together with what was kept before it.
//!
//! While the socket takes nothing, the output takes nothing either once something is kept: a client that reads nothing
//! costs at most [`ROOM`].

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most bytes that are kept.
const ROOM: usize = 64 * 1024;

/// A buffer up to this size is kept for the next turn; a larger one is freed, so that an idle connection is small.
const KEPT_BUFFER: usize = 512;

/// A buffer that is freed after the turn grows by at least this, so that it is not copied for each item of many streams.
const GROWTH: usize = 8 * 1024;

/// The socket as hyper sees it.
#[derive(Debug)]
pub struct Collecting<T>(Arc<Mutex<Inner<T>>>);

/// The same socket, as the task of the connection sees it.
#[derive(Debug)]
pub struct Output<T>(Arc<Mutex<Inner<T>>>);

#[derive(Debug)]
struct Inner<T> {
    socket: T,
    kept: Vec<u8>,
    /// How many bytes at the start of `kept` were sent.
    sent: usize,
    /// The socket had no room for the bytes that are kept.
    is_full: bool,
}

/// Both sides of a socket.
pub fn collect<T>(socket: T) -> (Collecting<T>, Output<T>) {
    let inner = Arc::new(Mutex::new(Inner { socket, kept: Vec::new(), sent: 0, is_full: false }));
    (Collecting(inner.clone()), Output(inner))
}

fn lock<T>(inner: &Mutex<Inner<T>>) -> MutexGuard<'_, Inner<T>> {
    // Both sides belong to one task, which ends when it panics.
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: AsyncWrite + Unpin> Output<T> {
    /// Sends what was kept.
    pub fn poll_send(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).poll_send(context)
    }

    /// The bytes that are kept.
    pub fn pending(&self) -> usize {
        lock(&self.0).pending().len()
    }

    #[cfg(test)]
    pub fn with_socket<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        read(&lock(&self.0).socket)
    }
}

impl<T: AsyncWrite + Unpin> Inner<T> {
    fn pending(&self) -> &[u8] {
        self.kept.get(self.sent..).unwrap_or_default()
    }

    fn keep(&mut self, slices: &[IoSlice<'_>], bytes: usize) {
        let grows = self.kept.len() + bytes > self.kept.capacity().max(KEPT_BUFFER);
        self.kept.reserve(if grows { bytes.max(GROWTH) } else { bytes });
        for slice in slices {
            self.kept.extend_from_slice(slice);
        }
    }

    /// Records that bytes of those that are kept were sent.
    fn advance(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent < self.kept.len() {
            return;
        }
        (self.sent, self.is_full) = (0, false);
        if self.kept.capacity() > KEPT_BUFFER {
            self.kept = Vec::new();
        } else {
            self.kept.clear();
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending().is_empty() {
            self.is_full = true;
            let Self { socket, kept, sent, .. } = self;
            let pending = kept.get(*sent..).unwrap_or_default();
            let written = ready!(Pin::new(socket).poll_write(context, pending))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        // TLS may have encrypted more than the socket took.
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_write(&mut self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let bytes = slices.iter().map(|slice| slice.len()).sum::<usize>();
        if self.is_full || self.pending().len() + bytes > ROOM {
            ready!(self.poll_send(context))?;
        }
        if bytes > ROOM {
            return Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        }
        self.keep(slices, bytes);
        Poll::Ready(Ok(bytes))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Collecting<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_write(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_write(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        ready!(inner.poll_send(context))?;
        Pin::new(&mut inner.socket).poll_shutdown(context)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Collecting<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).socket).poll_read(context, buffer)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A socket that takes a number of bytes, and counts the writes that it took.
    #[derive(Debug, Default)]
    struct Socket {
        room: usize,
        taken: Vec<u8>,
        writes: usize,
    }

    impl AsyncWrite for Socket {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let bytes = bytes.get(..bytes.len().min(self.room)).unwrap();
            if bytes.is_empty() {
                return Poll::Pending;
            }
            self.room -= bytes.len();
            self.writes += 1;
            self.taken.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn write(socket: &mut Collecting<Socket>, bytes: &[u8]) -> Option<usize> {
        let slices = [IoSlice::new(bytes)];
        let context = &mut Context::from_waker(Waker::noop());
        match Pin::new(socket).poll_write_vectored(context, &slices) {
            Poll::Ready(written) => Some(written.unwrap()),
            Poll::Pending => None,
        }
    }

    fn send(output: &Output<Socket>) -> bool {
        let sent = output.poll_send(&mut Context::from_waker(Waker::noop()));
        assert!(!matches!(sent, Poll::Ready(Err(_))));
        sent.is_ready()
    }

    #[test]
    fn many_small_writes_leave_in_one_and_a_flush_sends_nothing() {
        let (mut socket, output) = collect(Socket { room: usize::MAX, ..Socket::default() });
        for n in 0..100 {
            assert_eq!(write(&mut socket, &[n; 300]), Some(300));
            let context = &mut Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut socket).poll_flush(context).is_ready());
        }
        assert_eq!(lock(&output.0).socket.writes, 0);
        assert!(send(&output) && send(&output));
        let inner = lock(&output.0);
        let expected = (0..100).flat_map(|n| [n; 300]).collect::<Vec<_>>();
        assert_eq!((inner.socket.writes, &inner.socket.taken), (1, &expected));
        assert!(inner.kept.capacity() <= KEPT_BUFFER, "an idle connection holds little");
    }

    #[test]
    fn a_socket_without_room_takes_nothing_more_and_loses_nothing() {
        let (mut socket, output) = collect(Socket { room: 100, ..Socket::default() });
        assert_eq!(write(&mut socket, &[1; 250]), Some(250));
        assert!(!send(&output));
        assert_eq!(write(&mut socket, &[2; 10]), None);
        lock(&output.0).socket.room = 150;
        assert_eq!(write(&mut socket, &[2; 10]), Some(10), "what was kept has left");
        lock(&output.0).socket.room = 1_000_000;
        assert_eq!(write(&mut socket, &vec![3; ROOM + 1]), Some(ROOM + 1), "too large to be kept");
        assert!(send(&output));
        let expected = [vec![1; 250], vec![2; 10], vec![3; ROOM + 1]].concat();
        assert_eq!(lock(&output.0).socket.taken, expected);
    }

    /// A socket like that of TLS: it takes more than it can send, and sends the rest when it is flushed.
    #[derive(Debug, Default)]
    struct Encrypting {
        sent: Socket,
        waiting: Vec<u8>,
    }

    impl AsyncWrite for Encrypting {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            if !self.waiting.is_empty() {
                ready!(self.as_mut().poll_flush(context))?;
            }
            self.waiting.extend_from_slice(bytes);
            let _ = self.poll_flush(context)?;
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            let Self { sent, waiting } = &mut *self;
            while !waiting.is_empty() {
                let written = ready!(Pin::new(&mut *sent).poll_write(context, waiting))?;
                waiting.drain(..written);
            }
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_socket_that_took_more_than_it_could_send_is_flushed_until_all_has_left() {
        let (mut socket, output) = collect(Encrypting::default());
        let context = &mut Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut socket).poll_write(context, &[1; 500]).is_ready());
        let mut turns = 0;
        // The socket has room for a little at each turn, and nothing more is written.
        while output.poll_send(context).is_pending() {
            lock(&output.0).socket.sent.room = 100;
            turns += 1;
            assert!(turns < 10, "{:?}", lock(&output.0));
        }
        let inner = lock(&output.0);
        assert_eq!((turns, &inner.socket.sent.taken[..]), (5, &[1; 500][..]));
    }

    #[tokio::test]
    async fn what_is_kept_leaves_before_the_end() {
        let (server, mut client) = tokio::io::duplex(64);
        let (mut socket, _output) = collect(server);
        socket.write_all(&[7; 1_000]).await.unwrap();
        let ended = tokio::spawn(async move { socket.shutdown().await });
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, [7; 1_000]);
        ended.await.unwrap().unwrap();
    }
}
