//! The wakers of the two parts of a connection: its protocol, and its streams.
//!
//! Both parts are polled by one task. A wake records which part has something to do, and wakes the task only if the task
//! neither runs nor was woken before. So many streams that become ready together cost one wake of the task, and a stream
//! and the protocol that wake each other while the task runs cost none.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Wake, Waker},
};

use futures::task::AtomicWaker;

const PROTOCOL: u8 = 1;
const STREAMS: u8 = 2;
/// The task runs, and looks for wakes before it stops.
const RUNNING: u8 = 4;

/// Which parts were woken, and the task that polls them.
#[derive(Debug)]
pub struct Wakes {
    state: AtomicU8,
    task: AtomicWaker,
}

/// The parts to poll.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Woken(u8);

impl Woken {
    pub const fn protocol(self) -> bool {
        self.0 & PROTOCOL != 0
    }

    pub const fn streams(self) -> bool {
        self.0 & STREAMS != 0
    }

    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl Wakes {
    /// Both parts must be polled.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: AtomicU8::new(PROTOCOL | STREAMS), task: AtomicWaker::new() })
    }

    /// The waker of the protocol.
    pub fn of_protocol(self: &Arc<Self>) -> Waker {
        Arc::new(Part::<PROTOCOL>(self.clone())).into()
    }

    /// The waker of the streams.
    pub fn of_streams(self: &Arc<Self>) -> Waker {
        Arc::new(Part::<STREAMS>(self.clone())).into()
    }

    /// The task runs from here until [`stops`](Self::stops) or [`pauses`](Self::pauses).
    pub fn runs(&self, task: &Waker) {
        self.task.register(task);
        self.state.fetch_or(RUNNING, Ordering::AcqRel);
    }

    /// The parts that were woken since the last call.
    pub fn take(&self) -> Woken {
        Woken(self.state.fetch_and(RUNNING, Ordering::AcqRel) & !RUNNING)
    }

    /// Whether the protocol was woken since the last call.
    pub fn take_protocol(&self) -> bool {
        self.state.fetch_and(!PROTOCOL, Ordering::AcqRel) & PROTOCOL != 0
    }

    /// The task stops, unless a part was woken meanwhile: then it goes on.
    pub fn stops(&self) -> bool {
        self.state.compare_exchange(RUNNING, 0, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The task lets others run, and then continues.
    pub fn pauses(&self, task: &Waker) {
        self.state.fetch_and(!RUNNING, Ordering::AcqRel);
        task.wake_by_ref();
    }

    fn wake(&self, part: u8) {
        // A part that was woken before the task ran has woken the task.
        if self.state.fetch_or(part, Ordering::AcqRel) & (part | RUNNING) == 0 {
            self.task.wake();
        }
    }
}

struct Part<const PART: u8>(Arc<Wakes>);

impl<const PART: u8> Wake for Part<PART> {
    fn wake(self: Arc<Self>) {
        self.0.wake(PART);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.wake(PART);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_task_is_woken_once_however_many_wakes_there_are_and_not_while_it_runs() {
        let (wakes, task) = (Wakes::new(), Arc::new(Task::default()));
        let woken = || task.0.load(Ordering::Relaxed);
        let (streams, protocol, waker) = (wakes.of_streams(), wakes.of_protocol(), task.clone().into());
        wakes.runs(&waker);
        assert!(wakes.take().streams() && wakes.take().is_none());
        streams.wake_by_ref();
        assert!(!wakes.stops(), "a part was woken while the task ran");
        assert_eq!((wakes.take().streams(), wakes.take().protocol(), woken()), (true, false, 0));
        assert!(wakes.stops());
        for _ in 0..100 {
            streams.wake_by_ref();
        }
        assert_eq!(woken(), 1);
        wakes.runs(&waker);
        protocol.wake_by_ref();
        let both = wakes.take();
        assert!(both.streams() && both.protocol());
        wakes.pauses(&waker);
        assert_eq!(woken(), 2);
        protocol.wake_by_ref();
        assert_eq!(woken(), 3, "one more than needed, since a pause has no part");
    }
}
