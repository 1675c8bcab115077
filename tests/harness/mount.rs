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

/// A small file system, gone when this is dropped.
pub struct Mount {
    directory: TempDir,
    /// The disk of a file system that is not in memory.
    image: Option<TempDir>,
}

impl Mount {
    pub fn new() -> Self {
        Self::in_memory(&format!("size={MOUNT}"))
    }

    /// A file system in memory, with these options of `mount`.
    pub fn in_memory(options: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(directory.path()));
        Self { directory, image: None }
    }

    /// A file system of a kind, as of `mkfs.ext4`, of a size as `truncate` reads it.
    pub fn of_kind(kind: &str, size: &str) -> Self {
        let (directory, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = image.path().join("disk");
        run(Command::new("truncate").args(["-s", size]).arg(&path));
        run(Command::new(format!("mkfs.{kind}")).arg("-q").arg(&path));
        run(Command::new("mount").args(["-o", "loop"]).arg(&path).arg(directory.path()));
        Self { directory, image: Some(image) }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A file that takes room, until it is removed.
    pub fn ballast(&self) -> PathBuf {
        let path = self.path().join("ballast");
        fs::write(&path, vec![0; BALLAST_BYTES]).unwrap();
        path
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let mut rest = fs::File::options().append(true).create(true).open(self.path().join("rest")).unwrap();
        while rest.write_all(&[1; 4096]).is_ok() {}
        let _ = rest.sync_all();
    }

    /// Takes all the files that are left.
    pub fn fill_files(&self) {
        let directory = self.path().join("files");
        fs::create_dir_all(&directory).unwrap();
        for n in 0.. {
            if fs::File::create(directory.join(n.to_string())).is_err() {
                return;
            }
        }
    }
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}: only root can mount");
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
        drop(self.image.take());
    }
}
