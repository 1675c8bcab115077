//! Wrong usage: how it is reported before the arguments are understood.

use std::ffi::OsString;

use clap::{
    ValueEnum,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{arguments::Format, output::Problem};

/// Flags without a value, which can be written together with `-o`: `-fo json`.
const FLAGS: &str = "fFqvy";

/// The format that a command line asks for, even if the rest of it is wrong.
pub fn format(words: &[OsString]) -> Format {
    let mut words = words.iter().map(|word| word.to_string_lossy()).skip(1).take_while(|word| word != "--");
    let mut format = None;
    while let Some(word) = words.next() {
        let value = if let Some(long) = word.strip_prefix("--output") {
            match long.strip_prefix('=') {
                Some(value) => Some(value.to_owned()),
                None => words.next().filter(|_| long.is_empty()).map(Into::into),
            }
        } else {
            let flags = word.strip_prefix('-').map(|short| short.trim_start_matches(|it| FLAGS.contains(it)));
            match flags.and_then(|flags| flags.strip_prefix('o')) {
                Some("") => words.next().map(Into::into),
                Some(value) => Some(value.trim_start_matches('=').to_owned()),
                None => None,
            }
        };
        format = value.and_then(|value| Format::from_str(&value, false).ok()).or(format);
    }
    format.unwrap_or_default()
}

/// The facts of a refusal, without the usage and the colours that are meant for people.
pub fn problem(error: &clap::Error) -> Problem {
    // clap reports the first kind only if no option is set, not even by the environment.
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand
    ) {
        return Problem::usage("a command is missing; --help lists the commands", None);
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let paragraphs =
        text.lines().take_while(|line| !(line.starts_with("Usage:") || line.starts_with("For more")));
    let message = paragraphs.map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let option = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(option)) => Some(option.as_str()),
        Some(ContextValue::Strings(options)) => options.first().map(String::as_str),
        _ => None,
    };
    // Its name alone: `--limit <N>`.
    let option = option.and_then(|option| option.split_whitespace().next()).map(str::to_owned);
    Problem::usage(message, option)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]
    use clap::Parser;

    use super::*;
    use crate::arguments::Arguments;

    fn words(line: &str) -> Vec<OsString> {
        std::iter::once("perennial").chain(line.split_whitespace()).map(OsString::from).collect()
    }

    #[test]
    fn the_format_is_found_on_a_command_line_that_is_wrong() {
        for line in [
            "-o json --nonsense",
            "lines -ojson --limit x",
            "lines -fo json",
            "lines -o=json",
            "--output json",
            "nonsense --output=json",
            "-o text lines -o json",
            "-o json -o nonsense",
        ] {
            assert_eq!(format(&words(line)), Format::Json, "{line}");
        }
        for line in ["", "lines", "lines -- -o json", "-o", "--output-x json", "lines -n json", "-o nonsense"]
        {
            assert_eq!(format(&words(line)), Format::Text, "{line}");
        }
    }

    #[test]
    fn a_refusal_names_the_option_and_says_what_is_wrong() {
        for (line, field, message) in [
            ("lines a/b --limit x", r#""--limit""#, "invalid value 'x' for '--limit <N>'"),
            ("lines", r#""<ROOT/PATH>...""#, "required arguments were not provided: <ROOT/PATH>..."),
            ("lines a/b --nonsense", r#""--nonsense""#, "unexpected argument '--nonsense' found"),
            ("nonsense", "null", "unrecognized subcommand 'nonsense'"),
            ("", "null", "a command is missing"),
        ] {
            let error = Arguments::try_parse_from(words(line)).unwrap_err();
            let object = problem(&error).object();
            assert!(object.contains(&format!(r#""field":{field},"#)), "{line}: {object}");
            assert!(object.contains(message) && !object.contains("Usage"), "{line}: {object}");
        }
    }
}
