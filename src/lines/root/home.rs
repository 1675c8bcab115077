//! Where the operator's path of a root leads, compared with the directory that is served.

use std::{
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use super::{FilePath, Roots};

/// The path of a root.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    /// The device and the inode of the directory that is served.
    directory: (u64, u64),
    /// The path leads to another directory, or to none.
    is_elsewhere: AtomicBool,
}

impl Home {
    pub fn new(path: &Path, directory: impl AsFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(directory)?;
        let (path, directory) = (std::path::absolute(path)?, (stat.st_dev, stat.st_ino));
        Ok(Self { path, directory, is_elsewhere: AtomicBool::new(false) })
    }

    /// Logs a change.
    fn check(&self, root: &str) {
        let is_elsewhere = match std::fs::metadata(&self.path) {
            Ok(found) => (found.dev(), found.ino()) != self.directory,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            // It may lead there again at the next look.
            Err(_) => return,
        };
        if self.is_elsewhere.swap(is_elsewhere, Ordering::Relaxed) == is_elsewhere {
            return;
        }
        let path = self.path.display();
        if is_elsewhere {
            tracing::warn!(root, %path, "the path of a root does not lead to the directory that is served: a restart opens the one that is there");
        } else {
            tracing::info!(root, %path, "the path of a root leads to the directory that is served again");
        }
    }
}

impl Roots {
    /// Logs whether the path of the root of a file still leads to the directory that is served.
    pub fn check_home(&self, path: &FilePath) {
        if let Some(tree) = self.trees.get(&path.root) {
            tree.home.check(&path.root);
        }
    }
}
