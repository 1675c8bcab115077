//! The order of the files that a rotation numbers.
//!
//! Most rotations give the highest number to the oldest file, and rename all files each time. Some count upward, and rename
//! each file once. A file that was read before another one is known to be older. Of all others, the births, and the times
//! at which the files were renamed, show the order: both must agree, because a clock that is set back falsifies births, and
//! a line that is written after the rename hides when that was. Where they contradict each other for two neighbours, and no
//! other files show how the rotation counts, files may be missing.

use std::{cmp::Ordering, os::unix::fs::MetadataExt, time::Duration};

use super::siblings::{Next, written};
use crate::lines::{
    identity::Identity,
    root::{
        places::Sibling,
        rotated_name::{is_rotation_or_compressed, without_compression},
        rotation_scheme::Mark,
    },
};

/// How soon after a file was renamed away its successor is created, if a writer does both.
const ADJACENT: Duration = Duration::from_millis(100);

/// Files live at least this many times as long as the time in which one could have come and gone.
const LIVES: u32 = 10;

/// Numbered files, one of which was read.
pub struct Numbered<'a> {
    /// In the order of their numbers.
    pub files: &'a [(Mark, Sibling)],
    /// Which of them was read.
    pub own: usize,
    /// The file at the path.
    pub current: Option<&'a Sibling>,
    /// Files that are known to be older than the own one.
    pub older: &'a [Identity],
    /// The numbers of files that cannot be read.
    pub hidden: Vec<u64>,
}

/// How two files follow each other, or all files.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Direction {
    /// The higher number is younger.
    Upward,
    /// The higher number is older.
    Downward,
    /// Times contradict each other.
    Doubtful,
    /// The times are equal.
    Equal,
}

/// Whether the order of a file and the one beside it is in doubt.
#[derive(Clone, Copy, Debug, Default)]
struct Doubts {
    /// That of the next file that is read.
    read: bool,
    /// That of the next file on the other side, which is passed over as older.
    passed_over: bool,
}

/// What the file system knows about a file, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    born: u64,
    written: u64,
    /// When it was renamed, or written if that was later.
    pub changed: u64,
}

impl Times {
    pub fn of(file: &Sibling) -> Self {
        let it = &file.metadata;
        let changed = it.ctime().saturating_mul(1_000_000_000).saturating_add(it.ctime_nsec());
        let changed = u64::try_from(changed).unwrap_or(0);
        Self { born: file.identity.birth(), written: written(file), changed }
    }

    /// It was written after it was renamed, or was never renamed, or the two were at the same time.
    fn is_late(&self) -> bool {
        self.written == self.changed
    }

    /// It was copied with its times.
    fn is_copied(&self) -> bool {
        self.written < self.born && self.born <= self.changed
    }

    /// Whether it was renamed after it was written, which a copy was not.
    pub fn is_renamed(&self) -> bool {
        self.born <= self.written && self.written < self.changed
    }

    /// Whether another file was created when this one was renamed.
    fn is_followed_by(&self, next: &Sibling) -> bool {
        let since = next.identity.birth().checked_sub(self.changed);
        since.is_some_and(|since| u128::from(since) <= ADJACENT.as_nanos())
    }
}

/// Whether the lower number was renamed away before the higher one was, or was created, where others may be copies, or the
/// clock was set back.
fn is_surely_upward(lower: &Sibling, higher: &Sibling) -> bool {
    let (low, high) = (Times::of(lower), Times::of(higher));
    let is_sound = low.written <= low.changed && high.written <= high.changed;
    let is_created_later = (low.is_renamed() || high.is_renamed()) && low.changed <= high.born;
    is_sound && is_created_later || low.is_renamed() && high.is_renamed() && low.changed < high.changed
}

impl Direction {
    fn of(lower: &Sibling, higher: &Sibling) -> Self {
        let (low, high) = (Times::of(lower), Times::of(higher));
        // Tools that compress a file create another one, and keep the time of the last write.
        let is_compressed = |file: &Sibling| without_compression(&file.name).is_some();
        if low.is_copied() || high.is_copied() || is_compressed(lower) || is_compressed(higher) {
            return Self::by(low.written.cmp(&high.written));
        }
        let births = Self::by(low.born.cmp(&high.born));
        // Upward, the lower one was renamed before the higher one was created.
        if births == Self::Upward && low.changed <= high.born {
            return Self::Upward;
        }
        // Downward, the higher one was renamed first each time.
        let renames = match (low.is_late(), high.is_late(), Self::by(low.changed.cmp(&high.changed))) {
            (false, false, order) => order,
            (true, false, Self::Upward) => Self::Upward,
            (false, true, Self::Downward) => Self::Downward,
            _ => Self::Equal,
        };
        match (births, renames) {
            (Self::Equal, renames) => renames,
            (Self::Downward, Self::Downward | Self::Equal) => Self::Downward,
            (Self::Upward, Self::Upward) => Self::Upward,
            _ => Self::Doubtful,
        }
    }

    /// By what the lower number has, compared with what the higher one has.
    fn by(order: Ordering) -> Self {
        match order {
            Ordering::Less => Self::Upward,
            Ordering::Greater => Self::Downward,
            Ordering::Equal => Self::Equal,
        }
    }
}

impl Numbered<'_> {
    /// The files that came after the own one, the oldest first, and whether others may be missing after them.
    pub fn younger(&self) -> (Vec<Next>, bool) {
        let (direction, doubts) = self.direction();
        let (mut files, mut misses_last) =
            if direction == Direction::Upward { self.upward() } else { self.downward() };
        if doubts.read {
            *files.first_mut().map_or(&mut misses_last, |next| &mut next.misses_some) = true;
        }
        // Those that are passed over would come before the file at the path.
        misses_last |= doubts.passed_over;
        (files, misses_last)
    }

    /// Whether the higher number is younger.
    pub fn is_upward(&self) -> bool {
        self.direction().0 == Direction::Upward
    }

    fn number(&self, at: usize) -> u64 {
        match self.files.get(at) {
            Some((Mark::Number(number), _)) => *number,
            _ => 0,
        }
    }

    fn file(&self, at: usize) -> Option<&Sibling> {
        self.files.get(at).map(|(_, file)| file)
    }

    /// How the rotation counts, and in which of the files beside the own one that is in doubt.
    fn direction(&self) -> (Direction, Doubts) {
        if let Some(direction) = self.known() {
            return (direction, Doubts::default());
        }
        let pairs = self.files.windows(2).filter_map(|pair| match pair {
            [(_, lower), (_, higher)] => Some(Direction::of(lower, higher)),
            _ => None,
        });
        let pairs = pairs.collect::<Vec<_>>();
        let count = |wanted| pairs.iter().filter(|pair| **pair == wanted).count();
        let (upward, downward) = (count(Direction::Upward), count(Direction::Downward));
        // In a directory that was copied, and after the clock was set back, the file at the path is rarely the last one.
        let born_last = self.files.iter().map(|(_, file)| file.identity.birth()).max();
        let is_last = self.current.is_none_or(|current| Some(current.identity.birth()) >= born_last);
        let is_upward = upward > downward && is_last;
        let direction = if is_upward && self.is_one_log() { Direction::Upward } else { Direction::Downward };
        let is_agreed = (upward == 0) != (downward == 0) && (upward > 0) == (direction == Direction::Upward);
        if is_agreed {
            return (direction, Doubts::default());
        }
        let is_doubtful = |at: usize| match (self.file(at), self.file(at + 1)) {
            (Some(lower), Some(higher)) if !is_last => is_surely_upward(lower, higher),
            _ => pairs.get(at).is_some_and(|pair| *pair != direction && *pair != Direction::Equal),
        };
        let (lower, higher) = (self.own.checked_sub(1).is_some_and(is_doubtful), is_doubtful(self.own));
        let (read, passed_over) =
            if direction == Direction::Upward { (higher, lower) } else { (lower, higher) };
        (direction, Doubts { read, passed_over })
    }

    /// Which of the files is the one at the path: a link leads to it, and files are created under their numbers.
    fn current(&self) -> Option<usize> {
        let current = self.current?.identity;
        self.files.iter().position(|(_, file)| file.identity == current).filter(|at| *at != self.own)
    }

    /// How the rotation counts, from the file at the path, or from one that is known to be older than the own one.
    fn known(&self) -> Option<Direction> {
        if let Some(current) = self.current() {
            return Some(Direction::by(self.own.cmp(&current)));
        }
        let is_older = |(_, file): &(Mark, Sibling)| self.older.contains(&file.identity);
        let (lower, higher) = self.files.split_at_checked(self.own)?;
        match (lower.iter().any(is_older), higher.iter().skip(1).any(is_older)) {
            (true, false) => Some(Direction::Upward),
            (false, true) => Some(Direction::Downward),
            _ => None,
        }
    }

    /// Two files alone may be two logs that are written at the same time.
    fn is_one_log(&self) -> bool {
        let [(_, lower), (_, higher)] = self.files else { return true };
        let Some(current) = self.current else { return true };
        let higher_times = Times::of(higher);
        let is_renamed = !higher_times.is_late() || higher_times.is_followed_by(current);
        self.own == 1
            || higher.identity.birth() >= written(lower)
                && current.identity.birth() >= higher_times.written
                && is_renamed
    }

    fn upward(&self) -> (Vec<Next>, bool) {
        let (mut files, mut misses_some, mut last) = (Vec::new(), false, self.number(self.own));
        for at in self.own + 1..self.current().unwrap_or(self.files.len()) {
            let (Some(file), number) = (self.file(at), self.number(at)) else { continue };
            misses_some |= self.hidden.iter().any(|hidden| last < *hidden && *hidden < number);
            if self.is_others(file, self.file(at + 1)) {
                misses_some = true;
                continue;
            }
            files.push(Next { file: file.clone(), misses_some: std::mem::take(&mut misses_some) });
            last = number;
        }
        (files, misses_some || self.hidden.iter().any(|hidden| *hidden > last))
    }

    fn downward(&self) -> (Vec<Next>, bool) {
        let (mut files, mut last) = (Vec::new(), self.number(self.own));
        for at in (self.current().map_or(0, |current| current + 1)..self.own).rev() {
            let (Some(file), number) = (self.file(at), self.number(at)) else { continue };
            if self.is_others(file, at.checked_sub(1).and_then(|next| self.file(next))) {
                continue;
            }
            files.push(Next { file: file.clone(), misses_some: number + 1 != last });
            last = number;
        }
        // The last one is 1, or 0. A file alone may have any number, as where the numbers go up.
        let may_miss_some = last > 1 && self.files.len() > 1 && !self.begins_with(last);
        (files, may_miss_some || self.hidden.iter().any(|hidden| *hidden < last))
    }

    /// Whether a rotation that counts downward begins with this number, which is not 1: the file with it was renamed away when
    /// the one at the path was created. Then the directory has not changed after that rotation, or the file was written until
    /// then. All this counts only if files live far longer, because one that lived for a moment would leave no trace.
    fn begins_with(&self, number: u64) -> bool {
        let mut files = self.files.iter().map(|(_, file)| file).collect::<Vec<_>>();
        let (Some(current), Some(last)) = (self.current, files.first().copied()) else { return false };
        if self.number(0) != number || self.current().is_some() {
            return false;
        }
        files.insert(0, current);
        let born = |file: &Sibling| file.identity.birth();
        let lives = files.windows(2).filter_map(|pair| match pair {
            [next, file] => Some(born(next).saturating_sub(born(file))),
            _ => None,
        });
        let shortest = Duration::from_nanos(lives.min().unwrap_or(0));
        let is_short = |from: u64, to: u64, most: Duration| {
            let time = to.checked_sub(from).map(Duration::from_nanos);
            // Births that contradict each other, as in a copy of the directory, give no life at all.
            time.is_some_and(|time| time <= most && !shortest.is_zero() && time * LIVES <= shortest)
        };
        let changed = last.place.changed().unwrap_or(u64::MAX);
        is_short(born(current), changed.max(born(current)), ADJACENT)
            || is_short(written(last), born(current), ADJACENT)
    }

    /// Whether a file may be another log: its name is none that only a rotation gives, and its times do not show that it was
    /// renamed after the own file, just before its successor was created.
    fn is_others(&self, file: &Sibling, next: Option<&Sibling>) -> bool {
        if is_rotated(file) || self.current().is_some() {
            return false;
        }
        let times = Times::of(file);
        let is_renamed_later = self.file(self.own).is_some_and(|own| Times::of(own).changed <= times.changed);
        let is_followed = || next.into_iter().chain(self.current).any(|next| times.is_followed_by(next));
        !is_renamed_later || times.is_late() && !is_followed()
    }
}

/// The same where no file is known to be the log's. `all` are the files of this way of naming, `current` is the one at the
/// path.
pub fn may_be_others(file: &Sibling, all: &[(Mark, Sibling)], current: Option<&Sibling>) -> bool {
    let times = Times::of(file);
    let mut next = all.iter().map(|(_, next)| next).chain(current).filter(|it| it.identity != file.identity);
    let mut is_followed = || next.any(|it| times.is_followed_by(it));
    !is_rotated(file) && times.is_late() && !is_followed()
}

/// Whether only a rotation gives such a name, or the operator says that it is one.
fn is_rotated(file: &Sibling) -> bool {
    let (log, name) = (&file.place.name, &file.name);
    is_rotation_or_compressed(log, name) || is_numbered_before_extension(log, name) || file.place.is_archive()
}

/// Whether the name is `app.1.log` beside `app.log`, which logrotate gives with its option `extension`.
fn is_numbered_before_extension(path: &str, name: &str) -> bool {
    let number = path.rsplit_once('.').and_then(|(stem, extension)| {
        name.strip_prefix(stem)?.strip_prefix('.')?.strip_suffix(extension)?.strip_suffix('.')
    });
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}
