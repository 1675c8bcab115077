//! Write coalescing: a connection that writes together what becomes ready together.
//!
//! When several streams of a connection become ready at once, as at a tick or a heartbeat, each would cause a write of a
//! few bytes, and the system call and the packet would cost more than all the work before. So a write first yields once
//! to the tasks that are ready, and what they add leaves with it.
//!
//! When streams become ready one at a time, yielding gains nothing and costs a thread wake-up: the runtime wakes another
//! worker when a task goes back to the queue. So a connection stops yielding after it yielded several times in vain, and
//! tries again from time to time.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection stops yielding after this many times in vain, and tries again after this many flushes.
const TRIES: u8 = 16;

/// A stream that joins writes.
#[derive(Debug)]
pub struct Coalescing<T> {
    stream: T,
    /// The bytes that were pending at the yield since the last flush. `None`: no yield yet. 0: the yield is decided.
    pending_at_yield: Option<usize>,
    /// How many more yields may be in vain.
    tries_left: u8,
    /// The number of flushes without a yield.
    skipped: u8,
}

impl<T> Coalescing<T> {
    /// Wraps a stream.
    pub fn new(stream: T) -> Self {
        Self { stream, pending_at_yield: None, tries_left: TRIES, skipped: 0 }
    }

    /// Whether to yield before this write. If so, the task is queued again, after those that are ready.
    fn yields(&mut self, bytes: usize, context: &Context<'_>) -> bool {
        match self.pending_at_yield {
            // The first write before a flush has decided.
            Some(0) => return false,
            Some(pending) => {
                self.tries_left = if bytes > pending { TRIES } else { self.tries_left.saturating_sub(1) };
                self.pending_at_yield = Some(0);
                return false;
            }
            None => {}
        }
        if self.tries_left == 0 && self.skipped < TRIES {
            self.skipped += 1;
            self.pending_at_yield = Some(0);
            return false;
        }
        self.skipped = 0;
        self.pending_at_yield = Some(bytes);
        context.waker().wake_by_ref();
        true
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Coalescing<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.yields(bytes.len(), context) {
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
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        if self.yields(bytes, context) {
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
        if flushed.is_ready() {
            self.pending_at_yield = None;
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Coalescing<T> {
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
        let mut coalescing = Coalescing::new(tokio::io::sink());
        for turn in ["first", "second"] {
            let other = order.clone();
            tokio::spawn(async move { other.lock().unwrap().push(format!("{turn} ready")) });
            coalescing.write_all(b"x").await.unwrap();
            coalescing.write_all(b"x").await.unwrap();
            order.lock().unwrap().push(format!("{turn} written"));
            coalescing.flush().await.unwrap();
        }
        let expected = ["first ready", "first written", "second ready", "second written"];
        assert_eq!(*order.lock().unwrap(), expected);
    }

    /// Writes and flushes. Returns the number of ready tasks that ran before the write.
    async fn write(coalescing: &mut Coalescing<tokio::io::Sink>, more: bool) -> usize {
        let others = Arc::new(Mutex::new(0));
        let other = others.clone();
        tokio::spawn(async move { *other.lock().unwrap() += 1 });
        let mut buffer = vec![0; 10];
        std::future::poll_fn(|context| {
            let written = Pin::new(&mut *coalescing).poll_write(context, &buffer);
            if more {
                buffer.push(0);
            }
            written
        })
        .await
        .unwrap();
        let ran = *others.lock().unwrap();
        coalescing.flush().await.unwrap();
        tokio::task::yield_now().await;
        ran
    }

    #[tokio::test]
    async fn a_connection_that_yields_in_vain_stops_until_yielding_gains_something() {
        let mut coalescing = Coalescing::new(tokio::io::sink());
        for _ in 0..TRIES {
            assert_eq!(write(&mut coalescing, false).await, 1);
        }
        for _ in 0..3 {
            for _ in 0..TRIES {
                assert_eq!(write(&mut coalescing, false).await, 0);
            }
            assert_eq!(write(&mut coalescing, false).await, 1);
        }
        for _ in 0..TRIES {
            assert_eq!(write(&mut coalescing, false).await, 0);
        }
        for _ in 0..3 * TRIES {
            assert_eq!(write(&mut coalescing, true).await, 1);
        }
    }
}
