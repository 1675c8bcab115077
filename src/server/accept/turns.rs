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

/// A turn looks for wakes up to this many times, so that a busy connection does not keep its worker.
const ROUNDS: usize = 32;

/// A connection: a future that ends with it.
pub struct Turns<P, T> {
    protocol: Pin<Box<P>>,
    streams: Streams,
    output: Output<T>,
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
    ) -> Self {
        let of_protocol = wakes.of_protocol();
        Self { protocol: Box::pin(protocol), streams, output, wakes, of_protocol, of_streams }
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
            Poll::Ready(sent) => sent,
            // The protocol is polled when the socket has room again.
            Poll::Pending => Ok(()),
        }
    }
}

impl<P: Future, T: AsyncWrite + Unpin> Future for Turns<P, T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let me = &mut *self;
        me.wakes.runs(context.waker());
        for _ in 0..ROUNDS {
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
            let mut protocol = Context::from_waker(&me.of_protocol);
            if woken.protocol() && me.protocol.as_mut().poll(&mut protocol).is_ready() {
                // The client may still read the reason of an error.
                let _ = me.send();
                return Poll::Ready(());
            }
            if !coop::has_budget_remaining() {
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
