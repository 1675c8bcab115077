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
