//! The directories and files that one stream knows, and how they are compared with the disk. Everything here blocks.
//!
//! A directory is watched before its names are read, so that no change falls between. Links to directories are not
//! followed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::SystemTime,
};

use rustix::fs::FileType;
use tokio_util::sync::CancellationToken;

use super::{
    Selection,
    held::Share,
    notices::{Changes, Inbox, Names, Watch},
};
use crate::{
    blocking::give_way,
    lines::{
        Error, FileInfo, Inner, Shows,
        root::{
            Parent,
            list::{file_info, vanished},
            rotated_name::strict_bases,
        },
    },
};

/// Of each directory, this many shown files are remembered after they went: rotations of them stay hidden.
const MAX_BASES: usize = 1_000;

/// What to compare.
#[derive(Debug)]
pub enum Look {
    /// Everything.
    All,
    /// The names that changed.
    Changes(Changes),
    /// What no event reports: directories without a watch, and links, whose targets may be elsewhere.
    Poll,
}

/// The differences to the last look.
#[derive(Debug, Default)]
pub struct Found {
    pub added: Vec<FileInfo>,
    pub gone: Vec<String>,
}

/// A file that came or went in a look, perhaps several times.
#[derive(Debug)]
struct Difference {
    /// It was shown before the look.
    was_shown: bool,
    /// It is shown now.
    info: Option<FileInfo>,
}

/// What a stream knows.
#[derive(Debug)]
pub struct State {
    pub inner: Arc<Inner>,
    pub selection: Selection,
    pub shows: Shows,
    /// Rotations of shown files are shown, too.
    pub shows_rotated: bool,
    pub inbox: Arc<Inbox>,
    /// Cancelled when the stream is dropped.
    pub gone: CancellationToken,
    /// By path, with a `/` at its end.
    directories: BTreeMap<String, Directory>,
    /// The files in all directories.
    files: usize,
    share: Share,
    generation: u64,
    /// The files that came or went in this look.
    differences: BTreeMap<String, Difference>,
}

#[derive(Debug, Default)]
struct Directory {
    watch: Option<Watch>,
    is_remote: bool,
    /// The last look at everything that found it.
    generation: u64,
    /// The names that match and can be read.
    present: BTreeSet<String>,
    shown: BTreeSet<String>,
    /// Names that were shown.
    bases: BTreeSet<String>,
    /// Links that match, wherever they lead.
    links: BTreeSet<String>,
}

impl Directory {
    fn is_hidden(&self, name: &str) -> bool {
        // A log that has just been renamed is among those that were shown at the last look.
        let names = [&self.present, &self.shown, &self.bases];
        strict_bases(name).any(|base| names.iter().any(|names| names.contains(base)))
    }

    fn is_polled(&self) -> bool {
        self.watch.is_none() || self.is_remote
    }
}

impl State {
    pub fn new(
        inner: Arc<Inner>,
        selection: Selection,
        shows: Shows,
        shows_rotated: bool,
        gone: CancellationToken,
    ) -> Self {
        Self {
            share: inner.watched.share(),
            inner,
            selection,
            shows,
            shows_rotated,
            inbox: Arc::default(),
            gone,
            directories: BTreeMap::new(),
            files: 0,
            generation: 0,
            differences: BTreeMap::new(),
        }
    }

    /// Whether there is something that no event reports.
    pub fn needs_poll(&self) -> bool {
        self.directories.values().any(|it| it.is_polled() || !it.links.is_empty())
    }

    /// Compares with the disk, and returns the differences.
    pub fn look(&mut self, look: Look) -> Result<Found, Error> {
        match look {
            Look::All | Look::Changes(Changes { all: true, .. }) => self.look_at_all()?,
            Look::Changes(Changes { directories, .. }) => self.look_at(directories)?,
            Look::Poll => {
                let polled = self.directories.iter().filter_map(|(path, it)| {
                    let links = (!it.links.is_empty()).then(|| Names::Some(it.links.clone()));
                    let names = if it.is_polled() { Some(Names::All) } else { links };
                    Some((Arc::from(path.as_str()), names?))
                });
                let polled = polled.collect();
                self.look_at(polled)?;
            }
        }
        let mut found = Found::default();
        for (path, Difference { was_shown, info }) in std::mem::take(&mut self.differences) {
            match info {
                Some(info) if !was_shown => found.added.push(info),
                None if was_shown => found.gone.push(path),
                _ => {}
            }
        }
        self.count(0)?;
        Ok(found)
    }

    fn look_at_all(&mut self) -> Result<(), Error> {
        self.generation += 1;
        let roots = self.selection.roots().map(|root| format!("{root}/")).collect();
        self.walk(roots, true)?;
        let is_old = |(_, it): &(&String, &Directory)| it.generation != self.generation;
        let old = self.directories.iter().filter(is_old).map(|(path, _)| path.clone()).collect::<Vec<_>>();
        for path in &old {
            self.forget(path);
        }
        Ok(())
    }

    fn look_at(&mut self, directories: BTreeMap<Arc<str>, Names>) -> Result<(), Error> {
        for (path, names) in directories {
            // It may have gone with the one above it.
            if self.directories.contains_key(&*path) {
                match names {
                    Names::All => self.walk(vec![path.to_string()], false)?,
                    Names::Some(names) => self.look_at_names(&path, names)?,
                }
            }
        }
        Ok(())
    }

    /// Reads directories, and those below them: all with `is_deep`, or else those that are new.
    fn walk(&mut self, mut ahead: Vec<String>, is_deep: bool) -> Result<(), Error> {
        while let Some(path) = ahead.pop() {
            let below = self.read(&path)?;
            let known = |path: &String| self.directories.contains_key(path);
            ahead.extend(below.into_iter().filter(|path| is_deep || !known(path)));
        }
        Ok(())
    }

    /// Opens a directory. If it is not there, forgets it and all below it.
    fn open(&mut self, path: &str) -> Result<Option<Parent>, Error> {
        if self.gone.is_cancelled() {
            return Err(io::Error::other("the stream was dropped").into());
        }
        give_way();
        let opened = vanished(self.inner.roots.branch(path).map(Some), path)?;
        if opened.is_none() {
            self.forget(path);
        }
        Ok(opened)
    }

    /// Reads the names of a directory. Returns the directories in it.
    fn read(&mut self, path: &str) -> Result<BTreeSet<String>, Error> {
        let Some(parent) = self.open(path)? else { return Ok(BTreeSet::new()) };
        let mut directory = Directory {
            watch: self.inner.notices.watch(&parent, path, &self.inbox),
            is_remote: parent.is_remote(),
            generation: self.generation,
            ..Directory::default()
        };
        // Its names were counted when it was read last.
        let known = self.directories.get(path).map_or(0, |it| it.present.len());
        let (mut names, mut below) = (Vec::new(), BTreeSet::new());
        for entry in vanished(parent.admitted_names().map(Some), path)?.into_iter().flatten() {
            give_way();
            let Some((name, kind)) = vanished(entry.map(Some), path)? else { break };
            if kind == FileType::Directory {
                below.extend(Some(format!("{path}{name}/")).filter(|below| self.enters(below)));
            } else if self.wants(path, &name, kind) {
                if kind == FileType::Symlink {
                    directory.links.insert(name.clone());
                }
                names.push(name);
                self.count(names.len().saturating_sub(known))?;
            }
        }
        let mut infos = BTreeMap::new();
        for name in names {
            give_way();
            if let Some(info) = info(&parent, path, &name)? {
                directory.present.insert(name.clone());
                infos.insert(name, info);
            }
        }
        let known = self.directories.range(path.to_owned()..).map(|(path, _)| path);
        let known = known.take_while(|known| known.starts_with(path)).filter(|known| *known != path);
        let is_gone = |known: &&String| {
            let end = known.get(path.len()..).and_then(|rest| rest.find('/')).unwrap_or(0);
            !known.get(..=path.len() + end).is_some_and(|child| below.contains(child))
        };
        let gone = known.filter(is_gone).cloned().collect::<Vec<_>>();
        for path in &gone {
            self.forget(path);
        }
        if let Some(old) = self.directories.remove(path) {
            self.files -= old.present.len();
            (directory.shown, directory.bases) = (old.shown, old.bases);
        }
        self.keep(path, directory, infos)?;
        Ok(below)
    }

    /// Inspects names of a known directory.
    fn look_at_names(&mut self, path: &str, names: BTreeSet<String>) -> Result<(), Error> {
        let Some(parent) = self.open(path)? else { return Ok(()) };
        let (mut infos, mut gone, mut links, mut below) =
            (BTreeMap::new(), Vec::new(), BTreeSet::new(), Vec::new());
        for name in names {
            give_way();
            let kind = parent.admitted_kind(&name);
            let child = format!("{path}{name}/");
            if kind == Some(FileType::Directory) {
                // It may be another one under the same name.
                below.extend(Some(child).filter(|below| self.enters(below)));
            } else if self.directories.contains_key(&child) {
                self.forget(&child);
            }
            let kind = kind.filter(|kind| self.wants(path, &name, *kind));
            let info = match kind {
                Some(_) => info(&parent, path, &name)?,
                None => None,
            };
            if kind == Some(FileType::Symlink) {
                links.insert(name.clone());
            }
            match info {
                Some(info) => drop(infos.insert(name, info)),
                None => gone.push((name, kind.is_some())),
            }
        }
        if let Some(mut directory) = self.directories.remove(path) {
            self.files -= directory.present.len();
            for (name, is_there) in gone {
                directory.present.remove(&name);
                if !is_there {
                    directory.links.remove(&name);
                }
            }
            directory.links.append(&mut links);
            directory.present.extend(infos.keys().cloned());
            self.keep(path, directory, infos)?;
        }
        self.walk(below, true)
    }

    /// Keeps a directory, and records which of its files came and went.
    fn keep(
        &mut self,
        path: &str,
        mut directory: Directory,
        mut infos: BTreeMap<String, FileInfo>,
    ) -> Result<(), Error> {
        let is_shown = |name: &&String| self.shows_rotated || !directory.is_hidden(name);
        let shown = directory.present.iter().filter(is_shown).cloned().collect::<BTreeSet<_>>();
        for name in directory.shown.difference(&shown) {
            went(&mut self.differences, format!("{path}{name}"));
            directory.bases.insert(name.clone());
        }
        while directory.bases.len() > MAX_BASES {
            directory.bases.pop_first();
        }
        for name in shown.difference(&directory.shown) {
            if let Some(info) = infos.remove(name) {
                let difference = Difference { was_shown: false, info: None };
                let path = format!("{path}{name}");
                self.differences.entry(path).or_insert(difference).info = Some(info);
            }
        }
        directory.shown = shown;
        self.files += directory.present.len();
        self.directories.insert(path.to_owned(), directory);
        self.count(0)
    }

    /// Forgets a directory and those below it.
    fn forget(&mut self, path: &str) {
        let known = self.directories.range(path.to_owned()..).map(|(path, _)| path);
        let gone = known.take_while(|known| known.starts_with(path)).cloned().collect::<Vec<_>>();
        for path in gone {
            if let Some(directory) = self.directories.remove(&path) {
                self.files -= directory.present.len();
                for name in directory.shown {
                    went(&mut self.differences, format!("{path}{name}"));
                }
            }
        }
    }

    /// Counts what is held, and names that are about to be.
    fn count(&mut self, more: usize) -> Result<(), Error> {
        let (limit, count) =
            (self.inner.options.max_watched_per_stream, self.files + self.directories.len() + more);
        if count > limit {
            return Err(Error::TooManyFiles { limit });
        }
        self.share.set(count)
    }

    fn wants(&self, path: &str, name: &str, kind: FileType) -> bool {
        let path = format!("{path}{name}");
        matches!(kind, FileType::RegularFile | FileType::Symlink)
            && path.len() <= crate::lines::root::MAX_PATH_BYTES
            && self.selection.holds(&path)
            && (self.shows.file)(&path)
    }

    fn enters(&self, path: &str) -> bool {
        self.selection.reaches(path) && (self.shows.below)(path)
    }
}

fn went(differences: &mut BTreeMap<String, Difference>, path: String) {
    differences.entry(path).or_insert(Difference { was_shown: true, info: None }).info = None;
}

fn info(parent: &Parent, path: &str, name: &str) -> Result<Option<FileInfo>, Error> {
    file_info(parent, name, &format!("{path}{name}"), SystemTime::now())
}
