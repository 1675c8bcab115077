//! The links and directories on a path, and how often they were replaced: each is an event, also if two come before the
//! path is inspected.

use super::Role;
use crate::lines::root::trail::{LinkIdentity, LinkPlace};

/// A watch of the directory of a link on the path, or of a directory on it.
#[derive(Debug)]
pub struct LinkWatch {
    /// The device and the inode of the directory.
    directory: (u64, u64),
    name: String,
    /// `None` where the system gives no watch.
    watch: Option<i32>,
    /// The link when it was last inspected.
    link: Option<LinkIdentity>,
    /// How many links came by events, minus those that inspections found.
    ahead: i64,
}

impl LinkWatch {
    /// To be called after the directory is watched, so that an event reports each link that is not this one.
    pub fn new(place: &LinkPlace, watch: Option<i32>) -> Self {
        let LinkPlace { identity, name, .. } = place;
        Self { directory: *identity, name: name.clone(), watch, link: place.link(), ahead: 0 }
    }

    pub fn is(&self, place: &LinkPlace) -> bool {
        self.is_watched() && self.directory == place.identity && self.name == place.name
    }

    pub fn is_watched(&self) -> bool {
        self.watch.is_some()
    }

    pub fn watch(&self) -> Option<(i32, Role)> {
        self.watch.map(|watch| (watch, Role::Link(self.name.clone())))
    }

    /// Whether it is at the name of the target in its directory, which has this watch.
    pub fn is_at(&self, (watch, role): &(i32, Role)) -> bool {
        self.watch == Some(*watch) && matches!(role, Role::Directory(name) if *name == self.name)
    }

    /// An event reports another link at this name, if it is this one.
    pub fn record_event(&mut self, watch: i32, name: &str) {
        self.ahead += i64::from(self.watch == Some(watch) && self.name == name);
    }

    /// Events were lost.
    pub fn forget_events(&mut self) {
        self.ahead = 0;
    }

    /// Its place is no longer on the path; `is_replaced`: by a file of its name. Returns how many links came that no
    /// inspection found, as far as events reported them by now.
    pub fn leave(&mut self, is_replaced: bool) -> usize {
        self.ahead -= i64::from(is_replaced);
        self.take_unseen()
    }

    /// How many links came that no inspection found, which are counted no more.
    pub fn take_unseen(&mut self) -> usize {
        let unseen = usize::try_from(self.ahead).unwrap_or(0);
        self.ahead = self.ahead.min(0);
        unseen
    }

    /// Inspects the link; `leads_elsewhere`: the path does not lead where it led at the last inspection. Returns how many
    /// links had the name in between.
    pub fn inspect(&mut self, place: &LinkPlace, leads_elsewhere: bool) -> usize {
        let link = place.link();
        let is_replaced = std::mem::replace(&mut self.link, link) != link && link.is_some();
        // The last inspection may have read the link just before it was replaced.
        if is_replaced || leads_elsewhere && self.ahead > 0 {
            self.ahead -= 1;
        }
        self.take_unseen()
    }
}

/// The watches of the links and directories of a path.
#[derive(Debug, Default)]
pub struct Links {
    /// Of those that are on the path now.
    pub on_path: Vec<LinkWatch>,
    /// Of those that were on it, with the marks up to which their events are recorded.
    pub leaving: Vec<(LinkWatch, i32)>,
}

impl Links {
    /// All of them, in no order.
    pub fn all(&mut self) -> impl Iterator<Item = &mut LinkWatch> {
        self.on_path.iter_mut().chain(self.leaving.iter_mut().map(|(link, _)| link))
    }

    /// The watch of a place that is on the path again.
    pub fn take_leaving(&mut self, place: &LinkPlace) -> Option<LinkWatch> {
        let at = self.leaving.iter().position(|(link, _)| link.is(place))?;
        Some(self.leaving.swap_remove(at).0)
    }

    /// A mark is reached, or a watch is gone with its directory: all events before that are recorded. Returns the watches that
    /// are needed no longer, and how many links or directories came that no inspection found.
    pub fn forget(&mut self, watch: i32) -> (Vec<(i32, Role)>, usize) {
        let is_of = |link: &LinkWatch| link.watch == Some(watch);
        let gone = self.on_path.extract_if(.., |link| is_of(link));
        let left = self.leaving.extract_if(.., |(link, mark)| *mark == watch || is_of(link));
        let mut gone = gone.chain(left.map(|(link, _)| link)).collect::<Vec<_>>();
        let unseen = gone.iter_mut().map(LinkWatch::take_unseen).sum();
        (gone.iter().filter_map(LinkWatch::watch).collect(), unseen)
    }

    /// The watches, and those of the marks.
    pub fn watches(&self) -> impl Iterator<Item = (i32, Role)> {
        let marks = self.leaving.iter().map(|(_, mark)| (*mark, Role::Mark));
        let leaving = self.leaving.iter().map(|(link, _)| link);
        self.on_path.iter().chain(leaving).filter_map(LinkWatch::watch).chain(marks)
    }
}
