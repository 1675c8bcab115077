//! The files of one log: what a writer, a rotation and an editor do with them, entered into the ledger.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::{
    pool,
    story::{Away, Naming, Replacement, TARGETS},
};
use crate::ledger::{Ledger, Life};

/// The files of one log.
pub struct Disk {
    root: PathBuf,
    name: &'static str,
    naming: Naming,
    /// A name of this log's numbers that another log has.
    taken: &'static str,
    pub ledger: Ledger,
    /// All files, by their paths relative to the root; copies have no life.
    files: BTreeMap<String, Option<Life>>,
    /// Where the path leads, if it is a link.
    target: Option<String>,
    /// Where it led before.
    old_target: Option<String>,
    /// The targets of a link at which lives began.
    homes: HashMap<Life, String>,
    /// How many lines were written when the link was pointed to its target.
    relinked: usize,
    writer: Option<(File, Life)>,
    /// The file that the writer left.
    before: Option<(File, Life)>,
    /// Those that were moved to where no rotation puts them.
    hidden: HashSet<Life>,
    /// Those that no reader knows of, and that none can find by a name.
    unknown: HashSet<Life>,
    /// The name of the file that was moved away last.
    moved: Option<String>,
    /// Counts the names that a rotation gives, and other names that are used once.
    rotations: usize,
    count: usize,
    /// The next file that is created was born before all others.
    pub is_early: bool,
    pool: Vec<PathBuf>,
    /// No reader is attached.
    pub is_away: bool,
    /// Only times show the order of the files: so a file is renamed some time after it was written, and not written later.
    pub is_ordered_by_times: bool,
}

impl Disk {
    pub fn new(
        root: &Path,
        name: &'static str,
        naming: Naming,
        taken: &'static str,
        is_linked: bool,
    ) -> Self {
        let pool = pool::early_files(&root.join(format!("pool of {name}")));
        let mut disk = Self {
            root: root.into(),
            name,
            naming,
            taken,
            ledger: Ledger::new(name),
            files: BTreeMap::new(),
            target: None,
            old_target: None,
            homes: HashMap::new(),
            relinked: 0,
            writer: None,
            before: None,
            hidden: HashSet::new(),
            unknown: HashSet::new(),
            moved: None,
            rotations: 0,
            count: 0,
            is_early: false,
            pool,
            is_away: false,
            is_ordered_by_times: false,
        };
        if is_linked {
            fs::create_dir(root.join(format!("targets of {name}"))).unwrap();
            disk.retarget(0);
        }
        disk
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The name of the file at the path, whether it exists or not.
    fn real(&self) -> String {
        self.target.clone().unwrap_or_else(|| self.name.into())
    }

    /// A new content of the file at the path.
    fn begin(&mut self) -> Life {
        let life = self.ledger.begin();
        self.homes.insert(life, self.real());
        life
    }

    /// The life at the path.
    fn life(&self) -> Option<Life> {
        self.files.get(&self.real()).copied().flatten()
    }

    /// A name in the directory of the real file.
    fn beside(&self, name: &str) -> String {
        match self.real().rsplit_once('/') {
            Some((directory, _)) => format!("{directory}/{name}"),
            None => name.into(),
        }
    }

    /// A server looks where a link leads, and where it led in between it cannot know: so a file that goes before a line of
    /// it came may be one that no reader knows of, unless a line came that was written at the target after the link was
    /// pointed to it. Then the server follows the target as it follows a file without links.
    fn goes(&mut self, life: Life) {
        let is_here = |life: &Life| self.homes.get(life) == self.target.as_ref();
        let is_followed = self.ledger.lives_since(self.relinked).any(|life| is_here(&life));
        if self.target.is_some() && !self.ledger.is_seen(life) && !is_followed {
            self.ledger.exempt(life);
            self.unknown.insert(life);
        }
    }

    /// No reader can find this file, also not later, unless it comes back to the path.
    fn forget(&mut self, life: Life) {
        self.ledger.exempt(life);
        self.unknown.insert(life);
    }

    /// The content of this life is destroyed; `is_gone` with its file, or else in place.
    fn destroyed(&mut self, life: Life, is_gone: bool) {
        self.goes(life);
        let is_known = self.ledger.is_seen(life) && (!self.is_away || self.ledger.last_life() == Some(life));
        let is_open = is_gone && !self.is_away;
        if !is_known && !is_open {
            self.ledger.exempt(life);
        }
        if is_gone && self.is_away {
            // Lines that are still written to it are in a file without a name.
            self.unknown.insert(life);
        }
    }

    /// The reader is cut. What only it, or its server, could know is known no longer.
    pub fn cut(&mut self) {
        self.is_away = true;
        let (own, read) = (self.life(), self.ledger.last_life());
        self.forget_targets();
        for life in 0..self.ledger.lives() {
            let name = self.files.iter().find(|(_, it)| **it == Some(life)).map(|(name, _)| name);
            let is_gone = name.is_none_or(|name| name.starts_with("old/"));
            if own != Some(life) && (is_gone || self.hidden.contains(&life) && read != Some(life)) {
                self.forget(life);
            }
        }
    }

    /// A position holds how far a reader read the last target that a link led to before, and no other. Which one that is
    /// depends on how far the reader is; a target of which that is not sure may be read again, or not for its late lines.
    fn forget_targets(&mut self) {
        let read = self.ledger.last_lives().filter_map(|life| self.homes.get(&life)).collect::<Vec<_>>();
        let last = read.first().copied();
        let before = read.iter().copied().find(|home| Some(*home) != last);
        let is_there = self.target.as_ref() == last;
        let is_old_there = is_there && self.old_target.as_ref() == before;
        let is_last_old = self.old_target.as_ref() == last;
        let is_held = |target: &String| {
            Some(target) == last && (is_there || is_last_old) || Some(target) == before && is_old_there
        };
        let targets = (0..TARGETS).map(|nth| self.target_name(nth)).filter(|target| !is_held(target));
        let lives = targets.filter_map(|target| *self.files.get(&target)?).collect::<Vec<_>>();
        for life in lives {
            self.ledger.forget(life);
            if self.life() != Some(life) && self.ledger.last_life() != Some(life) {
                self.forget(life);
            }
        }
    }

    /// Opens the path for the writer, and creates a file there if there is none.
    pub fn reopen(&mut self) {
        if let Some(life) = self.life()
            && self.writer.as_ref().is_some_and(|(_, own)| *own == life)
        {
            return;
        }
        let real = self.real();
        let path = self.at(&real);
        let life = self.life().unwrap_or_else(|| {
            if std::mem::take(&mut self.is_early)
                && let Some(early) = self.pool.pop()
            {
                fs::rename(early, &path).unwrap();
            }
            let life = self.begin();
            self.files.insert(real, Some(life));
            self.ledger.arrive(life);
            life
        });
        let file = File::options().create(true).append(true).open(path).unwrap();
        self.before = self.writer.replace((file, life)).or(self.before.take());
    }

    pub fn append(&mut self, lines: usize, padding: usize) {
        if self.writer.is_none() || self.is_ordered_by_times {
            self.reopen();
        }
        let Some((mut file, life)) = self.writer.take() else { return };
        self.write(&mut file, life, lines, padding);
        self.writer = Some((file, life));
    }

    /// To the file that the writer left.
    pub fn late(&mut self, lines: usize) {
        let Some((mut file, life)) = self.before.take() else { return };
        self.write(&mut file, life, lines, 0);
        self.before = Some((file, life));
    }

    fn write(&mut self, file: &mut File, life: Life, lines: usize, padding: usize) {
        let is_late = self.life() != Some(life);
        let is_unknown = is_late && self.unknown.contains(&life);
        for _ in 0..lines {
            let text = self.ledger.write(life, is_late, padding);
            file.write_all(text.as_bytes()).unwrap();
            if is_unknown {
                self.ledger.exempt_last();
            }
        }
    }

    /// The first half of a line, and how to write the rest.
    pub fn first_part(&mut self) -> String {
        self.reopen();
        let Some((file, life)) = &mut self.writer else { return String::new() };
        let text = self.ledger.write(*life, false, 50);
        let (first, rest) = text.split_at(text.len() / 2);
        file.write_all(first.as_bytes()).unwrap();
        rest.into()
    }

    pub fn second_part(&mut self, rest: &str) {
        if let Some((file, _)) = &mut self.writer {
            file.write_all(rest.as_bytes()).unwrap();
        }
    }

    /// A name by which a rotation moves the file; other files are moved up for it.
    fn rotated(&mut self) -> String {
        let real = self.real();
        let numbered = |number: usize| format!("{real}.{number}");
        match self.naming {
            Naming::Dates => {
                self.rotations += 1;
                // A day of a month that has 28 of them, at least.
                format!("{real}-2026{:02}{:02}", 1 + self.rotations / 28, 1 + self.rotations % 28)
            }
            Naming::Upward => {
                self.rotations += 1;
                numbered(self.rotations)
            }
            Naming::Numbers => {
                let free = |number: usize| !self.files.contains_key(&numbered(number));
                let last = (1..1_000).find(|number| free(*number)).unwrap();
                for number in (1..last).rev() {
                    self.rename(&numbered(number), &numbered(number + 1));
                }
                numbered(1)
            }
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        assert!(to != self.taken, "{to} is another log");
        fs::rename(self.at(from), self.at(to)).unwrap();
        let life = self.files.remove(from).unwrap();
        self.files.insert(to.into(), life);
    }

    pub fn rotate(&mut self, away: Away, reopens: bool) {
        if let Some(life) = self.life() {
            self.count += 1;
            let (real, count) = (self.real(), self.count);
            let last = real.rsplit('/').next().unwrap();
            let to = match away {
                Away::Rotated => self.rotated(),
                // A number here would make the other log one of its neighbours, which only luck could tell apart.
                Away::Marked if self.taken == "app-1.log" => {
                    self.beside(&format!("app-202611{count:02}.log"))
                }
                Away::Marked => match last.rsplit_once('.') {
                    Some((stem, extension)) => self.beside(&format!("{stem}-{}.{extension}", count + 1)),
                    None => self.beside(&format!("202611{count:02}-{last}")),
                },
                Away::Extension => self.beside(&format!("{last}.{count}.save")),
                Away::Directory => {
                    fs::create_dir_all(self.at("old")).unwrap();
                    format!("old/{last}.{count}")
                }
                Away::Elsewhere => self.beside(&format!("elsewhere {count} of {last}")),
            };
            if self.is_ordered_by_times {
                pool::wait_for_tick(&self.root.join(format!("pool of {}", self.name)));
            }
            self.rename(&real, &to);
            self.goes(life);
            if !matches!(away, Away::Rotated) {
                self.hidden.insert(life);
                if self.is_away && self.ledger.last_life() != Some(life) {
                    self.forget(life);
                }
            }
            self.moved = Some(to);
        }
        if reopens {
            self.reopen();
        }
    }

    /// The file that was moved away last comes back.
    pub fn back(&mut self) {
        let real = self.real();
        if self.life().is_some() {
            return;
        }
        if let Some(moved) = self.moved.take().filter(|moved| self.files.contains_key(moved)) {
            self.rename(&moved, &real);
            let life = self.life().unwrap();
            self.hidden.remove(&life);
            self.unknown.remove(&life);
            self.ledger.arrive(life);
            self.reopen();
        }
    }

    pub fn copy(&mut self) {
        if self.life().is_some() {
            self.count += 1;
            let (real, count) = (self.real(), self.count);
            let to = format!("{real}-2025{:02}{:02}", 1 + count / 28, 1 + count % 28);
            fs::copy(self.at(&real), self.at(&to)).unwrap();
            self.files.insert(to, None);
        }
    }

    pub fn copy_truncate(&mut self) {
        if self.life().is_some() {
            let (to, real) = (self.rotated(), self.real());
            if self.naming == Naming::Upward
                && let Some(life) = self.life()
            {
                self.ledger.has_doubtful_copy(life);
            }
            fs::copy(self.at(&real), self.at(&to)).unwrap();
            self.files.insert(to, None);
            self.truncate();
        }
    }

    pub fn truncate(&mut self) {
        self.rewrite(|_| Vec::new());
    }

    pub fn shorten(&mut self) {
        let Some(life) = self.life() else { return };
        let kept = self.ledger.content(life).len() / 2;
        let real = self.real();
        let text = fs::read_to_string(self.at(&real)).unwrap();
        let bytes = text.split_inclusive('\n').take(kept).map(str::len).sum::<usize>();
        File::options().write(true).open(self.at(&real)).unwrap().set_len(bytes as u64).unwrap();
        self.renew(life, |lines| lines.truncate(kept));
    }

    /// Writes the file again, in place, with these of its lines.
    fn rewrite(&mut self, change: impl Fn(&[&str]) -> Vec<usize>) {
        let Some(life) = self.life() else { return };
        let path = self.at(&self.real());
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.split_inclusive('\n').collect::<Vec<_>>();
        let kept = change(&lines);
        fs::write(path, kept.iter().map(|at| lines[*at]).collect::<String>()).unwrap();
        self.renew(life, |lines| *lines = kept.iter().map(|at| lines[*at]).collect());
    }

    /// The file of this life has another content now.
    fn renew(&mut self, life: Life, change: impl FnOnce(&mut Vec<usize>)) {
        let mut lines = self.ledger.content(life);
        let (read, old) = (self.ledger.read_of(&lines), lines.clone());
        change(&mut lines);
        self.destroyed(life, false);
        if old.get(..read) == lines.get(..read) {
            // A reader that did not look in between sees a file that begins with all that it read.
            self.ledger.exempt(life);
        }
        let new = self.begin();
        for line in lines {
            self.ledger.copy(new, line);
        }
        let real = self.real();
        self.files.insert(real, Some(new));
        self.ledger.renew(life, new);
        self.ledger.arrive(new);
        for (_, own) in [&mut self.writer, &mut self.before].into_iter().flatten() {
            *own = if *own == life { new } else { *own };
        }
    }

    pub fn save(&mut self, edits: bool, more: usize) {
        let Some(life) = self.life() else { return };
        let edited = self.ledger.content(life).len() / 2;
        self.rewrite(|lines| (0..lines.len()).filter(|at| !edits || *at != edited).collect());
        if let Some(life) = self.life() {
            let mut file = File::options().append(true).open(self.at(&self.real())).unwrap();
            self.write(&mut file, life, more + usize::from(edits), 10);
        }
    }

    /// Renames another file onto the path.
    pub fn replace(&mut self, by: Replacement) {
        let Some(life) = self.life() else { return };
        let (real, lines) = (self.real(), self.ledger.content(life));
        self.goes(life);
        let text = fs::read_to_string(self.at(&real)).unwrap();
        let texts = text.split_inclusive('\n').collect::<Vec<_>>();
        let kept: Vec<usize> = match by {
            Replacement::Longer(_) => (0..texts.len()).collect(),
            Replacement::Tail(count) => (texts.len().saturating_sub(count)..texts.len()).collect(),
            Replacement::Thinned => (0..texts.len()).filter(|at| at % 3 != 1).collect(),
        };
        if self.is_away {
            self.ledger.exempt_but(life, &kept.iter().map(|at| lines[*at]).collect::<Vec<_>>());
            self.unknown.insert(life);
        }
        let temporary = self.beside(&format!(".{} new", self.name));
        let mut file = File::create(self.at(&temporary)).unwrap();
        file.write_all(kept.iter().map(|at| texts[*at]).collect::<String>().as_bytes()).unwrap();
        let new = self.begin();
        for at in kept {
            self.ledger.copy(new, lines[at]);
        }
        self.files.remove(&real);
        if let Replacement::Longer(more) = by {
            for _ in 0..more {
                file.write_all(self.ledger.write(new, false, 20).as_bytes()).unwrap();
            }
        }
        fs::rename(self.at(&temporary), self.at(&real)).unwrap();
        self.files.insert(real, Some(new));
        self.ledger.arrive(new);
        self.reopen();
    }

    pub fn delete(&mut self, reopens: bool) {
        if let Some(life) = self.life() {
            let real = self.real();
            fs::remove_file(self.at(&real)).unwrap();
            self.files.remove(&real);
            self.destroyed(life, true);
        }
        if reopens {
            self.reopen();
        }
    }

    fn target_name(&self, nth: usize) -> String {
        format!("targets of {}/{}.{}", self.name, self.name, ["a", "b", "c"][nth])
    }

    /// Points the link at another target.
    pub fn retarget(&mut self, to: usize) {
        if let Some(life) = self.life() {
            self.goes(life);
        }
        let target = self.target_name(to);
        let temporary = self.at(&format!("link of {}", self.name));
        symlink(&target, &temporary).unwrap();
        fs::rename(temporary, self.at(self.name)).unwrap();
        if self.target.as_ref() != Some(&target) {
            self.old_target = self.target.replace(target);
            self.relinked = self.ledger.written();
        }
        if let Some(life) = self.life() {
            self.unknown.remove(&life);
            self.ledger.arrive(life);
        }
        self.reopen();
    }
}
