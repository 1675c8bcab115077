//! Patterns, compiled twice: for the content of one line, and for a chunk of many lines.
//!
//! One search of a chunk is several times as fast as a search of each of its lines. The pattern for chunks cannot match
//! a line feed, and its anchors hold at the borders of lines. So each match is within one line, and each line that
//! matches by itself has a match. Only with a CR in the chunk, a line may have a match that it has not by itself.

use std::ops::Range;

use regex_automata::{
    Input,
    meta::{BuildError, Cache, Config, Regex},
    nfa::thompson::WhichCaptures,
};
use regex_syntax::{
    ParserBuilder,
    hir::{
        Class, ClassBytes, ClassBytesRange, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Look, Repetition,
    },
};

use crate::lines::content::rules::Delimiter;

/// The most bytes of a compiled pattern.
const COMPILED_BYTES: usize = 1024 * 1024;

/// The most states that a search can be in at one place of the text. A slow search takes 5 to 20 ns for each state and
/// byte: about a tenth of a second for the longest text, [`TESTED_BYTES`](super::TESTED_BYTES).
const MAX_STATES: usize = 200;

/// The most bytes of the states that a search has computed and keeps.
const CACHE_BYTES: usize = 512 * 1024;

/// The deepest nesting of a pattern: it bounds the stack of the parser.
const MAX_NESTING: u32 = 64;

/// Why a pattern does not compile.
#[derive(Debug)]
pub enum Fault {
    Syntax { pattern: String, fault: String },
    Size,
}

/// Some patterns, any of which may match.
#[derive(Debug)]
pub struct Pattern {
    line: Regex,
    /// `None` where a chunk cannot be searched.
    chunk: Option<Regex>,
}

/// The states that searches have computed so far.
#[derive(Debug)]
pub struct Caches {
    line: Cache,
    chunk: Option<Cache>,
}

impl Pattern {
    pub fn compile(
        patterns: &[String],
        are_literal: bool,
        ignore_case: bool,
        delimiter: &Delimiter,
    ) -> Result<Self, Fault> {
        let mut parser = ParserBuilder::new();
        parser.utf8(false).case_insensitive(ignore_case).nest_limit(MAX_NESTING);
        let parse = |pattern: &String| {
            let text = if are_literal { &regex_syntax::escape(pattern) } else { pattern };
            parser.build().parse(text).map_err(|error| Fault::syntax(pattern, &error))
        };
        let hirs = patterns.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        if hirs.iter().map(states).fold(0, usize::saturating_add) > MAX_STATES {
            return Err(Fault::Size);
        }
        let line = build(&hirs)?;
        let chunk = match delimiter {
            Delimiter::Newline => hirs.iter().map(|hir| across_lines(hir, true)).collect(),
            Delimiter::Bytes(bytes) if **bytes == *b"\n" => {
                hirs.iter().map(|hir| across_lines(hir, false)).collect()
            }
            Delimiter::Bytes(_) => None,
        };
        let chunk = chunk.map(|hirs: Vec<_>| build(&hirs)).transpose()?;
        Ok(Self { line, chunk })
    }

    /// About how many bytes it holds.
    pub fn bytes(&self) -> usize {
        self.line.memory_usage() + self.chunk.as_ref().map_or(0, Regex::memory_usage)
    }

    pub fn caches(&self) -> Caches {
        Caches { line: self.line.create_cache(), chunk: self.chunk.as_ref().map(Regex::create_cache) }
    }

    /// Whether a chunk of many lines can be searched.
    pub fn has_chunks(&self) -> bool {
        self.chunk.is_some()
    }

    /// Whether there is a match within the first `tested` bytes of a line.
    pub fn matches(&self, caches: &mut Caches, line: &[u8], tested: usize) -> bool {
        let input = Input::new(line).range(..tested.min(line.len())).earliest(true);
        self.line.search_half_with(&mut caches.line, &input).is_some()
    }

    /// The end of the first match in a part of a chunk, which begins and ends with whole lines.
    pub fn find(&self, caches: &mut Caches, chunk: &[u8], part: Range<usize>) -> Option<usize> {
        let end = part.end;
        let input = Input::new(chunk).range(part).earliest(true);
        let found = self.chunk.as_ref()?.search_half_with(caches.chunk.as_mut()?, &input)?;
        // An empty match after the last line is in no line.
        Some(found.offset()).filter(|found| *found < end)
    }
}

impl Fault {
    fn syntax(pattern: &str, error: &regex_syntax::Error) -> Self {
        let fault = match error {
            regex_syntax::Error::Parse(error) => {
                format!("{} at byte {}", error.kind(), error.span().start.offset)
            }
            regex_syntax::Error::Translate(error) => {
                format!("{} at byte {}", error.kind(), error.span().start.offset)
            }
            _ => "it is no regular expression".to_owned(),
        };
        Self::Syntax { pattern: pattern.to_owned(), fault }
    }
}

impl From<BuildError> for Fault {
    fn from(_: BuildError) -> Self {
        // The syntax was checked before.
        Self::Size
    }
}

fn build(hirs: &[Hir]) -> Result<Regex, Fault> {
    let config = Config::new()
        .utf8_empty(false)
        .which_captures(WhichCaptures::Implicit)
        .nfa_size_limit(Some(COMPILED_BYTES))
        .hybrid_cache_capacity(CACHE_BYTES);
    Ok(Regex::builder().configure(config).build_many_from_hir(hirs)?)
}

/// The most states that a search for a pattern is in at once, with those that it passes on the way: each character as
/// often as it is repeated, and each branch; of a text only as many as can be at once.
fn states(hir: &Hir) -> usize {
    let sum = |hirs: &[Hir]| hirs.iter().map(states).fold(0, usize::saturating_add);
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => starts_within(&literal.0),
        // Within a character of several bytes, a search may be in it and before it.
        HirKind::Class(_) => hir.properties().maximum_len().unwrap_or(1).clamp(1, 2),
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min.saturating_add(1));
            // Without a choice, the copies follow one another.
            let is_exact = repetition.max == Some(repetition.min);
            let once = states(&repetition.sub).saturating_add(usize::from(!is_exact));
            once.saturating_mul(usize::try_from(times).unwrap_or(usize::MAX))
        }
        HirKind::Capture(capture) => states(&capture.sub),
        HirKind::Concat(hirs) => sum(hirs),
        HirKind::Alternation(hirs) => sum(hirs).saturating_add(hirs.len()),
    }
}

/// The most beginnings of a text that end at one place of another text: 1 unless the text overlaps itself, as `aaa` does.
fn starts_within(text: &[u8]) -> usize {
    // By Knuth, Morris and Pratt: the longest shorter beginning that each beginning ends with, and how many there are.
    let mut shorter = vec![0; text.len() + 1];
    let mut counts = vec![1; text.len() + 1];
    let mut length = 0;
    for (at, byte) in text.iter().enumerate().skip(1) {
        while length > 0 && text.get(length) != Some(byte) {
            length = shorter.get(length).copied().unwrap_or(0);
        }
        if text.get(length) == Some(byte) {
            length += 1;
        }
        let count = if length > 0 { counts.get(length).copied().unwrap_or(1) + 1 } else { 1 };
        if let (Some(shorter), Some(counts)) = (shorter.get_mut(at + 1), counts.get_mut(at + 1)) {
            (*shorter, *counts) = (length, count);
        }
    }
    counts.into_iter().max().unwrap_or(1)
}

/// The same pattern for a chunk of lines. `strips`: a CR before the line feed is not content. `None` if the pattern needs
/// bytes that a chunk does not show.
fn across_lines(hir: &Hir, strips: bool) -> Option<Hir> {
    let all = |hirs: &[Hir]| hirs.iter().map(|hir| across_lines(hir, strips)).collect::<Option<Vec<_>>>();
    Some(match hir.kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) if literal.0.contains(&b'\n') => return None,
        HirKind::Literal(literal) => Hir::literal(literal.0.clone()),
        HirKind::Class(class) => Hir::class(without_line_feed(class)),
        HirKind::Look(look) => Hir::look(match look {
            Look::Start => Look::StartLF,
            // For these anchors, a CR that is content is the end of a line, but not before a line feed.
            Look::StartCRLF | Look::EndCRLF if !strips => return None,
            Look::End | Look::EndLF if strips => Look::EndCRLF,
            Look::End => Look::EndLF,
            look => *look,
        }),
        HirKind::Repetition(repetition) => {
            let sub = Box::new(across_lines(&repetition.sub, strips)?);
            Hir::repetition(Repetition { sub, ..repetition.clone() })
        }
        HirKind::Capture(capture) => across_lines(&capture.sub, strips)?,
        HirKind::Concat(hirs) => Hir::concat(all(hirs)?),
        HirKind::Alternation(hirs) => Hir::alternation(all(hirs)?),
    })
}

fn without_line_feed(class: &Class) -> Class {
    match class {
        Class::Unicode(class) => {
            let mut class = class.clone();
            class.difference(&ClassUnicode::new([ClassUnicodeRange::new('\n', '\n')]));
            Class::Unicode(class)
        }
        Class::Bytes(class) => {
            let mut class = class.clone();
            class.difference(&ClassBytes::new([ClassBytesRange::new(b'\n', b'\n')]));
            Class::Bytes(class)
        }
    }
}
