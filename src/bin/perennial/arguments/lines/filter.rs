//! The options of `perennial lines` that choose lines: the server applies them.

use clap::Args;

/// The section of --help.
const FILTER: &str = "Filter";

#[derive(Args, Debug)]
pub struct Filter {
    /// Print only the lines that match PATTERN, or one of several
    ///
    /// The server searches, so that other lines do not travel. PATTERN is a regular expression of the Rust crate
    /// `regex`: Perl syntax without look-around and back references. It matches anywhere in a line unless it has anchors.
    /// With a resumed cursor the filter can be another one; it holds from the cursor on.
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true, help_heading = FILTER)]
    grep: Vec<String>,
    /// Do not print the lines that match PATTERN, or one of several
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true, help_heading = FILTER)]
    exclude: Vec<String>,
    /// Print the lines that do not match --grep, as grep does
    #[arg(short = 'v', long, requires = "grep", help_heading = FILTER)]
    invert_match: bool,
    /// Ignore the case of letters in patterns
    #[arg(short, long, help_heading = FILTER)]
    pub(super) ignore_case: bool,
    /// Patterns are literal text, and not regular expressions
    #[arg(long, help_heading = FILTER)]
    pub(super) fixed_strings: bool,
}

impl Filter {
    /// The patterns of lines that are printed, and of lines that are not.
    pub fn patterns(&self) -> (Vec<String>, Vec<String>) {
        let (grep, exclude) = (self.grep.clone(), self.exclude.clone());
        if self.invert_match { (Vec::new(), [grep, exclude].concat()) } else { (grep, exclude) }
    }

    /// Appends the words of these options.
    pub fn push(&self, words: &mut Vec<String>) {
        let joined = |option: &str, pattern: &String| format!("{option}={pattern}");
        words.extend(self.grep.iter().map(|pattern| joined("--grep", pattern)));
        words.extend(self.exclude.iter().map(|pattern| joined("--exclude", pattern)));
        words.extend(self.invert_match.then(|| "-v".to_owned()));
        words.extend(self.ignore_case.then(|| "-i".to_owned()));
        words.extend(self.fixed_strings.then(|| "--fixed-strings".to_owned()));
    }
}
