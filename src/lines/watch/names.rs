//! The names of the files that were at a path, in the order in which events reported them.

use std::collections::HashMap;

use rustix::fs::inotify::ReadFlags;

use crate::lines::history::generation::Came;

/// How many files of a path are opened before they are put into its chain, which keeps no more open than it should.
const OPENED_AT_ONCE: usize = 8;

/// The most names that are remembered of one path: a rotation keeps far fewer.
const MAX_NAMES: usize = 1000;

/// The names of the files that were at a path, as events reported them.
#[derive(Debug, Default)]
pub struct Names {
    /// Which of the files that were at the path has this name now, and which change gave it.
    files: HashMap<String, (u64, u64)>,
    /// Files between two names, by the cookie of the two events.
    moving: HashMap<u32, u64>,
    /// Files that came to the path and were not opened yet, in order.
    pending: Vec<(u64, Came)>,
    /// The number of the next file.
    next: u64,
    changes: u64,
}

/// A file that came to the path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pending {
    id: u64,
    pub came: Came,
    /// Its name, and which change gave it. `None` if it has no name in this directory any more.
    name: Option<(String, u64)>,
}

impl Pending {
    /// Its name.
    pub fn name(&self) -> Option<&str> {
        self.name.as_ref().map(|(name, _)| name.as_str())
    }
}

impl Names {
    /// How many events changed something.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The first files that came to the path and were not opened yet, by their present names.
    pub fn pending(&self) -> impl Iterator<Item = Pending> {
        self.pending.iter().take(OPENED_AT_ONCE).map(|(id, came)| {
            let name = self.files.iter().find(|(_, (other, _))| other == id);
            Pending { id: *id, came: *came, name: name.map(|(name, (_, change))| (name.clone(), *change)) }
        })
    }

    /// How many of these still have the name that they had.
    pub fn confirmed<'a>(&self, opened: impl Iterator<Item = &'a Pending>) -> usize {
        self.pending().zip(opened).take_while(|(now, then)| now == *then).count()
    }

    /// The first `count` were opened. For each, whether it is the one that came last.
    pub fn take_pending(&mut self, count: usize) -> impl Iterator<Item = bool> + use<> {
        let last = self.pending.len();
        self.pending.drain(..count.min(last));
        (1..=count).map(move |nth| nth == last)
    }

    /// Some were not opened.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Events were lost: nothing is known any more.
    pub fn forget(&mut self) {
        *self = Self { next: self.next, changes: self.changes + 1, ..Self::default() };
    }

    /// `path` is the name that is followed.
    pub fn take(&mut self, path: &str, kind: ReadFlags, name: &str, cookie: u32) {
        let is_path = name == path;
        let arrives = kind.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
        let had = self.files.remove(name).map(|(id, _)| id);
        if kind.contains(ReadFlags::MOVED_FROM) {
            had.and_then(|id| self.moving.insert(cookie, id));
        }
        let moved = if kind.contains(ReadFlags::MOVED_TO) { self.moving.remove(&cookie) } else { None };
        let arrived = moved.or_else(|| {
            self.next += u64::from(is_path && arrives);
            (is_path && arrives).then_some(self.next)
        });
        if let Some(id) = arrived {
            self.files.insert(name.into(), (id, self.changes));
            let came = if kind.contains(ReadFlags::MOVED_TO) { Came::Renamed } else { Came::Created };
            self.pending.extend(is_path.then_some((id, came)));
        }
        self.changes += u64::from(is_path || had.is_some() || arrived.is_some());
        if self.files.len() > MAX_NAMES || self.moving.len() > MAX_NAMES {
            self.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(names: &Names) -> Vec<Option<String>> {
        names.pending().map(|pending| pending.name().map(String::from)).collect()
    }

    #[test]
    fn files_that_came_to_a_path_are_known_in_order_by_the_names_they_have_now() {
        let mut names = Names::default();
        let mut take = |kind, name: &str, cookie| names.take("log", kind, name, cookie);
        take(ReadFlags::CREATE, "log", 0);
        take(ReadFlags::MOVED_FROM, "log", 1);
        take(ReadFlags::MOVED_TO, "log.1", 1);
        take(ReadFlags::CREATE, "log", 0);
        take(ReadFlags::MOVED_FROM, "log.1", 2);
        take(ReadFlags::MOVED_TO, "log.2", 2);
        take(ReadFlags::MOVED_FROM, "log", 3);
        take(ReadFlags::MOVED_TO, "log.1", 3);
        take(ReadFlags::MOVED_TO, "log", 4);
        take(ReadFlags::CREATE, "other", 0);
        assert_eq!(present(&names), [Some("log.2".into()), Some("log.1".into()), Some("log".into())]);
        let came = names.pending().map(|pending| pending.came).collect::<Vec<_>>();
        assert_eq!(came, [Came::Created, Came::Created, Came::Renamed]);
        names.take("log", ReadFlags::DELETE, "log.2", 0);
        names.take("log", ReadFlags::MOVED_FROM, "log.1", 5);
        assert_eq!(present(&names), [None, None, Some("log".into())]);
        assert_eq!(names.take_pending(2).collect::<Vec<_>>(), [false, false]);
        assert_eq!(names.take_pending(1).collect::<Vec<_>>(), [true]);
        assert!(!names.has_pending());
    }

    #[test]
    fn a_file_whose_name_another_one_got_meanwhile_is_not_confirmed() {
        let mut names = Names::default();
        names.take("log", ReadFlags::CREATE, "log", 0);
        names.take("log", ReadFlags::MOVED_FROM, "log", 1);
        names.take("log", ReadFlags::MOVED_TO, "log.1", 1);
        names.take("log", ReadFlags::CREATE, "log", 0);
        let opened = names.pending().collect::<Vec<_>>();
        assert_eq!(names.confirmed(opened.iter()), 2);
        // Away and back: in between another one may have been opened.
        names.take("log", ReadFlags::MOVED_FROM, "log", 2);
        names.take("log", ReadFlags::MOVED_TO, "log", 2);
        assert_eq!(names.confirmed(opened.iter()), 1);
        names.take("log", ReadFlags::DELETE, "log.1", 0);
        assert_eq!(names.confirmed(opened.iter()), 0);
    }
}
