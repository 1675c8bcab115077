//! The wall clock of a log against a clock that cannot be set: its steps, and the moment by which ages are judged.
//!
//! Ages follow the boot clock. The wall clock is only the time of new messages, so a step must be on disk before a message
//! is published after it; until then nothing is judged by the new reading, and no age changes when the step is recorded.

use std::{
    io,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::sync::watch;

use super::{
    Embedded, Shared,
    age::{Corrections, Moment},
    format::{
        clock_history::{Boot, ClockHistory, Step},
        footer::At,
    },
    time_of,
};
use crate::messages::clock::{BootId, Clock, Reading, whole};

mod watching;

pub use watching::watch;

/// A smaller difference is not a step, in nanoseconds: the clocks are not read at exactly the same time, and people do not
/// notice it.
const SLACK: u64 = 20_000_000;

/// A shorter suspension does not count, in nanoseconds.
const SUSPENSION: u64 = 1_000_000_000;

/// Of steps of the wall clock, the first is logged, and then at most one in this time.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The known facts about the wall clock.
#[derive(Debug)]
pub struct Timeline {
    clock: Clock,
    boot: Option<BootId>,
    /// The clocks when the log was opened.
    start: Reading,
    state: RwLock<State>,
    /// The last message that was published in an earlier boot of the machine, as far as it is known.
    last_before_boot: Option<At>,
    /// The number of steps in this run.
    steps: AtomicU64,
    /// Changes with each step, and after a suspension: waiting times must be computed again.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    history: ClockHistory,
    corrections: Arc<Corrections>,
    /// The wall clock minus the boot clock, after the last step.
    offset: i128,
    /// Messages from this sequence on were published in this boot of the machine.
    since: u64,
    /// The number of this boot in the history.
    number: u64,
    /// The boot in the history is on disk.
    is_boot_stored: bool,
    /// How far the clock was moved forward in this boot and not back again, as far as that concerns messages of earlier
    /// boots.
    moved: i64,
    /// Of steps.
    warnings: Warnings,
    /// Of boots that could not be stored.
    boot_warnings: Warnings,
    /// When the last step was noticed, by the clock that stops in suspend; `None` for none in this run.
    stepped: Option<u64>,
    /// Messages that had expired then may be erased.
    swept: Option<Arc<Moment>>,
    /// How long the machine had been suspended when that was recorded.
    asleep: u64,
    /// The boot clock when the last suspension of this run was recorded, or when the run began.
    awake_since: u64,
}

/// A step that is not recorded yet.
#[derive(Clone, Copy, Debug)]
pub struct Unrecorded {
    offset: i128,
    shift: i128,
    wall: u64,
    awake: u64,
}

impl Unrecorded {
    fn warn(&self, unlogged: u64) {
        let nanos = u64::try_from(self.shift.unsigned_abs()).unwrap_or(u64::MAX);
        let (seconds, direction) =
            (Duration::from_nanos(nanos).as_secs_f64(), if self.shift < 0 { "back" } else { "forward" });
        tracing::warn!(
            seconds,
            direction,
            unlogged,
            "the wall clock was set: ages of messages do not change, and nothing is removed from the disk by age for a while"
        );
    }
}

/// Limits warnings to one in [`WARNING_INTERVAL`].
#[derive(Debug, Default)]
struct Warnings {
    last: Option<u64>,
    unlogged: u64,
}

impl Warnings {
    /// Takes a warning at a time in nanoseconds. Returns how many were not logged since the last one that was; `None` if this
    /// one is not to be logged.
    fn take(&mut self, now: u64) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_sub(last) < whole(WARNING_INTERVAL)) {
            self.unlogged += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unlogged))
    }
}

fn offset_of(reading: &Reading) -> i128 {
    i128::from(reading.wall) - i128::from(reading.boot)
}

/// How long the machine has been suspended since it started.
fn asleep(reading: &Reading) -> u64 {
    reading.boot.saturating_sub(reading.awake)
}

/// Whether the machine was suspended since it had been for some time.
fn has_slept(reading: &Reading, before: u64) -> bool {
    asleep(reading) > before.saturating_add(SUSPENSION)
}

fn saturate(number: i128) -> i64 {
    number.try_into().unwrap_or(if number < 0 { i64::MIN } else { i64::MAX })
}

impl Timeline {
    /// Continues the history of a log whose next message has the sequence `next_sequence`. `is_ahead` says whether a
    /// message before a sequence may be later than a moment. Returns the history to store, if this start changes it.
    pub fn new(
        clock: Clock,
        history: ClockHistory,
        next_sequence: u64,
        is_ahead: impl Fn(&Moment, u64) -> bool,
    ) -> (Self, Option<ClockHistory>) {
        let (start, boot) = (clock.read(), clock.boot_id());
        let known = history.boot.filter(|known| Some(known.id) == boot && known.since <= next_sequence);
        let known = known.filter(|known| !has_slept(&start, known.asleep));
        let (offset, since) =
            known.map_or((offset_of(&start), next_sequence), |known| (known.offset.into(), known.since));
        let number = known.map_or_else(|| history.next_number(), |known| known.number);
        let in_boot = history.steps.iter().filter(|step| step.boot == number);
        let moved = in_boot.fold(0_i64, |moved, step| moved.saturating_add(step.doubtful_shift).max(0));
        let state = State {
            corrections: Arc::default(),
            history,
            offset,
            since,
            number,
            is_boot_stored: true,
            moved,
            warnings: Warnings::default(),
            boot_warnings: Warnings::default(),
            stepped: None,
            swept: None,
            asleep: asleep(&start),
            awake_since: start.boot,
        };
        let timeline = Self {
            clock,
            boot,
            start,
            state: RwLock::new(state),
            last_before_boot: None,
            steps: AtomicU64::new(0),
            changes: watch::Sender::new(0),
        };
        let before = timeline.history();
        timeline.replace(before.clone(), offset);
        let mut after = before.clone();
        if let Some(step) = timeline.unrecorded(&start) {
            // The server was restarted, but not the machine: the step is measured as if the server had run on.
            after = timeline.history_with(&step, next_sequence, 0);
            timeline.accept(after.clone(), &step);
        }
        let (offset, corrections) = {
            let state = timeline.state();
            (state.offset, state.corrections.clone())
        };
        // The steps are exact for later messages.
        if is_ahead(&Moment::new(start.wall.saturating_add(SLACK), corrections), since) {
            let up_to = next_sequence.saturating_sub(1);
            after.add(Step { boot: number, up_to, since, shift: 0, doubtful_shift: 0, cap: start.wall }, 0);
        }
        // If the log has messages, a step before the next start of the server is measured even if nothing is published.
        if after != before || known.is_none() && boot.is_some() && next_sequence > 1 {
            let asleep = timeline.state().asleep;
            after.boot = boot.map(|id| Boot { id, number, since, offset: saturate(offset), asleep });
            timeline.replace(after.clone(), offset);
        }
        let is_new = (after != before).then_some(after);
        (timeline, is_new)
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        // It is replaced as a whole.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, history: ClockHistory, offset: i128) {
        let number = self.state().number;
        let corrections = Corrections::new(&history.steps, Some(number)).into();
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        (state.history, state.corrections, state.offset) = (history, corrections, offset);
    }

    /// The stored form.
    pub fn history(&self) -> ClockHistory {
        self.state().history.clone()
    }

    /// The moment now. Ages that are computed with it do not depend on how the wall clock was set.
    pub fn moment(&self) -> Moment {
        let boot = self.clock.boot();
        let state = self.state();
        let now = (state.offset + i128::from(boot)).clamp(0, i128::from(u64::MAX));
        let moment = Moment::new(u64::try_from(now).unwrap_or(0), state.corrections.clone());
        moment.after_sweep(state.swept.clone())
    }

    /// The first sequence of this boot of the machine.
    pub fn since(&self) -> u64 {
        self.state().since
    }

    /// The same, if this is the last message before the first sequence of this boot of the machine.
    pub fn with_last_before_boot(self, last: Option<At>) -> Self {
        Self { last_before_boot: last, ..self }
    }

    /// The moment by which message ids are judged. That the clock shows a much later time than the last message before the
    /// start of the machine may be downtime, or a clock that is ahead: this time does not count for their age.
    pub fn moment_of_ids(&self) -> Moment {
        let moment = self.moment();
        let Some(At { sequence, time }) = self.last_before_boot else { return moment };
        let down = moment.age(sequence, time).saturating_sub(self.clock.boot());
        moment.with_later(self.since(), down)
    }

    /// From now on, messages that have expired at a moment are not delivered, even if their age turns out to be smaller.
    pub fn set_swept(&self, moment: &Moment) {
        let swept = Some(Arc::new(moment.clone().after_sweep(None)));
        self.state.write().unwrap_or_else(PoisonError::into_inner).swept = swept;
    }

    /// The moment at which expired messages may have been erased; `None` if there was no sweep in this run.
    pub fn swept(&self) -> Option<Arc<Moment>> {
        self.state().swept.clone()
    }

    /// The time now, by the wall clock after the last recorded step.
    pub fn now(&self) -> SystemTime {
        time_of(self.moment().now())
    }

    /// The moment by which messages are removed from the disk. While the wall clock is `in_doubt`, messages of an earlier
    /// boot, or from before the last suspension, are only as old as this run, or the time since then: the clock may have been
    /// wrong when it started.
    pub fn moment_of_removal(&self, is_in_doubt: bool) -> Moment {
        let moment = self.moment();
        if !is_in_doubt {
            return moment;
        }
        let reading = self.clock.read();
        if self.has_slept(&reading) {
            // Until that is recorded, it concerns all messages.
            return moment.in_doubt(u64::MAX, 0);
        }
        let state = self.state();
        moment.in_doubt(state.since, reading.boot.saturating_sub(state.awake_since))
    }

    /// Whether the run, or the time after the last step, is shorter than `delay`.
    pub fn is_in_doubt(&self, delay: Duration) -> bool {
        if delay.is_zero() {
            return false;
        }
        let reading = self.clock.read();
        let since = self.state().stepped.map_or(self.start.awake, |stepped| stepped.max(self.start.awake));
        let is_new = || self.unrecorded(&reading).is_some() || self.has_slept(&reading);
        reading.awake.saturating_sub(since) < whole(delay) || is_new()
    }

    /// The clock that cannot be set, in nanoseconds.
    pub fn boot(&self) -> u64 {
        self.clock.boot()
    }

    /// Reads the clocks.
    pub fn read(&self) -> Reading {
        self.clock.read()
    }

    /// The step that the wall clock has made since the last recorded one, if it has.
    pub fn unrecorded(&self, reading: &Reading) -> Option<Unrecorded> {
        let offset = offset_of(reading);
        let shift = offset - self.state().offset;
        let &Reading { wall, awake, within, .. } = reading;
        (shift.abs() > i128::from(SLACK) + i128::from(within)).then_some(Unrecorded {
            offset,
            shift,
            wall,
            awake,
        })
    }

    /// Whether the machine was suspended, and that is not recorded yet.
    pub fn has_slept(&self, reading: &Reading) -> bool {
        has_slept(reading, self.state().asleep)
    }

    /// Records that the machine was suspended before the message with the sequence `next_sequence`, once `store` has it on
    /// disk. How long is read from the clock of the hardware, which may be wrong: so it is with the messages before as if
    /// the machine had started again.
    pub fn record_suspension(
        &self,
        reading: &Reading,
        next_sequence: u64,
        store: impl FnOnce(&ClockHistory) -> io::Result<()>,
    ) -> io::Result<()> {
        let (history, number, offset) = {
            let state = self.state();
            let mut history = state.history.clone();
            let number = history.next_number().max(state.number.saturating_add(1));
            let (offset, asleep) = (saturate(state.offset), asleep(reading));
            history.boot = self.boot.map(|id| Boot { id, number, since: next_sequence, offset, asleep });
            (history, number, state.offset)
        };
        store(&history)?;
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            (state.number, state.since, state.moved) = (number, next_sequence, 0);
            (state.asleep, state.awake_since) = (asleep(reading), reading.boot);
            state.stepped = Some(reading.awake);
        }
        self.replace(history, offset);
        self.wake();
        Ok(())
    }

    /// The history with a step that happened before the message with the sequence `next_sequence`. The log holds no
    /// message below `oldest`.
    fn history_with(&self, step: &Unrecorded, next_sequence: u64, oldest: u64) -> ClockHistory {
        let state = self.state();
        let since = state.since;
        let shift = saturate(step.shift);
        // Messages of earlier boots: the clock may have been wrong at the start of this boot, and be right now. Only what
        // it moved forward in this boot can be taken back.
        let doubtful_shift = shift.max(-state.moved);
        let cap = if doubtful_shift > shift { step.wall } else { 0 };
        let mut history = state.history.clone();
        let (boot, up_to) = (state.number, next_sequence.saturating_sub(1));
        history.add(Step { boot, up_to, since, shift, doubtful_shift, cap }, oldest);
        let (offset, asleep) = (saturate(step.offset), state.asleep);
        history.boot = self.boot.map(|id| Boot { id, number: boot, since, offset, asleep });
        history
    }

    /// Takes a history over that ends with a step.
    fn accept(&self, history: ClockHistory, step: &Unrecorded) {
        let doubtful_shift = history.steps.last().map_or(0, |step| step.doubtful_shift);
        self.replace(history, step.offset);
        let unlogged = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            state.moved = state.moved.saturating_add(doubtful_shift).max(0);
            state.stepped = Some(step.awake);
            state.warnings.take(step.awake)
        };
        self.steps.fetch_add(1, Ordering::Relaxed);
        if let Some(unlogged) = unlogged {
            step.warn(unlogged);
        }
        self.wake();
    }

    /// Records a step that happened before the message with the sequence `next_sequence`, once `store` has it on disk.
    pub fn record(
        &self,
        step: &Unrecorded,
        next_sequence: u64,
        oldest: u64,
        store: impl FnOnce(&ClockHistory) -> io::Result<()>,
    ) -> io::Result<()> {
        let history = self.history_with(step, next_sequence, oldest);
        store(&history)?;
        self.accept(history, step);
        Ok(())
    }

    /// Records that the next message, with the sequence `next_sequence`, is published in this boot, if that is not known
    /// yet. If `store` cannot write it to the disk, this is tried again before the next message.
    pub fn record_boot(&self, next_sequence: u64, store: impl FnOnce(&ClockHistory) -> io::Result<()>) {
        let (history, offset) = {
            let state = self.state();
            let is_stored = state.is_boot_stored || self.boot.is_none();
            if is_stored && state.history.boot.map(|boot| boot.id) == self.boot {
                return;
            }
            let mut history = state.history.clone();
            let (number, since) = (state.number, state.since.min(next_sequence));
            let (offset, asleep) = (saturate(state.offset), state.asleep);
            history.boot = self.boot.map(|id| Boot { id, number, since, offset, asleep });
            (history, state.offset)
        };
        if let Err(error) = store(&history) {
            let awake = self.clock.read().awake;
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(unlogged) = state.boot_warnings.take(awake) {
                // Without it, a step of the clock over the next restart is taken for downtime.
                tracing::warn!(%error, unlogged, "the boot of the machine cannot be recorded yet");
            }
            return;
        }
        self.replace(history, offset);
        self.set_boot_stored(true);
    }

    /// Whether the boot in the history is on disk; otherwise it is stored before the next message.
    pub fn set_boot_stored(&self, is_stored: bool) {
        self.state.write().unwrap_or_else(PoisonError::into_inner).is_boot_stored = is_stored;
    }

    /// The number of steps in this run.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Makes everything that waits for a time look at the clock again.
    pub fn wake(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Changes when something that waits for a time must look at the clock again.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl Shared {
    /// The moment by which ages of messages are judged that the log holds now.
    pub fn moment(&self) -> Moment {
        // The head first: a step of the clock may come before the next message.
        let head = *self.head.borrow();
        self.timeline.moment().up_to(head)
    }
}

impl Embedded {
    /// The moment by which ages of messages are judged.
    pub fn moment(&self) -> Moment {
        self.shared.moment()
    }

    /// Changes when something that waits for a time must look at the clock again.
    pub fn clock_changes(&self) -> watch::Receiver<u64> {
        self.shared.timeline.changes()
    }

    /// How many times the wall clock was set since the log was opened.
    pub fn clock_steps(&self) -> u64 {
        self.shared.timeline.steps()
    }
}

#[cfg(test)]
mod tests;
