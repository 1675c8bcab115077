//! A connection that writes what is ready together in one go.
//!
//! Streams of one connection that become ready at the same moment, as at a tick or a heartbeat, would each cause a write
//! of a few bytes: the system call and the segment cost more than all that went before. So a write first lets the tasks
//! that are ready run, once; what they add leaves with it.
//!
//! Where streams are ready one by one, waiting gains nothing, and is not for nothing: the runtime wakes another of its
//! threads when a task goes back to the queue, which costs more than the write. So a connection that has waited in vain
//! several times writes at once, and only tries now and then whether waiting pays again.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// So often in a row waiting may be in vain; and once in so many flushes it is tried again.
const PATIENCE: u8 = 16;

/// See the module.
#[derive(Debug)]
pub struct Gather<T> {
    stream: T,
    /// What there was to write when the others got their turn, in bytes, if they had it since the last flush.
    offered: Option<usize>,
    /// How often waiting may still be in vain.
    patience: u8,
    /// How many flushes went without waiting.
    hurried: u8,
}

impl<T> Gather<T> {
    /// Wraps a stream.
    pub fn new(stream: T) -> Self {
        Self { stream, offered: None, patience: PATIENCE, hurried: 0 }
    }

    /// The others run first, if that has paid lately: the task is put behind them in the queue.
    fn waits(&mut self, bytes: usize, context: &Context<'_>) -> bool {
        match self.offered {
            // Of several writes before a flush the first one tells.
            Some(0) => return false,
            Some(offered) => {
                self.patience = if bytes > offered { PATIENCE } else { self.patience.saturating_sub(1) };
                self.offered = Some(0);
                return false;
            }
            None => {}
        }
        if self.patience == 0 && self.hurried < PATIENCE {
            self.hurried += 1;
            self.offered = Some(0);
            return false;
        }
        self.hurried = 0;
        self.offered = Some(bytes);
        context.waker().wake_by_ref();
        true
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gather<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.waits(bytes.len(), context) {
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
        if self.waits(bytes, context) {
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
            self.offered = None;
        }
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

    /// Writes and flushes, and tells how many tasks that were ready ran before the write.
    async fn write(gather: &mut Gather<tokio::io::Sink>, more: bool) -> usize {
        let others = Arc::new(Mutex::new(0));
        let other = others.clone();
        tokio::spawn(async move { *other.lock().unwrap() += 1 });
        let mut buffer = vec![0; 10];
        std::future::poll_fn(|context| {
            let written = Pin::new(&mut *gather).poll_write(context, &buffer);
            if more {
                buffer.push(0);
            }
            written
        })
        .await
        .unwrap();
        let ran = *others.lock().unwrap();
        gather.flush().await.unwrap();
        tokio::task::yield_now().await;
        ran
    }

    #[tokio::test]
    async fn who_waits_in_vain_again_and_again_waits_no_longer_until_it_pays() {
        let mut gather = Gather::new(tokio::io::sink());
        for _ in 0..PATIENCE {
            assert_eq!(write(&mut gather, false).await, 1);
        }
        for _ in 0..3 {
            for _ in 0..PATIENCE {
                assert_eq!(write(&mut gather, false).await, 0);
            }
            assert_eq!(write(&mut gather, false).await, 1);
        }
        for _ in 0..PATIENCE {
            assert_eq!(write(&mut gather, false).await, 0);
        }
        for _ in 0..3 * PATIENCE {
            assert_eq!(write(&mut gather, true).await, 1);
        }
    }
}
