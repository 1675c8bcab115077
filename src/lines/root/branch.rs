//! The directories of a root as a tree: each is reached from the root by its names, and never over a link.

use std::{io, path::Path};

use rustix::fs::FileType;

use super::{Entry, Parent, Roots};

impl Roots {
    /// Whether there is a root of this name.
    pub fn has_root(&self, root: &str) -> bool {
        self.trees.contains_key(root)
    }

    /// Opens a directory below a root. `path` is `ROOT/` or `ROOT/dir/`.
    ///
    /// # Errors
    /// A directory on the path is missing, is a link, or is denied.
    pub fn branch(&self, path: &str) -> io::Result<Parent> {
        let mut names = path.split_terminator('/');
        let mut directory = self.directory(names.next().unwrap_or_default(), Path::new(""), "")?;
        for name in names {
            if !directory.may_hold(name, true) {
                return Err(io::ErrorKind::NotFound.into());
            }
            directory = directory.child(name)?;
        }
        Ok(directory)
    }
}

impl Parent {
    /// The names in this directory that are UTF-8 and that the rules may admit, and the type of each.
    pub fn admitted_names(&self) -> io::Result<impl Iterator<Item = io::Result<(String, FileType)>>> {
        let admitted = |entry: io::Result<Entry>| match entry {
            Ok(Entry { name, kind, .. }) => {
                let name = name.into_string().ok()?;
                self.may_hold(&name, kind == FileType::Directory).then_some(Ok((name, kind)))
            }
            Err(error) => Some(Err(error)),
        };
        Ok(self.read()?.filter_map(admitted))
    }

    /// The type of a name; `None` if it is not there, or the rules do not admit it.
    pub fn admitted_kind(&self, name: &str) -> Option<FileType> {
        let kind = self.kind(name.as_ref());
        (kind != FileType::Unknown && self.may_hold(name, kind == FileType::Directory)).then_some(kind)
    }
}
