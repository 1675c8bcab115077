//! The command of Perennial: streams, publishes and lists, from a terminal or a script.
//!
//! Data goes to stdout, everything else to stderr. Arguments become requests in [`arguments`]; nothing below sees a
//! flag. A stream that is ended before its time says how it is continued.

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, parser::ValueSource};
use perennial::client::{Client, Error};

use crate::arguments::{Arguments, Format, Verb};

mod arguments;
mod bench;
mod countdown;
mod escape;
mod interrupt;
mod json;
mod lines;
mod messages;
mod output;
mod publish;
mod purge;
mod quote;
mod rate;
mod session;
mod table;
mod text;
mod time;

/// How a run failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Call(#[from] Error),
    #[error("the output cannot be written: {0}")]
    Output(#[from] std::io::Error),
    #[error(transparent)]
    Cursors(#[from] lines::cursor_file::Error),
    /// What there was to say was said.
    #[error("")]
    Told(u8),
}

/// The code of a run that was ended by Ctrl-C or SIGTERM, as shells have it.
const INTERRUPTED: u8 = 130;
const USAGE: u8 = 2;
/// The code of a gRPC error is this and its number.
const GRPC: u8 = 64;

fn main() -> ExitCode {
    let matches = Arguments::command().get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Err(text) = arguments.check() {
        Arguments::command().error(clap::error::ErrorKind::ArgumentConflict, text).exit();
    }
    arguments.notes().into_iter().for_each(output::note);
    let server_given = matches.value_source("server") == Some(ValueSource::CommandLine);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&Failure::Output(error)),
    };
    let result = runtime.block_on(run(arguments, server_given));
    // A thread may still wait for stdin.
    runtime.shutdown_background();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failed(&failure),
    }
}

async fn run(arguments: Arguments, server_given: bool) -> Result<u8, Failure> {
    let client = Client::connect(&arguments.server)?.with_observer(output::observer());
    let stop = interrupt::token()?;
    let format = arguments.output;
    let prefix = arguments.prefix(server_given);
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

/// What is not continued when it is ended before its time.
async fn call(client: &Client, verb: Verb, format: Format) -> Result<u8, Failure> {
    match verb {
        Verb::Files { path } => table::files(&client.list_files(&path.unwrap_or_default()).await?, format),
        Verb::Topics { pattern } => {
            table::topics(&client.list_topics(&pattern.unwrap_or_default()).await?, format)
        }
        Verb::Purge(it) => purge::run(client, it, format).await,
        Verb::Consumers => table::consumers(&client.list_consumers().await?, format),
        Verb::DeleteConsumer { name } => {
            client.delete_consumer(&name).await?;
            Ok(0)
        }
        Verb::Health { service } => {
            table::health(client.health(&service.unwrap_or_default()).await?.as_str_name(), format)
        }
        Verb::Countdown(_) | Verb::Lines(_) | Verb::Messages(_) | Verb::Publish(_) | Verb::Bench(_) => Ok(0),
    }
}

/// Says why, and gives the code.
fn failed(failure: &Failure) -> ExitCode {
    match failure {
        Failure::Told(code) => ExitCode::from(*code),
        // Whoever read has read enough.
        Failure::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Failure::Output(_) | Failure::Cursors(_) => {
            output::error(&failure.to_string());
            ExitCode::FAILURE
        }
        Failure::Call(error) => {
            output::call_failed(None, error);
            ExitCode::from(code_of(error))
        }
    }
}

fn code_of(error: &Error) -> u8 {
    if matches!(error, Error::Url { .. }) {
        return USAGE;
    }
    // The codes are 0 to 16.
    GRPC + u8::try_from(i32::from(error.code())).unwrap_or_default()
}
