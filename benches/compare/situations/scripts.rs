//! The situations, as steps on a log.

use std::{
    fs::{self, File},
    io::Write,
    ops::Range,
    os::unix::fs::{FileExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::has;
use crate::Result;

/// What happens to a log.
pub struct Script {
    pub title: &'static str,
    pub log: &'static str,
    /// A program that it needs.
    program: Option<&'static str>,
    pub steps: usize,
    /// The time between two steps.
    pub apart: Duration,
    /// The steps during which one of the readers is away.
    pub away: Range<usize>,
    pub step: fn(&mut Stage, usize) -> Result<()>,
}

impl Script {
    pub fn can_run(&self) -> bool {
        self.program.is_none_or(has)
    }
}

/// A directory with a log, and what was written to it.
pub struct Stage {
    directory: PathBuf,
    log: &'static str,
    writer: File,
    pub written: Vec<String>,
}

impl Stage {
    pub fn new(directory: &Path, script: &Script) -> Result<Self> {
        let writer = File::options().create(true).append(true).open(directory.join(script.log))?;
        let mut stage = Self { directory: directory.into(), log: script.log, writer, written: Vec::new() };
        stage.lines(20)?;
        Ok(stage)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A line that no other equals.
    fn next(&mut self) -> String {
        let number = self.written.len();
        let line = format!("{} line {number} {}", self.log, "x".repeat(number * 7 % 90));
        self.written.push(line.clone());
        line
    }

    /// The writer writes lines to the file that it has open.
    fn lines(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let line = self.next() + "\n";
            self.writer.write_all(line.as_bytes())?;
        }
        Ok(())
    }

    fn reopen(&mut self) -> Result<()> {
        self.writer = File::options().create(true).append(true).open(self.path(self.log))?;
        Ok(())
    }

    /// The log is renamed; the writer writes some lines late, and others to the new file.
    fn rotate(&mut self, to: &str) -> Result<()> {
        fs::rename(self.path(self.log), self.path(to))?;
        self.lines(3)?;
        self.reopen()?;
        self.lines(10)
    }

    fn shell(&self, script: &str) -> Result<()> {
        let status = Command::new("sh").args(["-ec", script]).current_dir(&self.directory).status()?;
        if status.success() { Ok(()) } else { Err(format!("{script}: {status}").into()) }
    }

    /// A tool puts another file in the place of the log; the writer opens it for its next lines.
    fn edit(&mut self, script: &str) -> Result<()> {
        self.lines(10)?;
        self.shell(script)?;
        self.reopen()?;
        self.lines(10)
    }

    /// Lines that are the same each time are written by a job that starts its log again.
    fn job(&mut self, first: String) -> Result<()> {
        let lines = std::iter::once(first).chain((0..40).map(|n| format!("the same line {n}")));
        let lines = lines.collect::<Vec<_>>();
        fs::write(self.path(self.log), lines.join("\n") + "\n")?;
        self.written.extend(lines);
        Ok(())
    }
}

const SCRIPT: Script = Script {
    title: "",
    log: "app.log",
    program: None,
    steps: 8,
    apart: Duration::from_millis(400),
    away: 3..5,
    step: |_, _| Ok(()),
};

pub const SCRIPTS: [Script; 12] = [
    Script {
        title: "node1 and node10 are rotated side by side",
        log: "node1",
        step: |stage, step| {
            fs::write(stage.path("node10"), format!("foreign {step}\n"))?;
            fs::rename(stage.path("node10"), stage.path(&format!("node10.{step}")))?;
            fs::write(stage.path("node10"), "foreign\n")?;
            for old in (1..=step).rev() {
                fs::rename(stage.path(&format!("node1.{old}")), stage.path(&format!("node1.{}", old + 1)))?;
            }
            stage.rotate("node1.1")
        },
        ..SCRIPT
    },
    Script {
        title: "the rotation puts its number before the extension",
        away: 3..4,
        step: |stage, step| stage.rotate(&format!("app.{step}.log")),
        ..SCRIPT
    },
    Script {
        title: "moved to another directory; the writer opens its log 2 s later",
        steps: 2,
        away: 0..2,
        apart: Duration::from_secs(2),
        step: |stage, step| {
            if step == 0 {
                fs::create_dir(stage.path("old"))?;
                fs::rename(stage.path("app.log"), stage.path("old/app.log.1"))?;
                return stage.lines(10);
            }
            stage.lines(10)?;
            stage.reopen()?;
            stage.lines(10)
        },
        ..SCRIPT
    },
    Script {
        title: "the target of a link is rotated every 300 ms",
        steps: 13,
        apart: Duration::from_millis(300),
        away: 6..7,
        step: |stage, step| {
            if step == 0 {
                fs::create_dir(stage.path("data"))?;
                fs::rename(stage.path("app.log"), stage.path("data/app.log"))?;
                symlink("data/app.log", stage.path("app.log"))?;
                return stage.lines(6);
            }
            fs::rename(
                stage.path("data/app.log"),
                stage.path(&format!("data/app.log-202611{:02}", step + 10)),
            )?;
            stage.reopen()?;
            stage.lines(6)
        },
        ..SCRIPT
    },
    Script {
        title: "removed and created again with the same lines",
        step: |stage, _| {
            fs::remove_file(stage.path("app.log"))?;
            stage.job("the same first line".into())
        },
        away: 3..4,
        ..SCRIPT
    },
    Script {
        title: "`cmd > log` in a loop: the same size and end, another head",
        step: |stage, step| stage.job(format!("run {step}")),
        away: 3..4,
        ..SCRIPT
    },
    Script {
        title: "a copy with a date beside the log, then a rotation",
        step: |stage, step| {
            fs::copy(stage.path("app.log"), stage.path(&format!("app.log-202511{:02}", step + 10)))?;
            stage.lines(5)?;
            stage.rotate(&format!("app.log-202611{:02}", step + 10))
        },
        ..SCRIPT
    },
    Script {
        title: "`sed -i.bak`",
        program: Some("sed"),
        away: 3..4,
        step: |stage, _| stage.edit("sed -i.bak 1,5d app.log"),
        ..SCRIPT
    },
    Script {
        title: "`tail -n 100 f > g && mv g f`",
        away: 3..4,
        step: |stage, _| stage.edit("tail -n 100 app.log > g && mv g app.log"),
        ..SCRIPT
    },
    Script {
        title: "`rsync --backup`",
        program: Some("rsync"),
        away: 3..4,
        step: |stage, step| {
            if step == 0 {
                fs::create_dir(stage.path("source"))?;
                fs::copy(stage.path("app.log"), stage.path("source/app.log"))?;
                stage.writer = File::options().append(true).open(stage.path("source/app.log"))?;
            }
            stage.lines(10)?;
            stage.shell("rsync --ignore-times --backup source/app.log app.log")
        },
        ..SCRIPT
    },
    Script {
        title: "a preallocated log that is written in place, a line in two writes",
        steps: 40,
        apart: Duration::from_millis(50),
        away: 20..25,
        step: |stage, step| {
            let offset = stage.written.iter().map(|line| line.len() as u64 + 1).sum::<u64>();
            let file = File::options().write(true).open(stage.path("app.log"))?;
            if step == 0 {
                file.write_all_at(&[0; 64 * 1024], offset)?;
            }
            let line = stage.next() + "\n";
            let (first, rest) = line.as_bytes().split_at(line.len() / 2);
            file.write_all_at(first, offset)?;
            std::thread::sleep(Duration::from_millis(5));
            Ok(file.write_all_at(rest, offset + first.len() as u64)?)
        },
        ..SCRIPT
    },
    Script {
        title: "a link is pointed from A to B and back to A",
        away: 3..4,
        step: |stage, step| {
            if step == 0 {
                fs::rename(stage.path("app.log"), stage.path("a"))?;
            }
            stage.shell(&format!("ln -sfn {} app.log", if step % 2 == 0 { "b" } else { "a" }))?;
            stage.lines(3)?;
            stage.reopen()?;
            stage.lines(10)
        },
        ..SCRIPT
    },
];
