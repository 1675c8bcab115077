//! The labels before lines that name their files.

use std::collections::HashMap;

use anstyle::{AnsiColor, Color, Style};

use crate::output;

/// Colours that differ on dark and on light backgrounds. Red is for errors.
const COLOURS: [AnsiColor; 10] = [
    AnsiColor::Cyan,
    AnsiColor::Yellow,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::BrightCyan,
    AnsiColor::BrightYellow,
    AnsiColor::BrightGreen,
    AnsiColor::BrightMagenta,
    AnsiColor::BrightBlue,
];

/// The labels for a program: `logs/a.log: `.
pub fn plain(paths: &[String]) -> Vec<Vec<u8>> {
    paths.iter().map(|path| format!("{path}: ").into_bytes()).collect()
}

/// The labels for a person: the short name, padded to the width of the longest one. A path always has the same colour.
pub fn aligned(paths: &[String], has_colour: bool) -> Vec<Vec<u8>> {
    let mut alike = HashMap::new();
    for path in paths {
        *alike.entry(last(path)).or_insert(0_usize) += 1;
    }
    let names = paths.iter().map(|path| {
        let mut name = Vec::new();
        // The last part of a path, if no other path has the same one.
        let is_alone = alike.get(last(path)).is_some_and(|alike| *alike == 1);
        output::escape(&mut name, (if is_alone { last(path) } else { path }).as_bytes());
        String::from_utf8_lossy(&name).into_owned()
    });
    let names = names.collect::<Vec<_>>();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or_default();
    let label = |(name, path): (&String, &String)| {
        let style = if has_colour { colour(path) } else { Style::new() };
        format!("{style}{name:width$} |{style:#} ").into_bytes()
    };
    names.iter().zip(paths).map(label).collect()
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn colour(path: &str) -> Style {
    let at = usize::try_from(crc32c::crc32c(path.as_bytes())).unwrap_or_default() % COLOURS.len();
    Style::new().fg_color(COLOURS.get(at).copied().map(Color::Ansi))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(labels: &[Vec<u8>]) -> Vec<String> {
        labels.iter().map(|label| String::from_utf8_lossy(label).into_owned()).collect()
    }

    fn paths(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_are_as_short_as_possible_and_padded_to_one_width() {
        let some = paths(&["logs/a.log", "logs/long.log"]);
        assert_eq!(labels(&aligned(&some, false)), ["a.log    | ", "long.log | "]);
        assert_eq!(labels(&plain(&some)), ["logs/a.log: ", "logs/long.log: "]);
        let alike = paths(&["one/a.log", "two/a.log", "two/ü"]);
        assert_eq!(labels(&aligned(&alike, false)), ["one/a.log | ", "two/a.log | ", "ü         | "]);
        assert_eq!(labels(&aligned(&paths(&["a/\x1b[2J"]), false)), ["\\x1b[2J | "]);
    }

    #[test]
    fn a_path_has_the_same_colour_in_every_run() {
        let alone = labels(&aligned(&paths(&["logs/a.log"]), true));
        let beside = labels(&aligned(&paths(&["logs/b.log", "logs/a.log"]), true));
        assert_eq!(alone.first(), beside.last());
        assert!(alone.iter().all(|label| label.starts_with("\x1b[") && label.ends_with("a.log |\x1b[0m ")));
        let colours = ["a", "b", "c", "d", "e"].map(|path| colour(path).to_string());
        assert!(colours.iter().any(|it| Some(it) != colours.first()));
    }
}
