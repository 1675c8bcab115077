#![expect(clippy::unwrap_used, reason = "a test")]
use clap::CommandFactory;

use super::*;
use crate::quote;

#[test]
fn the_definitions_hold_together() {
    Arguments::command().debug_assert();
}

fn resume(line: &[&str]) -> String {
    let arguments = Arguments::try_parse_from(line).unwrap();
    let mut words = arguments.prefix(|name| line.contains(&format!("--{}", name.replace('_', "-")).as_str()));
    words.extend(match &arguments.verb {
        Verb::Countdown(it) => it.watch.words(2, "C"),
        Verb::Lines(it) => it.words(it.paths().first().unwrap(), 2, "C"),
        Verb::Messages(it) => it.words(2, "C"),
        _ => unreachable!("not a stream"),
    });
    Arguments::try_parse_from(&words).unwrap();
    quote::command(&words)
}

#[test]
fn the_command_that_resumes_keeps_the_options_and_drops_the_start() {
    let countdown = ["perennial", "countdown", "9", "--interval", "1s", "--to", "-3", "--burst"];
    assert_eq!(resume(&countdown), "perennial countdown --burst --cursor C");
    let lines = ["perennial", "lines", "logs/a b", "-n", "3", "-f", "--on-gap", "skip", "--limit", "9"];
    assert_eq!(resume(&lines), "perennial lines 'logs/a b' -f --on-gap skip --limit 7 --cursor C");
    let messages = ["perennial", "-o", "raw", "--server", "h:1", "messages", "a.>", "b", "--from", "3"];
    assert_eq!(resume(&messages), "perennial --server h:1 -o raw messages 'a.>' b --cursor C");
    let bounded = ["perennial", "messages", "a", "--until-sequence", "7", "--heartbeat", "1m 30s"];
    assert_eq!(resume(&bounded), "perennial messages a --until-sequence 7 --heartbeat 1m30s --cursor C");
    let printed =
        ["perennial", "messages", "a", "--last-per-topic", "--on-gap", "skip", "--format", "{text}\\0"];
    assert_eq!(resume(&printed), "perennial messages a --on-gap skip --format '{text}\\0' --cursor C");
}

#[test]
fn a_start_and_a_cursor_exclude_each_other() {
    for line in [
        &["perennial", "lines", "a/b", "-n", "1", "--cursor", "C"][..],
        &["perennial", "countdown", "3", "--cursor", "C"],
        &["perennial", "messages", "a", "--from", "new", "--cursor", "C"],
        &["perennial", "countdown"],
        &["perennial", "messages", "a", "--last-per-topic", "--cursor", "C"],
        &["perennial", "messages", "a", "--last-per-topic", "--last", "1"],
    ] {
        assert_eq!(Arguments::try_parse_from(line).unwrap_err().exit_code(), 2, "{line:?}");
    }
}

#[test]
fn options_that_exclude_each_other_are_refused_by_name() {
    for (line, named) in [
        (&["perennial", "-o", "json", "messages", "a", "--format", "{text}"][..], "-o json"),
        (&["perennial", "publish", "a", "-", "--id", "1"], "--id"),
        (&["perennial", "publish", "--json", "--expect", "1"], "--expect"),
        (&["perennial", "publish", "a", "--file", "x", "--file", "y", "--id", "1"], "--id"),
    ] {
        let error = Arguments::try_parse_from(line).unwrap().check().unwrap_err();
        assert!(error.contains(named), "{line:?}: {error}");
    }
}

#[test]
fn a_benchmark_without_messages_or_readers_is_refused() {
    for line in [
        &["perennial", "bench"][..],
        &["perennial", "bench", "pub", "--messages", "0"],
        &["perennial", "bench", "pub", "--size", "31"],
        &["perennial", "bench", "pub", "--unary", "--in-flight", "7"],
        &["perennial", "bench", "pubsub", "--connections", "0"],
        &["perennial", "bench", "pubsub", "--subscribers", "0"],
    ] {
        assert_eq!(Arguments::try_parse_from(line).unwrap_err().exit_code(), 2, "{line:?}");
    }
}

/// Every command, with the words that lead to it.
fn commands(command: &clap::Command, words: &str) -> Vec<(String, clap::Command)> {
    let mut all = vec![(words.to_owned(), command.clone())];
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        all.extend(commands(sub, &format!("{words} {}", sub.get_name())));
    }
    all
}

#[test]
fn each_usage_names_the_arguments_in_the_order_in_which_they_are_read() {
    let mut root = Arguments::command();
    root.build();
    for (words, mut command) in commands(&root, "perennial") {
        let usage = command.render_usage().to_string();
        for line in usage.lines() {
            let names = command.get_positionals().map(|it| it.get_id().as_str().to_uppercase());
            let places = names.filter_map(|name| line.find(&name)).collect::<Vec<_>>();
            assert!(places.is_sorted(), "{words}: {line}");
        }
    }
}

#[test]
fn an_option_of_another_tool_is_refused_with_the_name_of_ours() {
    for (line, advice) in [
        ("messages a -f", "new messages are always followed"),
        ("messages a --no-follow", "--until-caught-up"),
        ("messages -n 5 a", "--last N"),
        ("messages a --since -1h", "--from -1h"),
        ("messages a --earliest", "--from takes new, earliest"),
        ("lines a/b -e x", "--grep PATTERN"),
        ("lines a/b -c 100", "--from-offset B"),
        ("countdown 3 -i 100ms", "--interval D"),
    ] {
        let words = std::iter::once("perennial").chain(line.split(' '));
        let error = Arguments::try_parse_from(words).unwrap_err();
        assert_eq!(error.kind(), clap::error::ErrorKind::UnknownArgument, "{line}");
        let text = guesses::without_value(error).render().to_string();
        assert!(text.contains(advice) && !text.contains("as a value"), "{line}: {text}");
        assert!(!text.contains("guess"), "{line}: {text}");
    }
}

#[test]
fn each_command_has_an_example_that_is_read_as_it_is_written() {
    let mut root = Arguments::command();
    root.build();
    for (words, mut command) in commands(&root, "perennial") {
        let help = command.render_long_help().to_string();
        let examples = help.lines().map(str::trim).filter(|line| line.starts_with("perennial "));
        let examples = examples.filter(|line| !line.contains('[')).collect::<Vec<_>>();
        let is_of_parent = words.matches(' ').count() > 1;
        assert!(is_of_parent || !examples.is_empty(), "{words} has no example");
        for example in examples {
            // The shell takes the rest.
            let words = example.split(" < ").next().unwrap_or_default();
            let words = words.split_whitespace().map(|word| word.trim_matches('\''));
            let arguments =
                Arguments::try_parse_from(words).unwrap_or_else(|error| panic!("{example}: {error}"));
            assert_eq!(arguments.check(), Ok(()), "{example}");
        }
    }
}

#[test]
fn help_is_as_wide_as_eighty_columns_allow() {
    let mut root = Arguments::command();
    root.build();
    for (words, command) in commands(&root, "perennial") {
        let at = |columns: usize| {
            let mut command = command.clone().max_term_width(columns).term_width(columns);
            [command.render_help().to_string(), command.render_long_help().to_string()]
        };
        let help = at(80);
        let lines = help.iter().flat_map(|help| help.lines());
        let wide = lines.filter(|line| line.chars().count() > 80).collect::<Vec<_>>();
        assert!(wide.is_empty(), "{words}: {wide:#?}");
        // Without a limit each paragraph is one line: none is broken before clap wraps it.
        for help in at(10_000) {
            for (line, next) in help.lines().zip(help.lines().skip(1)) {
                let is_text = |line: &str| !(line.is_empty() || line.starts_with([' ', '\t']));
                let is_whole = line.ends_with(['.', ':']) || !is_text(line) || !is_text(next);
                assert!(is_whole, "{words}: {line:?} goes on with {next:?}");
            }
        }
    }
    let help = Arguments::command().render_long_help().to_string();
    assert!(help.lines().all(|line| line.chars().count() <= HELP_COLUMNS), "{help}");
}
