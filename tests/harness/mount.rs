//! A disk that gets full: a real one, but small. Only root can mount it.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// The size of the file system.
const MOUNT: &str = "160m";

/// What is removed to make room: more than a segment takes.
const BALLAST_BYTES: usize = 72 * 1024 * 1024;

/// A small file system in memory, gone when this is dropped.
pub struct Mount(TempDir);

impl Mount {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={MOUNT}"), "tmpfs"]).arg(directory.path());
        assert!(mount.status().unwrap().success(), "a tmpfs cannot be mounted: only root can");
        Self(directory)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A file that takes room, until it is removed.
    pub fn ballast(&self) -> PathBuf {
        let path = self.path().join("ballast");
        fs::write(&path, vec![0; BALLAST_BYTES]).unwrap();
        path
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let mut rest = fs::File::create(self.path().join("rest")).unwrap();
        while rest.write_all(&[0; 4096]).is_ok() {}
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}
