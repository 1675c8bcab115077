//! The clocks of a log. Nothing else in the log reads them.
//!
//! The wall clock gives messages their times, and can be set to any time. The boot clock cannot be set, and runs on while
//! the machine is suspended: a difference between the two is a step of the wall clock. Slewing, as NTP does it, moves both.

#[cfg(test)]
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The number of times that the clocks are read until both were read at almost the same time.
const READINGS: usize = 10;

/// Readings of two clocks in less than this time are close enough, in nanoseconds.
const CLOSE: u64 = 100_000;

/// One start of a machine, and the namespace of its boot clock: boot clocks of the same boot can be compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BootId(pub [u8; 24]);

/// All clocks, read at the same time. In nanoseconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reading {
    /// The wall clock: since 1970.
    pub wall: u64,
    /// Since the machine started.
    pub boot: u64,
    /// Since the machine started, without the time that it was suspended.
    pub awake: u64,
    /// The wall clock was read within this time before or after the boot clock.
    pub within: u64,
}

/// The source of the time of messages, and of the time that their age is measured against.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The system's clocks.
    #[default]
    System,
    /// Clocks that a test sets.
    #[cfg(test)]
    Manual(Arc<Mutex<Manual>>),
}

/// Clocks that stand still until a test moves them.
#[cfg(test)]
#[derive(Debug)]
pub struct Manual {
    wall: SystemTime,
    boot: Duration,
    awake: Duration,
    boots: u64,
}

impl Clock {
    /// Reads the clocks.
    pub fn read(&self) -> Reading {
        match self {
            Self::System => read_system(),
            #[cfg(test)]
            Self::Manual(_) => {
                let Manual { wall, boot, awake, .. } = *self.manual_clocks();
                Reading { wall: nanos(wall), boot: whole(boot), awake: whole(awake), within: 0 }
            }
        }
    }

    /// Reads the boot clock alone: nanoseconds since the machine started.
    pub fn boot(&self) -> u64 {
        match self {
            Self::System => boot(),
            #[cfg(test)]
            Self::Manual(_) => whole(self.manual_clocks().boot),
        }
    }

    /// The wall clock.
    pub fn now(&self) -> SystemTime {
        match self {
            Self::System => SystemTime::now(),
            #[cfg(test)]
            Self::Manual(_) => self.manual_clocks().wall,
        }
    }

    /// This start of the machine; `None` if the system does not identify it.
    pub fn boot_id(&self) -> Option<BootId> {
        match self {
            // Without it, a log in a test writes nothing but messages when one is published.
            Self::System if cfg!(test) => None,
            Self::System => system_boot_id(),
            #[cfg(test)]
            Self::Manual(_) => {
                let mut id = [0; 24];
                id[..8].copy_from_slice(&self.manual_clocks().boots.to_le_bytes());
                Some(BootId(id))
            }
        }
    }
}

/// Reads the system's clocks until the wall clock was read between two close readings of the boot clock.
fn read_system() -> Reading {
    let mut best = None::<Reading>;
    for _ in 0..READINGS {
        let (before, wall, after) = (boot(), nanos(SystemTime::now()), boot());
        let within = after.saturating_sub(before);
        if best.is_none_or(|best| within < best.within) {
            best = Some(Reading { wall, boot: after, awake: awake(), within });
        }
        if within < CLOSE {
            break;
        }
    }
    best.unwrap_or_else(|| Reading {
        wall: nanos(SystemTime::now()),
        boot: boot(),
        awake: awake(),
        within: 0,
    })
}

#[cfg(target_os = "linux")]
fn boot() -> u64 {
    elapsed(rustix::time::ClockId::Boottime)
}

/// Without a boot clock, a suspended machine seems to have its wall clock set.
#[cfg(not(target_os = "linux"))]
fn boot() -> u64 {
    awake()
}

fn awake() -> u64 {
    elapsed(rustix::time::ClockId::Monotonic)
}

fn elapsed(clock: rustix::time::ClockId) -> u64 {
    let rustix::time::Timespec { tv_sec, tv_nsec } = rustix::time::clock_gettime(clock);
    let seconds = u64::try_from(tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(tv_nsec).unwrap_or(0))
}

/// The id that the kernel chose when it started, and the time namespace, which has an offset of its own.
fn system_boot_id() -> Option<BootId> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let boot = uuid::Uuid::parse_str(text.trim()).ok()?;
    let namespace = std::fs::read_link("/proc/self/ns/time").ok();
    let namespace = namespace.as_deref().and_then(|link| link.to_str()).unwrap_or_default();
    let namespace =
        namespace.chars().filter(char::is_ascii_digit).collect::<String>().parse::<u64>().unwrap_or(0);
    let mut id = [0; 24];
    id[..16].copy_from_slice(boot.as_bytes());
    id[16..].copy_from_slice(&namespace.to_le_bytes());
    Some(BootId(id))
}

/// Nanoseconds since 1970; 0 for times before.
pub fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, whole)
}

/// Whole milliseconds since 1970; 0 for times before.
pub fn millis(time: SystemTime) -> u64 {
    nanos(time) / 1_000_000
}

/// The time of expiry in milliseconds since 1970, rounded up: a message lives for all of its ttl.
pub fn expiry(time: SystemTime) -> u64 {
    nanos(time).div_ceil(1_000_000)
}

/// The time that is this many nanoseconds after 1970.
pub fn time_of(nanos: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanos)
}

/// A duration in nanoseconds.
pub fn whole(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
impl Clock {
    fn manual_clocks(&self) -> MutexGuard<'_, Manual> {
        static NONE: Mutex<Manual> =
            Mutex::new(Manual { wall: UNIX_EPOCH, boot: Duration::ZERO, awake: Duration::ZERO, boots: 0 });
        match self {
            Self::System => NONE.lock(),
            Self::Manual(clocks) => clocks.lock(),
        }
        .unwrap_or_else(PoisonError::into_inner)
    }

    /// Clocks that do not move by themselves, set to the time now.
    pub fn manual() -> Self {
        Self::manual_at(SystemTime::now())
    }

    /// The same, set to a time.
    pub fn manual_at(wall: SystemTime) -> Self {
        let boot = Duration::from_secs(3600);
        Self::Manual(Arc::new(Mutex::new(Manual { wall, boot, awake: boot, boots: 1 })))
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let mut clocks = self.manual_clocks();
        clocks.wall += by;
        clocks.boot += by;
        clocks.awake += by;
    }

    /// Lets time pass while the machine is suspended.
    pub fn suspend(&self, by: Duration) {
        let mut clocks = self.manual_clocks();
        clocks.wall += by;
        clocks.boot += by;
    }

    /// Sets the wall clock.
    pub fn set(&self, wall: SystemTime) {
        self.manual_clocks().wall = wall;
    }

    /// Sets the wall clock forward.
    pub fn forward(&self, by: Duration) {
        self.manual_clocks().wall += by;
    }

    /// Sets the wall clock back.
    pub fn back(&self, by: Duration) {
        self.manual_clocks().wall -= by;
    }

    /// Starts the machine again, after a time without power.
    pub fn reboot(&self, down: Duration) {
        let mut clocks = self.manual_clocks();
        clocks.wall += down;
        (clocks.boot, clocks.awake) = (Duration::ZERO, Duration::ZERO);
        clocks.boots += 1;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn the_systems_clocks_run_together_and_the_boot_is_known() {
        let clock = Clock::System;
        let offset = |reading: &Reading| i128::from(reading.wall) - i128::from(reading.boot);
        let first = clock.read();
        for _ in 0..100 {
            let next = clock.read();
            assert!(next.boot >= first.boot && next.awake >= first.awake);
            let apart = (offset(&next) - offset(&first)).unsigned_abs();
            assert!(apart <= u128::from(first.within + next.within) + 1_000_000, "{first:?} {next:?}");
        }
        #[cfg(target_os = "linux")]
        assert_eq!(system_boot_id().unwrap(), system_boot_id().unwrap());
    }
}
