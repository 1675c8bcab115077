//! Disks that get full or hang: real ones, but small. Only root can mount them.

use std::{
    fs,
    io::{Read, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc,
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

    /// Lets every write to the file system hang, until the guard is dropped.
    pub fn freeze(&self) -> Frozen<'_> {
        run(Command::new("fsfreeze").arg("--freeze").arg(self.path()));
        Frozen(self)
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

/// A file system whose writes hang.
pub struct Frozen<'a>(&'a Mount);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(self.0.path()).status();
    }
}

/// A file system in which no name is ever found: its process does not answer, as a server of files that is gone.
pub struct Silent {
    directory: PathBuf,
    /// The first question that was not answered.
    asked: mpsc::Receiver<()>,
}

impl Silent {
    /// Mounts it on a directory.
    pub fn over(directory: &Path) -> Self {
        let device = fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
        // `mount` inherits it.
        rustix::io::fcntl_setfd(&device, rustix::io::FdFlags::empty()).unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        run(Command::new("mount").args(["-i", "-t", "fuse", "-o", &options, "silent"]).arg(directory));
        let (sender, asked) = mpsc::channel();
        std::thread::spawn(move || answer(&device, &sender));
        Self { directory: directory.into(), asked }
    }

    /// Waits until a process waits for an answer.
    pub fn wait_for_question(&self) {
        self.asked.recv_timeout(super::PATIENCE).expect("the file system was asked for a name");
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--force", "--lazy"]).arg(&self.directory).status();
    }
}

/// Speaks the protocol of FUSE as far as it takes to mount, and answers no question about a name.
fn answer(mut device: &fs::File, asked: &mpsc::Sender<()>) {
    const LOOKUP: u32 = 1;
    const FORGET: u32 = 2;
    const GETATTR: u32 = 3;
    const INIT: u32 = 26;
    const INTERRUPT: u32 = 36;
    const UNKNOWN: i32 = -38;
    const PARALLEL: u32 = 1 << 18;
    let mut request = vec![0; 1024 * 1024];
    while let Ok(length) = device.read(&mut request) {
        let request = &request[..length];
        let operation = u32::from_le_bytes(request[4..8].try_into().unwrap());
        let (error, body) = match operation {
            LOOKUP => {
                let _ = asked.send(());
                continue;
            }
            FORGET | INTERRUPT => continue,
            // Version 7.31, questions about several names at once, and room for a write of 4 KiB.
            INIT => {
                (0, [[7_u32, 31, 0, PARALLEL, 0, 4096].map(u32::to_le_bytes).concat(), vec![0; 40]].concat())
            }
            // A directory; what is known of it holds for an hour.
            GETATTR => {
                let mut attributes = vec![0; 104];
                attributes[..8].copy_from_slice(&3600_u64.to_le_bytes());
                attributes[16..24].copy_from_slice(&1_u64.to_le_bytes());
                attributes[76..80].copy_from_slice(&0o040_755_u32.to_le_bytes());
                attributes[80..84].copy_from_slice(&2_u32.to_le_bytes());
                (0, attributes)
            }
            _ => (UNKNOWN, Vec::new()),
        };
        let length = u32::try_from(16 + body.len()).unwrap().to_le_bytes();
        let answer = [&length[..], &error.to_le_bytes(), &request[8..16], &body].concat();
        let _ = device.write(&answer);
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
