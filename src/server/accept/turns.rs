//! The turns of a connection: its streams, its protocol, and one write.
//!
//! A turn polls the streams that are ready, which wake the protocol when they give something, and the protocol, which
//! frames it and wakes the streams that have room again, until nothing is left to do or the turn has lasted long enough.
//! Then everything leaves in one write.

use std::{
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::{io::AsyncWrite, task::coop};

use super::{output::Output, streams::Streams, wakes::Wakes};
use crate::grpc::call::Backlog;

/// A connection: a future that ends with it.
pub struct Turns<P, T> {
    protocol: Pin<Box<P>>,
    streams: Streams,
    output: Output<T>,
    backlog: Arc<Backlog>,
    wakes: Arc<Wakes>,
    of_protocol: Waker,
    of_streams: Waker,
}

impl<P: Future, T: AsyncWrite + Unpin> Turns<P, T> {
    /// A connection whose protocol starts its streams by a starter of these `streams`, and writes to `output`.
    pub fn new(
        protocol: P,
        (streams, of_streams): (Streams, Waker),
        output: Output<T>,
        wakes: Arc<Wakes>,
        backlog: Arc<Backlog>,
    ) -> Self {
        let of_protocol = wakes.of_protocol();
        Self { protocol: Box::pin(protocol), streams, output, backlog, wakes, of_protocol, of_streams }
    }

    /// Changes the protocol, as to end it.
    pub fn change(&mut self, change: impl FnOnce(Pin<&mut P>)) {
        change(self.protocol.as_mut());
        self.of_protocol.wake_by_ref();
    }

    /// Sends what the parts have given. An error means that the client went away.
    fn send(&self) -> io::Result<()> {
        // The streams may have used up the budget of this task, and their bytes must leave all the same.
        let send = coop::unconstrained(std::future::poll_fn(|context| self.output.poll_send(context)));
        match pin!(send).poll(&mut Context::from_waker(&self.of_protocol)) {
            Poll::Ready(sent) => {
                self.backlog.keeps(0);
                sent
            }
            // The protocol is polled when the socket has room again.
            Poll::Pending => {
                self.backlog.keeps(self.output.pending());
                Ok(())
            }
        }
    }
}

impl<P: Future, T: AsyncWrite + Unpin> Future for Turns<P, T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let me = &mut *self;
        me.wakes.runs(context.waker());
        me.streams.begin_turn();
        loop {
            let woken = me.wakes.take();
            if woken.is_none() {
                if me.send().is_err() {
                    return Poll::Ready(());
                }
                if me.wakes.stops() {
                    return Poll::Pending;
                }
                continue;
            }
            if woken.streams() {
                me.streams.poll(&mut Context::from_waker(&me.of_streams));
            }
            // The streams wake the protocol when they give something, and it must leave in this turn.
            let mut protocol = Context::from_waker(&me.of_protocol);
            let must_poll = me.wakes.take_protocol() || woken.protocol();
            if must_poll && me.protocol.as_mut().poll(&mut protocol).is_ready() {
                // The client may still read the reason of an error.
                let _ = me.send();
                return Poll::Ready(());
            }
            if me.streams.is_turn_over() || !coop::has_budget_remaining() {
                break;
            }
        }
        if me.send().is_err() {
            return Poll::Ready(());
        }
        me.wakes.pauses(context.waker());
        Poll::Pending
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::{
        future::poll_fn,
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use hyper::rt::Executor;
    use prometheus_client::registry::Registry;
    use tokio::io::AsyncWriteExt;
    use tokio_util::sync::CancellationToken;

    use super::{super::output, *};
    use crate::grpc::call::{Calls, Config};

    /// A protocol that writes what its streams give, and the writes that arrive.
    async fn turns_of(streams: usize, wake: impl FnOnce(&[Waker])) -> (usize, Vec<usize>) {
        let wakes = Wakes::new();
        let of_streams = wakes.of_streams();
        // A turn does not end here, however busy the machine is.
        let set = Streams::with_turns_of(Duration::from_secs(3600), of_streams.clone());
        let (mut input, output) = output::collect(Counting::default());
        let writes = output.writes();
        let (given, polls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (waiting, counter) = (Arc::new(Mutex::new(Vec::new())), polls.clone());
        let (of_protocol, left) = (wakes.of_protocol(), given.clone());
        let protocol = poll_fn(move |context| {
            counter.fetch_add(1, Ordering::Relaxed);
            for _ in 0..left.swap(0, Ordering::Relaxed) {
                assert!(pin!(input.write_all(&[0; 300])).poll(context).is_ready());
            }
            Poll::<()>::Pending
        });
        for _ in 0..streams {
            let (given, waiting, of_protocol) = (given.clone(), waiting.clone(), of_protocol.clone());
            let mut has_waited = false;
            set.starter().execute(poll_fn(move |context| {
                if !has_waited {
                    has_waited = true;
                    waiting.lock().unwrap().push(context.waker().clone());
                    return Poll::Pending;
                }
                given.fetch_add(1, Ordering::Relaxed);
                of_protocol.wake_by_ref();
                Poll::Ready(())
            }));
        }
        let calls = Calls::new(Config::default(), CancellationToken::new(), &mut Registry::default());
        let mut turns = Turns::new(protocol, (set, of_streams), output, wakes, calls.backlog());
        let mut is_pending =
            async || poll_fn(|context| Poll::Ready(Pin::new(&mut turns).poll(context).is_pending())).await;
        assert!(is_pending().await);
        polls.store(0, Ordering::Relaxed);
        wake(&waiting.lock().unwrap());
        assert!(is_pending().await);
        let writes = writes.lock().unwrap().clone();
        (polls.load(Ordering::Relaxed), writes)
    }

    /// A socket that keeps the sizes of its writes.
    #[derive(Debug, Default)]
    struct Counting(Arc<Mutex<Vec<usize>>>);

    impl Output<Counting> {
        fn writes(&self) -> Arc<Mutex<Vec<usize>>> {
            self.with_socket(|socket| socket.0.clone())
        }
    }

    impl AsyncWrite for Counting {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.0.lock().unwrap().push(bytes.len());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn the_streams_that_are_ready_leave_in_one_write_after_one_poll_of_the_protocol() {
        let all = turns_of(100, |waiting| waiting.iter().for_each(Waker::wake_by_ref)).await;
        assert_eq!(all, (1, vec![100 * 300]));
        let some = turns_of(100, |waiting| waiting.iter().step_by(10).for_each(Waker::wake_by_ref)).await;
        assert_eq!(some, (1, vec![10 * 300]));
        assert_eq!(turns_of(100, |_| {}).await, (0, vec![]), "a turn without a wake polls nothing");
    }
}
