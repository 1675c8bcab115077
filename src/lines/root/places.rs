//! The directories in which the history of a log may be: that of its path, those of the links on the path and of the file
//! that they lead to, and those that the operator named.
//!
//! A place only proposes names. The caller that opens one checks the rules, and proves that the file is the one that is
//! wanted.

use std::{
    fs::{File, Metadata},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{FilePath, Parent, Roots, Tree, rotated_name::is_rotation, tie::Tie, walk};
use crate::lines::identity::Identity;

/// The most directories that are searched below those that the operator named, and beside one that a link leads to: an
/// archive by day has as many in three years.
const MAX_DIRECTORIES: usize = 1000;

/// How deep the directories that the operator named are searched.
const MAX_DEPTH: usize = 16;

/// A directory in which generations of a log may be.
#[derive(Debug)]
pub struct Place {
    parent: Parent,
    /// The name of the log in it; with its directory, where [`below`](Self::below) is set.
    pub name: String,
    /// The files are in subdirectories, under this path: a link leads to one of them.
    below: Option<PathBuf>,
    /// Whether its files are the log's.
    tie: Tie,
}

/// A file that may be a rotated generation of the one that the caller asked for.
#[derive(Clone, Debug)]
pub struct Sibling {
    pub place: Arc<Place>,
    pub name: String,
    pub identity: Identity,
    pub metadata: Arc<Metadata>,
}

impl Parent {
    /// The place of the file that the caller asked for, in this directory.
    pub fn place(&self) -> Arc<Place> {
        let Self { tree, directory, asked, real, name, is_history, may_read, needs_right } = self;
        let (tree, directory, name) = (tree.clone(), directory.clone(), name.clone());
        let (asked, real, is_history) = (asked.clone(), real.clone(), *is_history);
        let (may_read, needs_right) = (may_read.clone(), *needs_right);
        let parent =
            Self { tree, directory, asked, real, name: name.clone(), is_history, may_read, needs_right };
        Arc::new(Place { parent, name, below: None, tie: Tie::Own })
    }
}

impl Roots {
    /// All places of a path, its own directory first; none if that does not exist.
    pub fn places(&self, path: &FilePath) -> Vec<Arc<Place>> {
        let Some(tree) = self.trees.get(&path.root) else { return Vec::new() };
        let Ok(place) = self.parent(path).map(|parent| parent.place()) else { return Vec::new() };
        let own = place.parent.real.clone();
        let mut places = vec![place];
        let asked = path.directory.join(&path.name);
        let (links, end) = walk::links(&tree.directory, &tree.homes, &asked);
        let is_linked = !links.is_empty();
        let for_caller = |place: Place| {
            let parent = Parent { may_read: path.may_read.clone(), ..place.parent };
            Place { parent, ..place }
        };
        for walk::Link { directory, name, rest } in links {
            let place = if rest.as_os_str().is_empty() {
                Place::beside(tree, &directory.join(name))
            } else {
                Place::beside_directory(tree, &directory.join(name), rest)
            };
            add(&mut places, place.map(&for_caller));
        }
        let end = end.filter(|_| is_linked).and_then(|end| Place::beside(tree, &end));
        add(&mut places, end.map(&for_caller));
        for directory in &tree.globs.history_directories {
            let mut found = Vec::new();
            Place::archives(tree, directory, &path.name, &mut found);
            for place in found {
                let is_same = place.parent.real == own;
                let tie = if is_same { Tie::Own } else { tree.tie(&place.parent.asked, &own, &path.name) };
                let parent = Parent { needs_right: tie != Tie::Own, ..place.parent };
                add(&mut places, Some(for_caller(Place { parent, tie, ..place })));
            }
        }
        places
    }
}

/// Each once.
fn add(places: &mut Vec<Arc<Place>>, place: Option<Place>) {
    let is_known = |place: &Place| places.iter().any(|other| other.is_same(place));
    if let Some(place) = place.filter(|place| !is_known(place)) {
        places.push(Arc::new(place));
    }
}

impl Place {
    /// The directory of a file.
    fn beside(tree: &Arc<Tree>, path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let parent = Parent::open_directory(tree, path.parent()?, name).ok()?;
        Some(Self { parent, name: name.into(), below: None, tie: Tie::Own })
    }

    /// The directory that holds the one that a link leads to: others in it may hold older files under the same path.
    fn beside_directory(tree: &Arc<Tree>, link: &Path, rest: PathBuf) -> Option<Self> {
        let target = walk::directory(&tree.directory, &tree.homes, link).ok()?.path;
        let name = Path::new(target.file_name()?).join(&rest).to_str()?.to_owned();
        let parent = Parent::open_directory(tree, target.parent()?, "").ok()?;
        Some(Self { parent, name, below: Some(rest), tie: Tie::Own })
    }

    /// A directory that the operator named, and those below it.
    fn archives(tree: &Arc<Tree>, directory: &Path, name: &str, found: &mut Vec<Self>) {
        let open = |path: &Path| {
            let parent = Parent::open_directory(tree, path, name).ok()?;
            Some(Parent { is_history: true, ..parent })
        };
        let Some(first) = open(directory) else {
            // It is the name of a file.
            let parent = directory.parent().and_then(open);
            found.extend(parent.map(|parent| Self { parent, name: name.into(), below: None, tie: Tie::Own }));
            return;
        };
        let mut waiting = vec![(first, 0)];
        while let Some((parent, depth)) = waiting.pop() {
            if let Some(listing) = parent.listing().ok().filter(|_| depth < MAX_DEPTH) {
                let room = MAX_DIRECTORIES.saturating_sub(found.len() + waiting.len());
                let children = listing.directories().take(room).filter_map(|name| parent.child(name).ok());
                waiting.extend(children.map(|child| (child, depth + 1)));
            }
            let parent = Parent { name: name.into(), ..parent };
            found.push(Self { parent, name: name.into(), below: None, tie: Tie::Own });
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        let key = |place: &Self| (place.parent.real.clone(), place.name.clone(), place.parent.is_history);
        key(self) == key(other)
    }

    /// Whether it is one that the operator named.
    pub fn is_archive(&self) -> bool {
        self.parent.is_history
    }

    /// Whether nothing says whose files are in it.
    pub fn is_loose(&self) -> bool {
        self.tie == Tie::Loose
    }

    /// Whether it is the directory of another place.
    pub fn is_beside(&self, other: &Self) -> bool {
        self.parent.real == other.parent.real
    }

    /// Whether its files are surely those of another log than the one at a path.
    pub fn is_of_another(&self, path: &Self) -> bool {
        self.parent.tree.is_of_another(&self.parent.asked, &path.parent.real, &path.name)
    }

    /// Whether the operator named a file as history.
    pub fn is_named(&self, name: &str) -> bool {
        self.parent.tree.globs.is_history(&self.parent.asked.join(name))
    }

    /// Opens a file by a name that this place proposed, if the rules admit it.
    pub fn open(&self, name: &str) -> io::Result<File> {
        let Some((directory, name)) = name.rsplit_once('/') else { return self.parent.open(name) };
        let directory = self.parent.real.join(directory);
        // The file has the name of the log, but may be of another: the caller needs a right to it.
        let parent = Parent::open_directory(&self.parent.tree, &directory, "")?;
        Parent { may_read: self.parent.may_read.clone(), ..parent }.open(name)
    }

    /// The names that may be of a file with this inode. A link may lead to any file: only those are tried that are named
    /// as a rotation of the log.
    pub fn names_of(&self, inode: u64) -> io::Result<Vec<String>> {
        if self.below.is_some() {
            return self.names();
        }
        let listing = self.parent.listing()?;
        let links = listing.links().filter(|name| is_rotation(&self.name, name));
        Ok(listing.with_inode(inode).chain(links).map(String::from).collect())
    }

    /// All names that it can propose.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let listing = self.parent.listing()?;
        let Some(below) = self.below.as_ref().and_then(|below| below.to_str()) else {
            let links = listing.links().filter(|name| is_rotation(&self.name, name));
            return Ok(listing.files().chain(links).map(String::from).collect());
        };
        let directories = listing.directories().take(MAX_DIRECTORIES);
        Ok(directories.map(|directory| format!("{directory}/{below}")).collect())
    }

    /// Whether the names are known to be complete: the directory did not change for a while.
    pub fn is_settled(&self) -> bool {
        self.parent.is_settled()
    }

    /// Whether the directory did not change for a time, as far as its file system and the clock say.
    pub fn holds_still_for(&self, time: Duration) -> bool {
        self.parent.holds_still_for(time)
    }

    /// When a name in the directory was added, renamed or removed last, in nanoseconds since 1970.
    pub fn changed(&self) -> io::Result<u64> {
        self.parent.changed()
    }

    /// The device and the inode of the directory.
    pub fn directory(&self) -> io::Result<(u64, u64)> {
        self.parent.identity()
    }

    /// Which file has a name that it proposed, if the rules admit it.
    pub fn identity_of(&self, name: &str) -> Option<Identity> {
        if name.contains('/') {
            return Some(Identity::of(&self.open(name).ok()?.metadata().ok()?));
        }
        self.parent.stat(name).map(|found| found.identity)
    }

    /// A file that it proposed, if the rules admit it.
    pub fn sibling(self: &Arc<Self>, name: &str) -> Option<Sibling> {
        let metadata = self.open(name).and_then(|file| file.metadata()).ok()?;
        let (place, identity) = (self.clone(), Identity::of(&metadata));
        Some(Sibling { place, name: name.into(), identity, metadata: Arc::new(metadata) })
    }
}
