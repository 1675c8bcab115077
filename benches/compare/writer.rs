//! A writer of a log that is rotated under its readers. It buffers nothing: one write a line by default.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::follower::LOG;

/// Lines that are all different, equally long, and can be checked to the last byte: the name of the scenario, the
/// number of the run, the number of the line, and words that follow from it.
#[derive(Clone, Debug)]
pub struct Story {
    pub name: &'static str,
    pub run: usize,
    pub lines: usize,
    /// The length of a line in bytes, with its newline.
    pub width: usize,
}

impl Story {
    /// A line with its newline.
    pub fn line(&self, number: usize) -> Vec<u8> {
        let mut line = format!("{} {} {number:07} ", self.name, self.run).into_bytes();
        let mut random = fastrand::Rng::with_seed(u64::try_from(number).unwrap_or_default());
        while line.len() + 1 < self.width {
            let word = format!("{:016x}.", random.u64(..));
            let left = self.width - 1 - line.len();
            line.extend(word.bytes().take(left));
        }
        line.push(b'\n');
        line
    }

    /// The number of a line without its newline, if it is one of these and whole.
    pub fn number(&self, line: &[u8]) -> Option<usize> {
        let text = str::from_utf8(line).ok()?;
        let number = text.split(' ').nth(2)?.parse().ok().filter(|number| *number < self.lines)?;
        (self.line(number).strip_suffix(b"\n") == Some(line)).then_some(number)
    }
}

/// How a log is written, and what happens to it meanwhile.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// It is renamed, `late` lines go into the old file, then the writer opens a new one.
    Renames { count: usize, apart: Duration, late: usize },
    /// Each line comes in two writes.
    Halves { apart: Duration },
    /// Each line comes in one write.
    Whole { apart: Duration },
    /// It is copied and truncated when it was left alone for `after`.
    CopyTruncates { count: usize, after: Duration },
}

/// The writer; `app.log.1` and so on are what it leaves.
#[derive(Debug)]
pub struct Writer {
    directory: PathBuf,
    file: File,
    /// What is left to write, made before, so that the file system alone sets the pace.
    left: VecDeque<Vec<u8>>,
    rotations: usize,
}

impl Writer {
    /// Creates the log.
    pub fn create(directory: &Path, story: &Story) -> io::Result<Self> {
        let file = append(&directory.join(LOG))?;
        let left = (0..story.lines).map(|number| story.line(number)).collect();
        Ok(Self { directory: directory.to_owned(), file, left, rotations: 0 })
    }

    /// Writes the next line.
    pub fn line(&mut self) -> io::Result<()> {
        let line = self.left.pop_front().unwrap_or_default();
        self.file.write_all(&line)
    }

    /// Writes all that is left of the story.
    pub fn finish(mut self, way: Way) -> io::Result<()> {
        match way {
            Way::Whole { apart } => self.lines(self.left.len(), apart),
            Way::Halves { apart } => self.halves(apart),
            Way::Renames { count, apart, late } => self.renames(count, apart, late),
            Way::CopyTruncates { count, after } => self.copy_truncates(count, after),
        }
    }

    fn lines(&mut self, count: usize, apart: Duration) -> io::Result<()> {
        let mut pace = Pace::new(apart);
        for _ in 0..count {
            pace.wait();
            self.line()?;
        }
        Ok(())
    }

    fn halves(&mut self, apart: Duration) -> io::Result<()> {
        let mut pace = Pace::new(apart / 2);
        while let Some(line) = self.left.pop_front() {
            let (first, second) = line.split_at(line.len() / 2);
            pace.wait();
            self.file.write_all(first)?;
            pace.wait();
            self.file.write_all(second)?;
        }
        Ok(())
    }

    fn renames(&mut self, count: usize, apart: Duration, late: usize) -> io::Result<()> {
        let part = (self.left.len() - count * late) / (count + 1);
        let gap = apart / u32::try_from(part).unwrap_or(u32::MAX);
        for _ in 0..count {
            self.lines(part, gap)?;
            let old = self.rotated();
            fs::rename(self.directory.join(LOG), old)?;
            self.lines(late, Duration::ZERO)?;
            self.file = append(&self.directory.join(LOG))?;
        }
        self.lines(self.left.len(), gap)
    }

    fn copy_truncates(&mut self, count: usize, after: Duration) -> io::Result<()> {
        let part = self.left.len() / (count + 1);
        for _ in 0..count {
            self.lines(part, Duration::ZERO)?;
            thread::sleep(after);
            let copy = self.rotated();
            fs::copy(self.directory.join(LOG), copy)?;
            self.file.set_len(0)?;
        }
        self.lines(self.left.len(), Duration::ZERO)
    }

    /// The next name for what is rotated away; names don't shift.
    fn rotated(&mut self) -> PathBuf {
        self.rotations += 1;
        self.directory.join(format!("{LOG}.{}", self.rotations))
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Spreads writes over time: one that is late doesn't delay those that follow.
#[derive(Debug)]
pub struct Pace {
    next: Instant,
    apart: Duration,
}

impl Pace {
    pub fn new(apart: Duration) -> Self {
        Self { next: Instant::now(), apart }
    }

    /// Waits until the next write is due.
    pub fn wait(&mut self) {
        thread::sleep(self.next.saturating_duration_since(Instant::now()));
        self.next += self.apart;
    }
}
