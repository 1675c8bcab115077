//! The data directory: readable only by its owner, and locked by one server at a time.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::{directory, messages::LockFile};

/// The file that is locked. Its content names the process that holds the lock.
const LOCK: &str = "LOCK";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has locked the directory.
    #[error("{} is in use by {holder}: stop it, or name another directory with --data", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process, as the lock file names it.
        holder: String,
    },
    /// The file system gave an error.
    #[error("{}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
}

/// A data directory that is locked until this is dropped or the process ends.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    lock: File,
    /// Locked too, so that removing the file `LOCK` does not let a second server in; where the file system can do that.
    _directory: File,
    is_directory_locked: bool,
    /// Likewise. It may be a link, which a copy of the data directory shares.
    log: Option<File>,
}

/// The directory of the log in a data directory.
const LOG: &str = "messages";

impl DataDirectory {
    /// Creates the directory if it does not exist, and locks it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let at = |source| Error::Io { path: path.into(), source };
        directory::create(path).map_err(at)?;
        let path = fs::canonicalize(path).map_err(at)?;
        let locked = lock_directory(&path).map_err(at)?;
        Self::open_locked(path, locked)
    }

    fn open_locked(path: PathBuf, (directory, outcome): (File, Outcome)) -> Result<Self, Error> {
        let at = |source| Error::Io { path: path.clone(), source };
        let lock = File::options().read(true).write(true).create(true).truncate(false).open(path.join(LOCK));
        let mut lock = lock.map_err(at)?;
        let is_locked = match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => false,
            Err(error) => return Err(at(error.into())),
            Ok(()) => true,
        };
        if outcome == Outcome::OfAnother || !is_locked {
            let mut holder = String::new();
            let _ = lock.read_to_string(&mut holder);
            let holder = Some(holder.trim()).filter(|holder| !holder.is_empty()).unwrap_or("another server");
            return Err(Error::Locked { path, holder: holder.into() });
        }
        let is_directory_locked = outcome == Outcome::Locked;
        let mut data = Self { path, lock, _directory: directory, is_directory_locked, log: None };
        if data.log().exists() {
            data.lock_log()?;
        }
        Ok(data)
    }

    /// Creates the directory of the log if it does not exist, and locks it.
    pub fn create_log(&mut self) -> Result<PathBuf, Error> {
        let log = self.log();
        directory::create(&log).map_err(|source| Error::Io { path: log.clone(), source })?;
        self.lock_log()?;
        Ok(log)
    }

    fn lock_log(&mut self) -> Result<(), Error> {
        if self.log.is_some() {
            return Ok(());
        }
        let path = self.log();
        match lock_directory(&path) {
            Ok((log, Outcome::Locked | Outcome::Unsupported)) => {
                self.log = Some(log);
                Ok(())
            }
            Ok((_, Outcome::OfAnother)) => {
                Err(Error::Locked { path, holder: "a server with another data directory".into() })
            }
            Err(source) => Err(Error::Io { path, source }),
        }
    }

    /// Writes the URL of this server into the lock file.
    pub fn sign(&mut self, url: &str) -> io::Result<()> {
        self.sign_as(&format!("at {url}"))
    }

    /// Writes what this process does into the lock file.
    pub fn sign_as(&mut self, what: &str) -> io::Result<()> {
        self.lock.set_len(0)?;
        self.lock.rewind()?;
        writeln!(self.lock, "process {} {what}", std::process::id())
    }

    /// The lock file, if it alone keeps a second server out: then the log must notice when it is gone.
    pub fn lock_file(&self) -> Result<Option<LockFile>, Error> {
        if self.is_directory_locked {
            return Ok(None);
        }
        let path = self.path.join(LOCK);
        let lock_file =
            LockFile::new(path.clone(), &self.lock).map_err(|source| Error::Io { path, source })?;
        Ok(Some(lock_file))
    }

    /// The canonical path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the directory of the log.
    pub fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }
}

/// What came of locking a directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outcome {
    Locked,
    /// Another process has locked it.
    OfAnother,
    /// Some network file systems cannot lock a directory; the file `LOCK` is locked all the same.
    Unsupported,
}

/// Opens and locks a directory.
fn lock_directory(path: &Path) -> io::Result<(File, Outcome)> {
    let directory = File::open(path)?;
    let outcome = match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Outcome::Locked,
        Err(rustix::io::Errno::WOULDBLOCK) => Outcome::OfAnother,
        Err(_) => Outcome::Unsupported,
    };
    Ok((directory, outcome))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_private_and_names_the_process_that_holds_the_lock() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("new/data");
        let mut first = DataDirectory::open(&path).unwrap();
        first.sign("http://127.0.0.1:50051").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);

        let text = DataDirectory::open(&path).unwrap_err().to_string();
        assert!(
            text.contains(&format!("process {} at http://127.0.0.1:50051", std::process::id())),
            "{text}"
        );
        assert!(text.contains("--data"), "{text}");

        drop(first);
        assert!(DataDirectory::open(&path).is_ok());
    }

    #[test]
    fn a_copy_that_shares_the_log_by_a_link_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let [path, copy, log] = ["data", "copy", "log"].map(|name| parent.path().join(name));
        fs::create_dir(&log).unwrap();
        for path in [&path, &copy] {
            fs::create_dir(path).unwrap();
        }
        std::os::unix::fs::symlink(&log, copy.join(LOG)).unwrap();
        for is_new in [true, false] {
            if is_new {
                fs::remove_dir(&log).unwrap();
                std::os::unix::fs::symlink(path.join(LOG), &log).unwrap();
            }
            let mut first = DataDirectory::open(&path).unwrap();
            first.create_log().unwrap();
            let refused = DataDirectory::open(&copy).unwrap_err();
            assert!(matches!(&refused, Error::Locked { path, .. } if *path == copy.join(LOG)), "{refused}");
            drop(first);
            assert!(DataDirectory::open(&copy).is_ok(), "new: {is_new}");
        }
    }

    #[test]
    fn removing_the_lock_file_does_not_let_a_second_server_in() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let first = DataDirectory::open(&path).unwrap();
        for _ in 0..2 {
            fs::remove_file(path.join(LOCK)).unwrap();
            let refused = DataDirectory::open(&path).unwrap_err();
            assert!(matches!(refused, Error::Locked { .. }), "{refused}");
        }
        drop(first);
        assert!(DataDirectory::open(&path).is_ok());
    }

    /// A file system that cannot lock a directory, as some network file systems.
    fn open_unlockable(path: &Path) -> DataDirectory {
        directory::create(path).unwrap();
        let path = fs::canonicalize(path).unwrap();
        let directory = File::open(&path).unwrap();
        DataDirectory::open_locked(path, (directory, Outcome::Unsupported)).unwrap()
    }

    #[tokio::test]
    async fn where_a_directory_cannot_be_locked_a_log_whose_lock_file_is_gone_accepts_no_message() {
        use crate::messages::{self, Log, NewMessage};
        let message = || NewMessage { topic: "a".into(), ..NewMessage::default() };
        for is_moved in [false, true] {
            let parent = tempfile::tempdir().unwrap();
            let path = parent.path().join("data");
            let mut first = open_unlockable(&path);
            let lock_file = first.lock_file().unwrap();
            assert!(lock_file.is_some());
            let config = messages::Config { lock_file, ..messages::Config::default() };
            let (log, _) = Log::open(&first.create_log().unwrap(), config).unwrap();
            // Its directory cannot be locked either.
            first.log = None;
            log.publish(message()).await.unwrap();
            first.sign("http://127.0.0.1:1").unwrap();
            // A signature changes nothing.
            log.publish(message()).await.unwrap();
            if is_moved {
                fs::rename(path.join(LOCK), path.join("other")).unwrap();
            } else {
                fs::remove_file(path.join(LOCK)).unwrap();
            }
            let _second = open_unlockable(&path);
            let refused = log.publish(message()).await;
            assert!(matches!(refused, Err(messages::Error::Failed)), "moved: {is_moved}: {refused:?}");
            assert!(*log.failed().borrow(), "moved: {is_moved}");
        }
    }

    #[test]
    fn a_locked_directory_needs_no_watch_over_its_lock_file() {
        let parent = tempfile::tempdir().unwrap();
        let first = DataDirectory::open(parent.path()).unwrap();
        assert!(first.lock_file().unwrap().is_none());
    }
}
