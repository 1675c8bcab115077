//! A connection that writes what is ready together in one go.
//!
//! Streams of one connection that become ready at the same moment, as at a tick or a heartbeat, would each cause a write
//! of a few bytes: the system call and the segment cost more than all that went before. So a write first lets the tasks
//! that are ready run, once; what they add leaves with it. When nothing else is ready, that costs a turn of the
//! scheduler, less than a microsecond.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// See the module.
#[derive(Debug)]
pub struct Gather<T> {
    stream: T,
    /// The others had their turn since the last flush.
    has_waited: bool,
}

impl<T> Gather<T> {
    /// Wraps a stream.
    pub fn new(stream: T) -> Self {
        Self { stream, has_waited: false }
    }

    /// The others run first: the task is put behind them in the queue.
    fn waits(&mut self, context: &Context<'_>) -> bool {
        let waits = !std::mem::replace(&mut self.has_waited, true);
        if waits {
            context.waker().wake_by_ref();
        }
        waits
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gather<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.waits(context) {
            Poll::Pending
        } else {
            Pin::new(&mut self.stream).poll_write(context, bytes)
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.waits(context) {
            Poll::Pending
        } else {
            Pin::new(&mut self.stream).poll_write_vectored(context, slices)
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.has_waited &= flushed.is_pending();
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gather<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn tasks_that_are_ready_run_before_a_write_and_once_a_flush() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut gather = Gather::new(tokio::io::sink());
        for turn in ["first", "second"] {
            let other = order.clone();
            tokio::spawn(async move { other.lock().unwrap().push(format!("{turn} ready")) });
            gather.write_all(b"x").await.unwrap();
            gather.write_all(b"x").await.unwrap();
            order.lock().unwrap().push(format!("{turn} written"));
            gather.flush().await.unwrap();
        }
        let expected = ["first ready", "first written", "second ready", "second written"];
        assert_eq!(*order.lock().unwrap(), expected);
    }
}
