//! What was written to one log, and what a reader of it got: [`Ledger::verdict`] says whether nothing was lost in silence,
//! torn, foreign, out of order, or delivered again without a reason.
//!
//! A *life* is one content of a file: it begins when the file is created or truncated. A line may be in several lives, when
//! a log is saved or replaced by another file that holds old lines, too.

use std::collections::{HashMap, HashSet};

use perennial::lines::{Event, Found};

/// The index of a life in its ledger.
pub type Life = usize;

/// The index of a line in its ledger: the order in which lines were written.
pub type Line = usize;

#[derive(Debug)]
struct Written {
    /// The life that it was written to first.
    life: Life,
    /// Its file was no longer at the path when it was written.
    is_late: bool,
    /// It must be delivered, or its loss reported. Otherwise no reader can know of it.
    is_required: bool,
    /// Where it came, and came again, in the output.
    came: Vec<usize>,
}

/// What a reader got.
#[derive(Clone, Debug)]
enum Got {
    Line(Line),
    Event(Event),
    /// The reader was refused because its position is gone.
    Expired,
}

/// All that was written to a log and read of it.
#[derive(Debug)]
pub struct Ledger {
    log: String,
    lines: Vec<Written>,
    numbers: HashMap<String, Line>,
    lives: Vec<Vec<Line>>,
    /// The lives in the order in which they came to the path.
    arrivals: Vec<Life>,
    /// The life that was in the same file before each life, if any.
    before: HashMap<Life, Life>,
    /// Lives that a reader may read again, because its position does not hold how far it read them.
    forgotten: HashSet<Life>,
    /// Lives of which a copy may be read again after their file was truncated.
    copied: HashSet<Life>,
    output: Vec<Got>,
}

impl Got {
    /// It reports that lines are missing.
    fn is_loss(&self) -> bool {
        match self {
            Self::Line(_) => false,
            Self::Expired => true,
            Self::Event(event) => matches!(
                event,
                Event::Gap { .. } | Event::Truncated { .. } | Event::Resumed(Found::Truncated | Found::Lost)
            ),
        }
    }

    /// The next line may be from elsewhere than after the one before.
    fn is_turn(&self) -> bool {
        self.is_loss()
            || matches!(self, Self::Event(Event::Rotated { .. } | Event::Opened { .. } | Event::Late { .. }))
    }
}

impl Ledger {
    pub fn new(log: &str) -> Self {
        Self {
            log: log.into(),
            lines: Vec::new(),
            numbers: HashMap::new(),
            lives: Vec::new(),
            arrivals: Vec::new(),
            before: HashMap::new(),
            forgotten: HashSet::new(),
            copied: HashSet::new(),
            output: Vec::new(),
        }
    }

    /// A new content, without lines yet.
    pub fn begin(&mut self) -> Life {
        self.lives.push(Vec::new());
        self.lives.len() - 1
    }

    /// A life came to the path.
    pub fn arrive(&mut self, life: Life) {
        self.arrivals.push(life);
    }

    /// A life replaced another one in the same file: a reader that comes to the older one finds the newer one.
    pub fn renew(&mut self, old: Life, new: Life) {
        self.before.insert(new, old);
    }

    /// A reader was cut, and may read the lines of this life again if it comes back to the path.
    pub fn forget(&mut self, life: Life) {
        self.forgotten.insert(life);
    }

    /// There is a copy of this life whose name a rotation gives to an older file.
    pub fn has_doubtful_copy(&mut self, life: Life) {
        self.copied.insert(life);
    }

    /// The life came to the path in this arrival, or is in the file that did.
    fn is_in(&self, life: Life, arrival: Life) -> bool {
        std::iter::successors(Some(life), |life| self.before.get(life).copied()).any(|it| it == arrival)
    }

    /// Another line of a life: its text, with the newline.
    pub fn write(&mut self, life: Life, is_late: bool, padding: usize) -> String {
        let line = self.lines.len();
        let text = format!("{} line {line} {}", self.log, "x".repeat(padding));
        self.numbers.insert(text.clone(), line);
        self.lines.push(Written { life, is_late, is_required: true, came: Vec::new() });
        self.lives[life].push(line);
        text + "\n"
    }

    /// An older line is in this life, too.
    pub fn copy(&mut self, life: Life, line: Line) {
        self.lives[life].push(line);
    }

    /// How many lives there are.
    pub fn lives(&self) -> usize {
        self.lives.len()
    }

    /// The lines of a life.
    pub fn content(&self, life: Life) -> Vec<Line> {
        self.lives[life].clone()
    }

    /// No reader can know of the lines of this life that did not come yet.
    pub fn exempt(&mut self, life: Life) {
        self.exempt_but(life, &[]);
    }

    /// The same, but for these lines.
    pub fn exempt_but(&mut self, life: Life, kept: &[Line]) {
        for (number, line) in self.lines.iter_mut().enumerate() {
            let is_here = line.life == life || self.lives[life].contains(&number);
            line.is_required &= !is_here || !line.came.is_empty() || kept.contains(&number);
        }
    }

    /// The same of the last line alone.
    pub fn exempt_last(&mut self) {
        if let Some(line) = self.lines.last_mut() {
            line.is_required = false;
        }
    }

    /// A line of this life came.
    pub fn is_seen(&self, life: Life) -> bool {
        self.lines.iter().any(|line| line.life == life && !line.came.is_empty())
    }

    /// How many lines were written.
    pub fn written(&self) -> usize {
        self.lines.len()
    }

    /// The lives of the lines that came, as far as they were written after the first `count` lines.
    pub fn lives_since(&self, count: usize) -> impl Iterator<Item = Life> {
        self.lines.iter().skip(count).filter(|line| !line.came.is_empty()).map(|line| line.life)
    }

    /// How many of these lines were read, if a reader had come to the last one of them that came.
    pub fn read_of(&self, lines: &[Line]) -> usize {
        lines.iter().rposition(|line| !self.lines[*line].came.is_empty()).map_or(0, |at| at + 1)
    }

    /// The life of the line that came last.
    pub fn last_life(&self) -> Option<Life> {
        self.last_lives().next()
    }

    /// The lives of the lines that came, the last one first.
    pub fn last_lives(&self) -> impl Iterator<Item = Life> {
        self.output.iter().rev().filter_map(|got| match got {
            Got::Line(line) => Some(self.lines[*line].life),
            _ => None,
        })
    }

    /// A line came, which must be one of this log, as a whole.
    pub fn take_line(&mut self, text: &str) {
        let Some(line) = self.numbers.get(text).copied() else {
            panic!("a line of {} that was never written to it: {text:?}\n{}", self.log, self.story())
        };
        self.lines[line].came.push(self.output.len());
        self.output.push(Got::Line(line));
    }

    pub fn take_event(&mut self, event: Event) {
        self.output.push(Got::Event(event));
    }

    pub fn take_expired(&mut self) {
        self.output.push(Got::Expired);
    }

    /// A loss was reported.
    pub fn has_loss(&self) -> bool {
        self.output.iter().any(Got::is_loss)
    }

    /// Every line came.
    pub fn is_complete(&self) -> bool {
        self.lines.iter().all(|line| !line.is_required || !line.came.is_empty())
    }

    /// The lines that did not come, and whose loss was not reported.
    pub fn missing(&self) -> Option<String> {
        let missing = |line: &Line| {
            let Written { is_required, came, .. } = &self.lines[*line];
            *is_required && came.is_empty() && !self.is_covered(*line)
        };
        let missing = (0..self.lines.len()).filter(missing).collect::<Vec<_>>();
        let in_life = |line: &Line| format!("{line} (life {})", self.lines[*line].life);
        (!missing.is_empty()).then(|| {
            format!("lost in silence: {}", missing.iter().map(in_life).collect::<Vec<_>>().join(", "))
        })
    }

    /// A loss was reported between the lines that came before it and those that came after it.
    fn is_covered(&self, line: Line) -> bool {
        let Written { life, is_late, .. } = self.lines[line];
        let first = |line: &Line| self.lines[*line].came.first().copied();
        // Those that are in several lives may have come from another one.
        let is_here_alone = |it: &Line| self.lives.iter().filter(|life| life.contains(it)).count() == 1;
        let written_here = || self.lives[life].iter().filter(|it| **it == line || is_here_alone(it));
        // A life of which no line came is lost as a whole; an older one may have come back and grown since.
        let first_line =
            if self.is_seen(life) { line } else { self.lives[life].first().copied().unwrap_or(line) };
        // A younger life may have come before this line, if the older one came back to the path and grew: a reader reads it
        // before the line, and reports the loss after it.
        let is_in_order = |(number, it): &(Line, &Written)| {
            if it.life > life { *number > line } else { *number < first_line }
        };
        let others = |wanted: &dyn Fn(Life) -> bool| {
            let lines = self.lines.iter().enumerate().filter(|(_, it)| !it.is_late && wanted(it.life));
            let lines = lines.filter(|(number, _)| is_here_alone(number)).filter(is_in_order);
            lines.filter_map(|(_, it)| it.came.first().copied()).collect::<Vec<_>>()
        };
        let before = written_here().take_while(|it| **it != line).filter_map(first).max();
        let before = before.or_else(|| others(&|it| it < life).into_iter().max()).unwrap_or(0);
        let after = written_here().skip_while(|it| **it != line).filter_map(first).min();
        let after = after.or_else(|| others(&|it| it > life).into_iter().min());
        let after = after.filter(|_| !is_late).unwrap_or(self.output.len());
        let range = before.min(after)..before.max(after);
        self.output[range].iter().any(Got::is_loss)
    }

    /// What is wrong, if anything, once all came that will come.
    pub fn verdict(&self) -> Result<(), String> {
        let faults = [self.missing(), self.torn_order(), self.repeated(), self.wrong_order()];
        match faults.into_iter().flatten().next() {
            None => Ok(()),
            Some(fault) => Err(format!("{}: {fault}\n{}", self.log, self.story())),
        }
    }

    /// Without an event in between, a line follows the one that it follows in some life.
    fn torn_order(&self) -> Option<String> {
        let follows = self.lives.iter().flat_map(|life| life.windows(2)).map(|pair| (pair[0], pair[1]));
        let follows = follows.collect::<HashSet<_>>();
        let mut last = None;
        for got in &self.output {
            match got {
                Got::Line(line) => {
                    if let Some(last) = last.filter(|last| !follows.contains(&(*last, *line))) {
                        return Some(format!("line {line} came after {last} without an event"));
                    }
                    last = Some(*line);
                }
                got if got.is_turn() => last = None,
                _ => {}
            }
        }
        None
    }

    /// A line comes again only if it is in several lives or its file was lost, and an event says so.
    fn repeated(&self) -> Option<String> {
        for (number, line) in self.lines.iter().enumerate() {
            let lives = self.lives.iter().filter(|life| life.contains(&number)).count();
            let mut times = 1;
            let lives = lives + usize::from(self.forgotten.contains(&line.life));
            for pair in line.came.windows(2) {
                let between = &self.output[pair[0]..pair[1]];
                let is_copied = self.copied.contains(&line.life);
                let is_lost = |got: &Got| match got {
                    Got::Expired | Got::Event(Event::Resumed(Found::Lost)) => true,
                    Got::Event(Event::Resumed(Found::Truncated)) => is_copied,
                    _ => false,
                };
                let is_lost = between.iter().any(is_lost);
                times += usize::from(!is_lost);
                if !between.iter().any(Got::is_turn) || times > lives {
                    return Some(format!("line {number} came again"));
                }
            }
        }
        None
    }

    /// Files are read in the order in which they came to the path, but for late lines.
    fn wrong_order(&self) -> Option<String> {
        let (mut at, mut is_late) = (0, false);
        for (index, got) in self.output.iter().enumerate() {
            match got {
                Got::Event(Event::Late { .. }) => is_late = true,
                Got::Event(Event::Rotated { .. }) | Got::Expired => is_late = false,
                Got::Line(line)
                    if !is_late && self.lines[*line].is_required && self.lines[*line].came[0] == index =>
                {
                    let life = self.lines[*line].life;
                    let Some(next) = self.arrivals[at..].iter().position(|it| self.is_in(life, *it)) else {
                        return Some(format!("line {line} of life {life} came after those of a later one"));
                    };
                    at += next;
                }
                _ => {}
            }
        }
        None
    }

    /// All that came, short.
    pub fn story(&self) -> String {
        let mut story =
            format!("lives of {}: {:?}, arrivals {:?}\noutput:", self.log, self.lives, self.arrivals);
        for got in &self.output {
            match got {
                Got::Line(line) => story += &format!(" {line}"),
                Got::Event(event) => story += &format!(" {event:?}"),
                Got::Expired => story += " Expired",
            }
        }
        story
    }
}

#[cfg(test)]
mod tests {
    use perennial::lines::GapReason;

    use super::*;

    const GAP: Event = Event::Gap { reason: GapReason::Deleted, bytes: None };
    const ROTATED: Event = Event::Rotated { next_offset: 0 };

    /// Two lives of which the first came to the path again; its last line was written then, and lost by a truncation. The
    /// `reported` one of three events between the lines that came is a gap.
    fn verdict(reported: usize) -> Result<(), String> {
        let mut ledger = Ledger::new("log");
        let (one, other) = (ledger.begin(), ledger.begin());
        ledger.arrive(one);
        let first = ledger.write(one, false, 0);
        ledger.arrive(other);
        let second = ledger.write(other, false, 0);
        ledger.arrive(one);
        ledger.write(one, false, 0);
        let truncated = ledger.begin();
        ledger.renew(one, truncated);
        ledger.arrive(truncated);
        let (third, fourth) = (ledger.write(truncated, false, 0), ledger.write(truncated, false, 0));
        for (nth, line) in [first, second, third, fourth].into_iter().enumerate() {
            if nth > 0 {
                ledger.take_event(if nth == reported { GAP } else { ROTATED });
            }
            ledger.take_line(line.trim_end_matches('\n'));
        }
        ledger.verdict()
    }

    #[test]
    fn a_loss_in_a_file_that_came_back_is_reported_before_the_lines_that_were_written_after_it() {
        assert_eq!(verdict(2), Ok(()));
        assert!(verdict(0).unwrap_err().contains("lost in silence: 2"), "without a gap");
        assert!(verdict(3).unwrap_err().contains("lost in silence: 2"), "a gap too late");
    }
}
