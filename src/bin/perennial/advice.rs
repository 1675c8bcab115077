//! The server's advice, with the commands and options of this program instead of the calls and fields of the contract.
//!
//! The server writes for callers of gRPC: "ListFiles lists them", "set `on_gap` to ON_GAP_SKIP". A person at this command
//! line needs `perennial files` and `--on-gap`. The replacement is by whole words, so that paths and topics stay as
//! they are.

/// Calls, fields and values of the contract, and their names here.
const NAMES: [(&str, &str); 37] = [
    ("CancelCountdown", "`perennial countdown cancel`"),
    ("CommitCursor", "`perennial messages --consumer`"),
    ("CreateCountdown", "`perennial countdown create`"),
    ("DeleteConsumer", "`perennial delete-consumer`"),
    ("DeleteCountdown", "`perennial countdown delete`"),
    ("ExtendCountdown", "`perennial countdown extend`"),
    ("GetCountdown", "`perennial countdown get`"),
    ("ListConsumers", "`perennial consumers`"),
    ("ListCountdowns", "`perennial countdown list`"),
    ("ListFiles", "`perennial files`"),
    ("ListTopics", "`perennial topics`"),
    ("PauseCountdown", "`perennial countdown pause`"),
    ("PublishBatch", "`perennial publish`"),
    ("PublishStream", "`perennial publish`"),
    ("PurgeTopic", "`perennial purge`"),
    ("ReadLines", "`perennial lines`"),
    ("SetConsumer", "`perennial set-consumer`"),
    ("ResumeCountdown", "`perennial countdown resume`"),
    ("WatchFiles", "`perennial lines`"),
    ("ON_GAP_FAIL", "fail"),
    ("ON_GAP_SKIP", "skip"),
    ("LONG_LINE_SKIP", "skip"),
    ("LONG_LINE_SPLIT", "split"),
    ("LONG_LINE_TRUNCATE", "truncate"),
    ("expected_sequence", "--expect"),
    ("long_line", "--long-line"),
    ("max_batch", "--max-batch"),
    ("history", "--history"),
    ("max_line_bytes", "--max-line"),
    ("message_id", "--id"),
    ("on_gap", "--on-gap"),
    ("partial_flush", "--partial-flush"),
    ("until_line", "--until-line"),
    ("until_offset", "--until-offset"),
    ("until_sequence", "--until-sequence"),
    ("wait_first", "--wait-first"),
    ("wait_for_create", "--wait-for-create"),
];

/// Calls whose names are also words. The server's sentences begin in lower case, so a capital within one is a call.
const WORDS: [(&str, &str); 3] = [
    ("Countdown", "`perennial countdown`"),
    ("Messages", "`perennial messages`"),
    ("Publish", "`perennial publish`"),
];

/// Marks that may surround a word. A slash or a dot makes it a part of something else: `logs/on_gap`, `on_gap.log`.
const MARKS: [char; 8] = ['`', '"', '(', ')', ',', ';', ':', '.'];

/// A text of the server for a person at the command line.
pub fn for_commands(text: &str) -> String {
    let mut is_within = false;
    let mut out = String::new();
    for piece in text.split_inclusive(char::is_whitespace) {
        out.push_str(&named_here(piece, is_within));
        is_within = !piece.trim_end().ends_with(['.', ':', ';']);
    }
    out
}

fn named_here(piece: &str, is_within: bool) -> String {
    let is_around = |char: char| char.is_whitespace() || MARKS.contains(&char);
    let word = piece.trim_matches(is_around);
    let mut names = NAMES.iter().chain(WORDS.iter().filter(|_| is_within));
    let Some((_, here)) = names.find(|(name, _)| *name == word) else { return piece.to_owned() };
    let (before, after) = piece.split_once(word).unwrap_or((piece, ""));
    // A call may have backticks already.
    let is_quoted = before.ends_with('`') && after.starts_with('`');
    format!("{before}{}{after}", if is_quoted { here.trim_matches('`') } else { here })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]

    use clap::CommandFactory;
    use perennial::proto::FILE_DESCRIPTOR_SET;
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::arguments::Arguments;

    #[test]
    fn calls_and_fields_have_their_names_here() {
        for (text, expected) in [
            ("no file logs/x: ListFiles lists them", "no file logs/x: `perennial files` lists them"),
            ("see `ListTopics`.", "see `perennial topics`."),
            ("set `on_gap` to ON_GAP_SKIP", "set `--on-gap` to skip"),
            ("max_batch is 0: 1 or more", "--max-batch is 0: 1 or more"),
            (
                "it came in a response of Messages, unchanged",
                "it came in a response of `perennial messages`, unchanged",
            ),
            ("Messages are missing", "Messages are missing"),
            ("GetCountdown", "`perennial countdown get`"),
            // A path, a topic and a word that only contains a name.
            ("no file logs/on_gap", "no file logs/on_gap"),
            ("the topic on_gap.x", "the topic on_gap.x"),
            ("ListFilesResponse", "ListFilesResponse"),
            ("the countdown is over\n", "the countdown is over\n"),
            ("", ""),
        ] {
            assert_eq!(for_commands(text), expected);
        }
    }

    #[test]
    fn every_call_of_the_contract_has_a_command() {
        let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap().file;
        let methods = files.iter().flat_map(|file| &file.service).flat_map(|service| &service.method);
        for method in methods.map(prost_types::MethodDescriptorProto::name) {
            assert!(for_commands(&format!("see {method}")).contains("perennial "), "{method}");
        }
    }

    #[test]
    fn every_command_and_option_exists() {
        let mut root = Arguments::command();
        root.build();
        let mut options = Vec::new();
        let mut open = vec![&root];
        while let Some(command) = open.pop() {
            options.extend(command.get_arguments().filter_map(clap::Arg::get_long));
            open.extend(command.get_subcommands());
        }
        for (_, here) in NAMES {
            let words = here.trim_matches('`').split(' ').skip_while(|word| *word == "perennial");
            let mut command = &root;
            for word in words.filter(|word| !matches!(*word, "fail" | "skip" | "split" | "truncate")) {
                match word.strip_prefix("--") {
                    Some(option) => assert!(options.contains(&option), "{here}"),
                    None => command = command.find_subcommand(word).unwrap(),
                }
            }
        }
    }
}
