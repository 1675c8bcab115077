//! `perenniald`: arguments in, exit code out. Without a command it serves; `log` inspects and copies the message log.

use std::{process::ExitCode, sync::Arc};

use perennial::{
    blocking,
    server::{self, Config, config},
};
use tokio::sync::{Notify, oneshot};
use tracing_subscriber::EnvFilter;

mod log;
mod signals;
mod token;

/// The exit code of a failure.
const FAILURE: u8 = 1;

/// The exit code of a wrong argument, variable or configuration file.
const USAGE: u8 = 2;

#[derive(clap::Subcommand)]
enum Command {
    /// Verify, measure, back up, restore, export or import the log of messages in the data directory
    #[command(subcommand, after_help = log::HELP)]
    Log(log::Command),
    /// Make, list or revoke the tokens of clients, in the file of --tokens
    #[command(subcommand, after_help = token::HELP)]
    Token(token::Command),
}

fn main() -> ExitCode {
    let config = match Config::read_command(std::env::args_os()) {
        Ok((config, Some(Command::Log(command)))) => return log::run(&config, command),
        Ok((config, Some(Command::Token(command)))) => return token::run(&config, command),
        Ok((config, None)) => config,
        Err(config::Error::Arguments(error)) => {
            // clap prints help and version to stdout; they are not failures.
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
        Err(error) => return fail(&error, USAGE),
    };
    let filter = match EnvFilter::builder().parse(&config.log) {
        Ok(filter) => filter,
        Err(error) => {
            anstream::eprintln!(
                "perenniald: --log is {:?}: {error}: write info, or perennial=debug",
                config.log
            );
            return USAGE.into();
        }
    };
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let colour = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false)
        .init();
    let reload = Arc::new(Notify::new());
    let handled = signals::handle(config.connections.drain, reload.clone());
    let started = handled.and_then(|stop| Ok((stop, blocking::runtime()?)));
    let (stop, runtime) = match started {
        Ok(started) => started,
        Err(error) => return fail(&error, FAILURE),
    };
    let result = runtime.block_on(run(config, reload, stop));
    // To drop the runtime would be to wait for its threads, also for one that a file system does not let go.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, FAILURE),
    }
}

async fn run(config: Config, reload: Arc<Notify>, stop: oneshot::Receiver<()>) -> Result<(), server::Error> {
    let listener = server::bind(&config.listen, config.socket_mode).await?;
    let stop = async {
        // The sender lives until the process ends.
        let _ = stop.await;
    };
    server::run(listener, config, reload, stop).await
}

fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    anstream::eprintln!("perenniald: {error}");
    code.into()
}
