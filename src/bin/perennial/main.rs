//! `perennial`, the command line client: it reads streams, publishes messages and lists what a server has.
//!
//! Data goes to stdout, everything else to stderr. Arguments become requests in [`arguments`]; no other module sees a
//! flag. A stream that ends early prints the command that resumes it.

use std::{ffi::OsString, process::ExitCode, time::Duration};

use clap::{CommandFactory, FromArgMatches, error::ErrorKind, parser::ValueSource};
use perennial::{
    client::{Client, Code, Error},
    proto::ErrorReason,
};

use crate::{
    arguments::{Arguments, Format, REACHES, Verb},
    output::{Connection, Problem},
};

mod advice;
mod arguments;
mod bench;
mod countdown;
mod escape;
mod interrupt;
mod json;
mod lines;
mod login;
mod messages;
mod output;
mod payload;
mod publish;
mod purge;
mod quote;
mod rate;
mod session;
mod table;
mod text;
mod time;
mod usage;

/// How a run failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Call(#[from] Error),
    #[error("the output cannot be written: {0}")]
    Output(#[from] std::io::Error),
    #[error(transparent)]
    Cursors(#[from] lines::cursor_file::Error),
    /// It was reported already; this is the exit code.
    #[error("")]
    Reported(u8),
}

/// The exit code after Ctrl-C or SIGTERM, as in shells.
const INTERRUPTED: u8 = 130;
/// The exit code after wrong usage, as in clap.
const USAGE: u8 = 2;
/// The exit code after a failed call is this number plus the gRPC code.
const GRPC: u8 = 64;

fn main() -> ExitCode {
    let words = std::env::args_os().collect::<Vec<_>>();
    let format = usage::format(&words);
    output::report_as(format);
    let (arguments, given) = match parse(&words) {
        Ok(parsed) => parsed,
        Err(error) => return refused(&error, format),
    };
    arguments.notes().into_iter().for_each(output::note);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&Failure::Output(error)),
    };
    let result = runtime.block_on(run(arguments, &given));
    // A thread may still be waiting for stdin.
    runtime.shutdown_background();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failed(&failure),
    }
}

/// Reads the arguments, and which of [`REACHES`] are on the command line.
fn parse(words: &[OsString]) -> Result<(Arguments, Vec<&'static str>), clap::Error> {
    let matches =
        Arguments::command().try_get_matches_from(words).map_err(arguments::guesses::without_value)?;
    let arguments =
        Arguments::from_arg_matches(&matches).map_err(|error| error.format(&mut Arguments::command()))?;
    arguments.check().map_err(|text| Arguments::command().error(ErrorKind::ArgumentConflict, text))?;
    let is_given = |name: &&str| matches.value_source(name) == Some(ValueSource::CommandLine);
    Ok((arguments, REACHES.into_iter().filter(is_given).collect()))
}

/// Prints help, the version, or why the arguments are refused.
fn refused(error: &clap::Error, format: Format) -> ExitCode {
    if error.use_stderr() && matches!(format, Format::Json | Format::Ndjson) {
        output::report(&usage::problem(error));
        return ExitCode::from(USAGE);
    }
    error.exit()
}

async fn run(arguments: Arguments, given: &[&str]) -> Result<u8, Failure> {
    let (profile, credentials) = match arguments.reach() {
        Ok(reach) => reach,
        Err(text) => {
            output::report(&Problem::usage(text, None));
            return Err(Failure::Reported(USAGE));
        }
    };
    if let Verb::Login = arguments.verb {
        let (stop, name) = (interrupt::token()?, arguments.profile.as_deref().unwrap_or(login::DEFAULT_NAME));
        return tokio::select! {
            biased;
            () = stop.cancelled() => Ok(INTERRUPTED),
            done = login::run(name, profile, credentials) => done,
        };
    }
    let client = Client::with_credentials(&profile.server, credentials)?;
    // A person who waits at a terminal wants to know at once that no server answers.
    let client = client.with_connect_timeout(Duration::ZERO).with_observer(Connection::default().observer(0));
    let stop = interrupt::token()?;
    let format = arguments.output;
    let prefix = arguments.prefix(|name| given.contains(&name));
    match arguments.verb {
        Verb::Countdown(it) => countdown::run(&client, it, prefix, format, stop).await,
        Verb::Lines(it) => lines::read(&client, it, prefix, format, stop).await,
        Verb::Messages(it) => messages::read(&client, it, prefix, format, stop).await,
        Verb::Publish(it) => publish::run(&client, it, format, stop).await,
        Verb::Bench(it) => bench::run(&client, it, format, stop).await,
        verb => tokio::select! {
            biased;
            () = stop.cancelled() => Ok(INTERRUPTED),
            done = call(&client, verb, format) => done,
        },
    }
}

/// Commands with one call, which cannot be resumed.
async fn call(client: &Client, verb: Verb, format: Format) -> Result<u8, Failure> {
    match verb {
        Verb::Files { path } => table::files(&client.list_files(&path.unwrap_or_default()).await?, format),
        Verb::Topics { pattern } => {
            table::topics(&client.list_topics(&pattern.unwrap_or_default()).await?, format)
        }
        Verb::Purge(it) => purge::run(client, it, format).await,
        Verb::Consumers => table::consumers(&client.list_consumers().await?, format),
        Verb::SetConsumer(it) => table::consumers(&[client.set_consumer(it.request()).await?], format),
        Verb::DeleteConsumer { name } => {
            client.delete_consumer(&name).await?;
            Ok(0)
        }
        Verb::Health { service } => {
            table::health(client.health(&service.unwrap_or_default()).await?.as_str_name(), format)
        }
        Verb::Generate { directory } => {
            let written = perennial::package::write(&Arguments::command(), &directory);
            written.map(|()| 0).map_err(Failure::Output)
        }
        Verb::Login
        | Verb::Countdown(_)
        | Verb::Lines(_)
        | Verb::Messages(_)
        | Verb::Publish(_)
        | Verb::Bench(_) => Ok(0),
    }
}

/// Reports why a run failed, and returns its exit code.
fn failed(failure: &Failure) -> ExitCode {
    match failure {
        Failure::Reported(code) => ExitCode::from(*code),
        // The reader of a pipe has read enough.
        Failure::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Failure::Output(_) | Failure::Cursors(_) => {
            output::error(&failure.to_string());
            ExitCode::FAILURE
        }
        Failure::Call(error) => {
            output::report(&Problem::call(error));
            ExitCode::from(code_of(error))
        }
    }
}

fn code_of(error: &Error) -> u8 {
    if matches!(error, Error::Url { .. } | Error::Credentials(_)) {
        return USAGE;
    }
    // The codes are 0 to 16.
    GRPC + u8::try_from(i32::from(error.code())).unwrap_or_default()
}

/// Whether the command that resumes can help after an error: not if the server would refuse the same request again.
fn can_resume(error: &Error) -> bool {
    let is_refused = matches!(
        error.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::PermissionDenied
            | Code::Unimplemented
    );
    // An expired cursor is accepted with --on-gap skip.
    error.is_retryable() || !is_refused || error.has_reason(ErrorReason::CursorExpired)
}
