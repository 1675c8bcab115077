//! The options of `perennial lines`: the requests they make, and the commands that continue its streams.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use jiff::SignedDuration;
use perennial::proto::{LongLine, ReadLinesRequest, WatchFilesRequest, read_lines_request::Start};

use super::{Batching, Format, Gap, name, on_gap, push};
use crate::{escape, time};
use filter::Filter;
use place::Place;

mod filter;
mod place;

// The sections of --help.
const BEGIN: &str = "Start";
const END: &str = "End";
const LINES: &str = "Lines";

/// As the contract has it.
const MAX_DELIMITER_BYTES: usize = 16;

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Long {
    /// Print the whole line
    Split,
    /// Print its beginning
    Truncate,
    /// Omit it, and report that on stderr
    Skip,
}

/// The files that match globs, if nothing else is asked for. Each needs some 100 KB here and at the server while it is open.
const MAX_FILES: u16 = 1000;

/// The value of `-n`, as in tail.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Tail {
    Last(i64),
    FromLine(i64),
}

#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct Lines {
    /// The files, as `perennial files` lists them, and quoted globs; each option applies to every file
    ///
    /// A glob is for paths: `*` and `?` match within a name, `**` also directories, `[ab]` one of these characters, and
    /// `{a,b}` one of these globs. A `\` before one of these characters takes it as it is. Without --follow, the files
    /// that match are read one after the other, in the order of their paths. With --follow, they are read at once, and so
    /// is each file that appears later, from its start.
    #[arg(required = true, value_name = "ROOT/PATH")]
    paths: Vec<String>,
    /// Begin with the last N lines, or at line N with +N [default: the first line]
    ///
    /// With --grep and --exclude, N counts the lines that match; +N counts those of the file.
    #[arg(short = 'n', long, visible_alias = "tail", value_name = "[+]N", value_parser = tail)]
    #[arg(help_heading = BEGIN, allow_hyphen_values = true)]
    #[arg(conflicts_with_all = ["from_line", "from_offset", "cursor"])]
    last: Option<Tail>,
    /// Begin at line N, counted from 1
    #[arg(long, value_name = "N", conflicts_with_all = ["from_offset", "cursor"], help_heading = BEGIN)]
    from_line: Option<i64>,
    /// Begin at byte B, counted from 0
    #[arg(long, value_name = "B", conflicts_with = "cursor", help_heading = BEGIN)]
    from_offset: Option<i64>,
    /// Begin with the oldest rotated file, and read all of them, also those that gzip or zstd compressed
    #[arg(long, help_heading = BEGIN)]
    #[arg(conflicts_with_all = ["last", "from_line", "from_offset", "until_line", "until_offset"])]
    history: bool,
    /// End after line N
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..), help_heading = END)]
    until_line: Option<i64>,
    /// End before the first line that starts at byte B or later
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(i64).range(0..), help_heading = END)]
    until_offset: Option<i64>,
    /// Wait for new lines at the end of the file, and print them as they are written
    #[arg(short, long, help_heading = END)]
    follow: bool,
    /// Follow, and wait for a file that does not exist yet
    #[arg(long, help_heading = END)]
    wait_for_create: bool,
    /// The same as --follow --wait-for-create, as in tail
    #[arg(short = 'F', help_heading = END)]
    follow_and_wait: bool,
    /// Save the cursor in FILE, and continue after the cursor that FILE holds
    ///
    /// FILE is created if it does not exist. If it holds a cursor, the start options are ignored. An empty or damaged
    /// FILE is an error. FILE is replaced in one step, after the lines before the cursor were written to stdout. So a
    /// run that is killed loses no line. The next run repeats the lines of the last second or, once the run had caught
    /// up, at most one batch (--max-batch 1: one line). One run at a time can use FILE.
    #[arg(long, value_name = "FILE", conflicts_with = "cursor", help_heading = BEGIN)]
    resume: Option<PathBuf>,
    /// When the data after the cursor is gone [default: fail]
    #[arg(long, value_enum, value_name = "WHAT", help_heading = BEGIN)]
    on_gap: Option<Gap>,
    /// When a line is longer than --max-line [default: split]
    #[arg(long, value_enum, value_name = "WHAT", help_heading = LINES)]
    long_line: Option<Long>,
    /// The length above which a line is long [default: the server's limit, usually 1 MiB]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(i32).range(16..), help_heading = LINES)]
    max_line: Option<i32>,
    /// With --follow, print an unfinished last line when it has not grown for D
    #[arg(long, value_name = "D", value_parser = time::duration, help_heading = LINES)]
    partial_flush: Option<SignedDuration>,
    /// The text that ends a line [default: \n or \r\n]
    ///
    /// TEXT has up to 16 bytes and can contain \0, \n, \r, \t, \\ and \xNN. With -o raw each line is printed with
    /// its delimiter, and the default is \n, so that a \r is printed, too. Otherwise each line is printed with a
    /// newline.
    #[arg(long, value_name = "TEXT", value_parser = unescape, allow_hyphen_values = true, help_heading = LINES)]
    delimiter: Option<String>,
    /// Do not print the name of the file with each line
    #[arg(short = 'q', long, conflicts_with = "names", help_heading = LINES)]
    no_names: bool,
    /// Print the name of the file with each line [default for several files]
    ///
    /// On a terminal `NAME | ` is printed before each line, otherwise `ROOT/PATH: `. With -o json and ndjson the field
    /// `path` holds it. -o raw cannot print it, so several files need --no-names there.
    #[arg(short = 'H', long, help_heading = LINES)]
    names: bool,
    /// Read up to N files that globs match; more are an error
    #[arg(long, value_name = "N", default_value_t = MAX_FILES, help_heading = END)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=10_000))]
    max_files: u16,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    batching: Batching,
}

impl Lines {
    /// The files that are named.
    pub fn paths(&self) -> Vec<String> {
        self.paths
            .iter()
            .filter_map(|it| if let Place::Path(path) = Place::read(it) { Some(path) } else { None })
            .collect()
    }

    /// The globs for other files.
    pub fn globs(&self) -> Vec<String> {
        self.paths
            .iter()
            .filter_map(|it| if let Place::Glob(glob) = Place::read(it) { Some(glob) } else { None })
            .collect()
    }

    /// The most files that the globs may match.
    pub fn max_files(&self) -> usize {
        self.max_files.into()
    }

    /// Whether there may be more than one file.
    pub fn is_several(&self) -> bool {
        self.paths.len() > 1 || !self.globs().is_empty()
    }

    /// The file with the cursors.
    pub fn resume(&self) -> Option<&PathBuf> {
        self.resume.as_ref()
    }

    /// Whether a file has reached the limit after this number of lines.
    pub fn is_limit(&self, delivered: i64) -> bool {
        self.batching.limit.is_some_and(|limit| delivered >= limit)
    }

    /// Whether the stream waits for new lines.
    pub fn follows(&self) -> bool {
        self.follow || self.waits()
    }

    /// Whether a file that does not exist yet is waited for.
    pub fn waits(&self) -> bool {
        self.wait_for_create || self.follow_and_wait
    }

    /// Whether each line is printed with the name of its file.
    pub fn has_names(&self) -> bool {
        self.names || self.is_several() && !self.no_names
    }

    /// The length above which a line is long, if it was given.
    pub fn max_line_bytes(&self) -> Option<i32> {
        self.max_line
    }

    pub fn until_offset(&self) -> Option<i64> {
        self.until_offset
    }

    /// The text after a raw line.
    pub fn delimiter(&self) -> &str {
        self.delimiter.as_deref().unwrap_or("\n")
    }

    /// Refuses combinations that clap's own rules do not cover.
    pub fn check(&self, format: Format) -> Result<(), String> {
        let mut seen = std::collections::HashSet::new();
        if let Some(twice) = self.paths.iter().find(|path| !seen.insert(*path)) {
            return Err(format!("{twice} is given twice"));
        }
        if self.is_several() && self.batching.cursor.is_some() {
            return Err("--cursor is for one file; use --resume FILE for several".into());
        }
        if format == Format::Raw && self.has_names() {
            return Err(
                "-o raw cannot print the names of several files; add --no-names, or omit -o raw".into()
            );
        }
        Ok(())
    }

    /// The request for one of the paths, after its cursor if there is one.
    pub fn request(&self, path: &str, cursor: Option<&str>, format: Format) -> ReadLinesRequest {
        let tail = self.last.map(|tail| match tail {
            Tail::Last(last) => Start::Last(last),
            Tail::FromLine(line) => Start::FromLine(line),
        });
        let line = self.from_line.map(Start::FromLine);
        let (include, exclude) = self.filter.patterns();
        ReadLinesRequest {
            path: path.to_owned(),
            start: tail.or(line).or(self.from_offset.map(Start::FromOffset)),
            follow: self.follows(),
            on_gap: on_gap(self.on_gap).into(),
            wait_for_create: self.waits(),
            until_line: self.until_line,
            until_offset: self.until_offset,
            long_line: long_line(self.long_line).into(),
            cursor: cursor.map(str::to_owned).or_else(|| self.batching.cursor.clone()),
            limit: self.batching.limit,
            heartbeat: self.batching.heartbeat(),
            max_batch: self.batching.max_batch,
            partial_flush: self.partial_flush.map(time::to_proto),
            // By default a \r before the \n is not part of a line, but -o raw prints every byte.
            delimiter: self.delimiter.clone().or((format == Format::Raw).then(|| "\n".into())),
            max_line_bytes: self.max_line,
            history: self.history,
            include,
            exclude,
            literal_patterns: self.filter.fixed_strings,
            ignore_case: self.filter.ignore_case,
        }
    }

    /// The request for a file that appeared, and is read from its start, or after a cursor.
    pub fn request_of_new(&self, path: &str, cursor: Option<&str>, format: Format) -> ReadLinesRequest {
        ReadLinesRequest { start: None, ..self.request(path, cursor, format) }
    }

    /// The request for the files that match the globs, if there is one.
    pub fn watch_request(&self) -> Option<WatchFilesRequest> {
        let globs = self.globs();
        (!globs.is_empty()).then(|| WatchFilesRequest {
            globs,
            until_caught_up: !self.follows(),
            heartbeat: self.batching.heartbeat(),
            ..WatchFilesRequest::default()
        })
    }

    /// The words of the command that resumes one path after a cursor.
    pub fn words(&self, path: &str, delivered: i64, cursor: &str) -> Vec<String> {
        let mut words = vec!["lines".to_owned(), place::argument(path)];
        words.extend(self.has_names().then(|| "-H".to_owned()));
        self.push_options(&mut words);
        self.batching.push(&mut words, delivered, cursor);
        words
    }

    /// The words of the command that resumes all paths from the file with their cursors.
    pub fn words_with_file(&self, delivered: i64, file: &str) -> Vec<String> {
        let mut words = vec!["lines".to_owned()];
        words.extend(self.paths.iter().cloned());
        words.extend(self.names.then(|| "-H".to_owned()));
        words.extend(self.no_names.then(|| "-q".to_owned()));
        words.extend((self.max_files != MAX_FILES).then(|| format!("--max-files={}", self.max_files)));
        self.push_options(&mut words);
        // One command cannot give each of several files what is left of its limit.
        let delivered = if self.is_several() { 0 } else { delivered };
        self.batching.push_rest(&mut words, delivered);
        push(&mut words, "--resume", Some(file));
        words
    }

    fn push_options(&self, words: &mut Vec<String>) {
        let follow = if self.waits() { "-F" } else { "-f" };
        words.extend(self.follows().then(|| follow.to_owned()));
        words.extend(self.history.then(|| "--history".to_owned()));
        push(words, "--until-line", self.until_line);
        push(words, "--until-offset", self.until_offset);
        push(words, "--on-gap", self.on_gap.as_ref().map(name));
        push(words, "--long-line", self.long_line.as_ref().map(name));
        push(words, "--max-line", self.max_line);
        push(words, "--partial-flush", self.partial_flush.map(|duration| format!("{duration:#}")));
        push(words, "--delimiter", self.delimiter.as_deref().map(escape));
        self.filter.push(words);
    }
}

fn long_line(long: Option<Long>) -> LongLine {
    match long {
        None => LongLine::Unspecified,
        Some(Long::Split) => LongLine::Split,
        Some(Long::Truncate) => LongLine::Truncate,
        Some(Long::Skip) => LongLine::Skip,
    }
}

fn tail(text: &str) -> Result<Tail, String> {
    let unknown = || "not a number of lines; try 10, or +10 to begin with line 10".to_owned();
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i64>().ok().filter(|_| digits).ok_or_else(unknown)
    };
    match text.strip_prefix('+') {
        // tail takes +0 for +1.
        Some(line) => number(line).map(|line| Tail::FromLine(line.max(1))),
        // tail takes -N for N.
        None => number(text.strip_prefix('-').unwrap_or(text)).map(Tail::Last),
    }
}

/// Reads a delimiter with escapes.
fn unescape(text: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut rest = text.chars();
    while let Some(char) = rest.next() {
        if char != '\\' {
            bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        bytes.push(escape::after_backslash(&mut rest)?);
    }
    if bytes.is_empty() || bytes.len() > MAX_DELIMITER_BYTES {
        return Err(format!("has {} bytes; 1 to {MAX_DELIMITER_BYTES} are possible", bytes.len()));
    }
    String::from_utf8(bytes).map_err(|_| "not UTF-8, which a delimiter must be".into())
}

/// Writes a delimiter so that [`unescape`] reads it back.
fn escape(text: &str) -> String {
    text.chars()
        .map(|char| match char {
            '\0' => "\\0".into(),
            '\n' => "\\n".into(),
            '\r' => "\\r".into(),
            '\t' => "\\t".into(),
            '\\' => "\\\\".into(),
            _ if char.is_ascii_control() => format!("\\x{:02x}", u32::from(char)),
            _ => char.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests;
