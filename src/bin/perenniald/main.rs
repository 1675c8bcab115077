//! `perenniald`: arguments in, exit code out. Without a command it serves; `log` inspects and copies the message log.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use perennial::{
    blocking,
    server::{self, Config, Reload, config},
    supervised,
};
use tokio::sync::{Notify, oneshot};
use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};

mod filter;
mod json;
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
    /// Check the settings, or print each with its value and where that comes from
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Write completions of shells and manual pages into a directory
    #[command(hide = true)]
    Generate {
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

#[derive(clap::Subcommand)]
enum ConfigCommand {
    /// Check all settings and the files that they name, and exit with 0 if the server would serve with them
    ///
    /// Flags of the server come before `config`: perenniald --config FILE config check. It reads the files of TLS, the rules,
    /// the keys that they name, and the tokens as a start reads them, and opens the roots: run it as the account of the
    /// server. It reports each fault with its setting, and exits with 2. It changes nothing, takes no address, and does not
    /// open the data directory, so a server may run meanwhile.
    Check,
    /// Print every setting, its value, and where that comes from, as a file for --config
    Print,
}

fn main() -> ExitCode {
    let config = match Config::read_command(std::env::args_os()) {
        Ok((config, Some(Command::Log(command)))) => return log::run(&config, command),
        Ok((config, Some(Command::Token(command)))) => return token::run(&config, command),
        Ok((config, Some(Command::Config(command)))) => return show(&config, &command),
        Ok((_, Some(Command::Generate { directory }))) => {
            let written = perennial::package::write(&Config::command::<Command>(), &directory);
            return written.map_or_else(|error| fail(&error, FAILURE), |()| ExitCode::SUCCESS);
        }
        Ok((config, None)) => config,
        Err(config::Error::Arguments(error)) => {
            // clap prints help and version to stdout; they are not failures.
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
        Err(error) => return fail(&error, USAGE),
    };
    let filter = match filter::parse(&config.log) {
        Ok(filter) => filter,
        Err(error) => return fail(&error, USAGE),
    };
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let colour = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (filter, handle) = tracing_subscriber::reload::Layer::new(filter);
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    match config.log_format {
        config::LogFormat::Auto if !is_terminal => registry.with(log.event_format(json::Json)).init(),
        config::LogFormat::Json => registry.with(log.event_format(json::Json)).init(),
        config::LogFormat::Text | config::LogFormat::Auto => registry.with(log.with_ansi(colour)).init(),
    }
    supervised::report();
    for fault in config::misspelled_variables() {
        tracing::warn!("{fault}");
    }
    let set_log = move |text: &str| {
        let filter = filter::parse(text).map_err(|error| error.to_string())?;
        handle.reload(filter).map_err(|error| error.to_string())
    };
    let reload = Reload { asked: Arc::new(Notify::new()), set_log: Arc::new(set_log) };
    let handled = signals::handle(config.connections.drain, reload.asked.clone());
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

async fn run(config: Config, reload: Reload, stop: oneshot::Receiver<()>) -> Result<(), server::Error> {
    let mut listeners = server::inherited()?;
    if listeners.is_empty() {
        for listen in &config.listen {
            listeners.push(server::bind(listen, config.socket_mode).await?);
        }
    }
    let stop = async {
        // The sender lives until the process ends.
        let _ = stop.await;
    };
    server::run(listeners, config, reload, stop).await
}

/// Prints what `config` asks for.
fn show(config: &Config, command: &ConfigCommand) -> ExitCode {
    if let Err(error) = filter::parse(&config.log) {
        return fail(&error, USAGE);
    }
    let text = match command {
        ConfigCommand::Check => match server::faults(config) {
            faults if faults.is_empty() => "the settings are right\n".into(),
            faults => {
                for fault in faults {
                    anstream::eprintln!("perenniald: {fault}");
                }
                return USAGE.into();
            }
        },
        ConfigCommand::Print => {
            config.settings.iter().map(|setting| format!("{setting}\n")).collect::<String>()
        }
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => fail(&error, FAILURE),
        _ => ExitCode::SUCCESS,
    }
}

fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    anstream::eprintln!("perenniald: {error}");
    code.into()
}
