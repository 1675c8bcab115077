//! `perenniald log`: prints the findings of the tools on stdout, and messages on stderr.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Subcommand, ValueEnum};
use perennial::{
    messages::{
        tools::{self, Archive, Error, Export, Finding, Selection, Stats, Verified},
        topic::Pattern,
    },
    server::{Config, data},
};

use self::progress::Progress;
use crate::{FAILURE, USAGE, fail};

mod backup;
mod progress;

/// The meaning of the exit codes.
pub const HELP: &str = "Exit codes: 0 sound, or done; 1 damage was found, or an error occurred; 2 wrong usage.\n\
    Data goes to stdout, messages to stderr. All commands except import and restore only read the log, also while a server runs.";

/// The tools.
#[derive(Subcommand)]
pub enum Command {
    /// Read every byte and report damage; nothing is written
    #[command(after_help = HELP)]
    Verify,
    /// Print the size, the range and the largest topics of the log
    #[command(after_help = HELP)]
    Stats {
        /// The format of the output
        #[arg(short, long, value_name = "FORMAT", default_value = "text")]
        output: Format,
        /// List up to this many topics, the largest first
        #[arg(long, value_name = "N", default_value_t = 10)]
        topics: usize,
    },
    /// Print the messages, one JSON object a line, in the form of `perennial messages -o ndjson`
    #[command(after_help = HELP)]
    Export {
        /// Only topics that match this pattern; can be repeated
        #[arg(long = "topic", value_name = "PATTERN", value_parser = pattern)]
        topics: Vec<Pattern>,
        /// From this sequence on
        #[arg(long, value_name = "N")]
        from_sequence: Option<u64>,
        /// Up to this sequence
        #[arg(long, value_name = "N")]
        until_sequence: Option<u64>,
        /// Also the server's own topics, which start with `$`: shared countdowns, cursors of consumers
        #[arg(long)]
        system: bool,
        /// Write to this file instead of stdout
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Make a new log from an export, with the same sequences, times, ids and expiry
    ///
    /// The data directory must hold no messages, and no server may use it. The new log has an identity of its own:
    /// cursors of the old log are refused, and commits of consumers are left out. An import that fails imports nothing.
    #[command(after_help = HELP)]
    Import {
        /// The output of `export`; `-` is stdin
        #[arg(value_name = "FILE|-")]
        file: PathBuf,
    },
    /// Copy the log into a directory, or bring the copy there up to date; also while a server runs
    ///
    /// Only segments that have changed since the backup before are copied. The directory holds one backup: the one
    /// before stays until the new one is whole and on disk, and an interrupted one is continued by the next run. If the
    /// log has lost messages that the backup before has, that backup is kept, and the exit code is 1. Each backup needs
    /// room for what has changed.
    #[command(after_help = HELP)]
    Backup {
        /// The directory of the backup: new, empty, or with an earlier backup of this log
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// Replace the backup before, even if the log has lost messages that it has
        #[arg(long)]
        replace: bool,
        /// Then read all of the backup, and report damage
        #[arg(long)]
        verify: bool,
    },
    /// Make a log of a backup, in the data directory
    ///
    /// The data directory must hold no log, and no server may use it. Every file is compared with its checksum. Cursors
    /// up to the backup continue to work, and later ones are refused. A restore that fails restores nothing.
    #[command(after_help = HELP)]
    Restore {
        /// The directory that was given to `backup`
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

/// The format of an output.
#[derive(Clone, Copy, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One object.
    Json,
}

fn pattern(text: &str) -> Result<Pattern, String> {
    Pattern::parse(text).map_err(|error| format!("the pattern {error}"))
}

/// Runs a tool. Returns the exit code.
pub fn run(config: &Config, command: Command) -> ExitCode {
    let directory = config.data.join("messages");
    let result = match command {
        Command::Verify => verify(&directory),
        Command::Stats { output, topics } => stats(config, &directory, output, topics),
        Command::Export { topics, from_sequence, until_sequence, system, output } => {
            if let Some(own) = topics.iter().find(|topic| !system && topic.as_str().starts_with('$')) {
                return usage(&format!("{} is the server's own: export it with --system", own.as_str()));
            }
            let selection = Selection {
                patterns: topics,
                from: from_sequence,
                until: until_sequence,
                has_system: system,
            };
            export(config, &directory, selection, output.as_deref())
        }
        Command::Import { file } => return import(config, &file),
        Command::Backup { directory: to, replace, verify } => {
            backup::backup(&directory, &to, replace, verify)
        }
        Command::Restore { directory: from } => return backup::restore(config, &from),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => FAILURE.into(),
        // The reader of the pipe has closed it.
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(&error, FAILURE),
    }
}

fn usage(text: &str) -> ExitCode {
    anstream::eprintln!("perenniald: {text}");
    USAGE.into()
}

/// Prints data on stdout.
fn print(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Error::Output)
}

fn verify(directory: &Path) -> Result<bool, Error> {
    let mut printed = Ok(());
    let progress = Progress::new();
    let report = |finding: &Finding| {
        if printed.is_ok() {
            let kind = if finding.fault.is_damage() { "damage" } else { "note" };
            printed = progress.suspend(|| print(&format!("{kind}: {finding}\n")));
        }
    };
    let verified = tools::verify(directory, report, |done, all| progress.record(done, all));
    progress.hide();
    let verified = verified?;
    printed?;
    let Verified { segments, messages, bytes, damage } = verified;
    let outcome = match damage {
        0 => "sound".into(),
        1 => "damaged in 1 place".into(),
        damage => format!("damaged in {damage} places"),
    };
    print(&format!("{outcome}: {messages} messages in {segments} segments, {bytes} bytes read\n"))?;
    Ok(damage == 0)
}

/// Reports damage on stderr, apart from the data.
fn warn(finding: &Finding) {
    anstream::eprintln!("perenniald: {finding}");
}

fn open(config: &Config, directory: &Path) -> Result<(Archive, bool), Error> {
    let archive = Archive::open(directory, &config.messages.retention)?;
    let mut is_sound = true;
    for finding in archive.faults() {
        is_sound = false;
        warn(finding);
    }
    Ok((archive, is_sound))
}

fn stats(config: &Config, directory: &Path, format: Format, topics: usize) -> Result<bool, Error> {
    let (archive, is_sound) = open(config, directory)?;
    let stats = archive.stats(topics)?;
    let text = match format {
        Format::Json => {
            let json = serde_json::to_string_pretty(&stats);
            json.map_err(|error| Error::Output(error.into()))? + "\n"
        }
        Format::Text => text(&stats),
    };
    print(&text)?;
    Ok(is_sound)
}

fn text(stats: &Stats) -> String {
    let known = |text: Option<String>| text.unwrap_or_else(|| "?".into());
    let end = |end: &tools::End| {
        format!("sequence {} at {}", end.sequence, known(end.time.map(|time| time.to_string())))
    };
    let mut lines = vec![
        ("directory", stats.directory.clone()),
        ("log", known(stats.log.clone())),
        ("created", known(stats.create_time.map(|time| time.to_string()))),
        ("format", format!("version {}", stats.format_version)),
        ("segments", format!("{}, of which {} were compacted", stats.segments, stats.compacted_segments)),
        ("topics", stats.topics.to_string()),
        ("messages", format!("{}, {} bytes", stats.messages, stats.bytes)),
        ("server's own", format!("{} messages, {} bytes", stats.system_messages, stats.system_bytes)),
        ("on disk", format!("{} bytes", stats.disk_bytes)),
        ("first", stats.first.as_ref().map_or_else(|| "none".into(), end)),
        ("last", stats.last.as_ref().map_or_else(|| "none".into(), end)),
        ("head", format!("sequence {}", stats.head_sequence)),
        ("message ids", stats.message_ids.to_string()),
        ("torn tails", stats.torn_files.to_string()),
    ];
    for topic in &stats.largest_topics {
        let tools::TopicStats { name, messages, bytes, first_sequence, last_sequence } = topic;
        let text = format!("{name}: {messages} messages, {bytes} bytes, {first_sequence} to {last_sequence}");
        lines.push(("topic", text));
    }
    for consumer in &stats.consumers {
        let number = |number: Option<u64>| known(number.map(|number| number.to_string()));
        let time = known(consumer.commit_time.map(|time| time.to_string()));
        let (sequence, lag) = (number(consumer.sequence), number(consumer.lag));
        lines.push(("consumer", format!("{}: at {sequence}, lag {lag}, {time}", consumer.name)));
    }
    lines.iter().map(|(name, value)| format!("{name:<13} {value}\n")).collect()
}

fn export(
    config: &Config,
    directory: &Path,
    selection: Selection,
    output: Option<&Path>,
) -> Result<bool, Error> {
    let (archive, mut is_sound) = open(config, directory)?;
    let export = Export::new(&archive, selection);
    let count = export.count()?;
    anstream::eprintln!("perenniald: exporting {count} messages");
    let mut report = |finding: &Finding| {
        is_sound &= !finding.fault.is_damage();
        warn(finding);
    };
    let written = match output {
        Some(path) => {
            let at = |source| Error::Io { path: path.into(), source };
            // Others cannot read the data directory either.
            let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
            let mut out = BufWriter::new(file.map_err(at)?);
            let written = export.write(&mut out, &mut report)?;
            out.into_inner().map_err(|error| at(error.into_error()))?.sync_all().map_err(at)?;
            written
        }
        None => export.write(&mut io::stdout().lock(), &mut report)?,
    };
    if written != count {
        anstream::eprintln!("perenniald: exported {written} messages");
    }
    Ok(is_sound)
}

fn import(config: &Config, file: &Path) -> ExitCode {
    let mut data = match data::DataDirectory::open(&config.data) {
        Ok(data) => data,
        Err(error) => return fail(&error, FAILURE),
    };
    if let Err(error) = data.sign_as("that imports a log") {
        return fail(&error, FAILURE);
    }
    let directory = data.log();
    let imported = if file == Path::new("-") {
        tools::import(&directory, io::stdin().lock(), &config.messages)
    } else {
        let opened = File::open(file).map_err(|source| Error::Io { path: file.into(), source });
        opened.and_then(|file| tools::import(&directory, BufReader::new(file), &config.messages))
    };
    let tools::Imported { messages, sequences, consumers, log } = match imported {
        Ok(imported) => imported,
        Err(error) => return fail(&error, FAILURE),
    };
    let range = sequences.map(|(first, last)| format!(", sequences {first} to {last}")).unwrap_or_default();
    anstream::eprintln!("perenniald: imported {messages} messages{range}");
    anstream::eprintln!("perenniald: this is a new log, {log}: cursors of the old one are refused");
    if consumers > 0 {
        anstream::eprintln!(
            "perenniald: {consumers} commits of consumers were left out: their cursors are of the old log"
        );
    }
    ExitCode::SUCCESS
}
