//! `perennial`: arguments in, exit code out.

use std::{io, process::ExitCode, sync::Arc};

use clap::Parser;
use futures::{FutureExt, Stream, StreamExt};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use perennial::{
    client::{self, Client, Notice},
    proto::{CountdownResponse, MessagesResponse, ReadLinesResponse, publish_result},
};
use tokio::{io::AsyncBufReadExt, sync::Notify};

mod args;
mod output;

use args::{Arguments, Command, Publish};
use output::{Output, note};

/// Something that is neither the server's nor the user's fault.
const FAILURE: u8 = 1;

/// Added to the gRPC code.
const STATUS: i32 = 64;

/// As a shell has it for SIGINT.
const INTERRUPTED: u8 = 130;

/// Why a command did not come to its end.
#[derive(Debug)]
enum Failure {
    Client(client::Error),
    /// A message of a flow, told by the server.
    Refused {
        code: i32,
        text: String,
    },
    Output(io::Error),
    Interrupted,
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        Self::Client(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return exit(&Failure::Output(error)),
    };
    let result = runtime.block_on(run(arguments));
    // A read of stdin may still be blocked.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => exit(&failure),
    }
}

fn exit(failure: &Failure) -> ExitCode {
    match failure {
        // Who reads the pipe has what it wanted.
        Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Failure::Output(error) => {
            anstream::eprintln!("perennial: {error}");
            FAILURE.into()
        }
        Failure::Client(error) => {
            anstream::eprintln!("perennial: {}", output::harmless(&error.to_string()));
            status(i32::from(error.code()))
        }
        Failure::Refused { code, text } => {
            anstream::eprintln!("perennial: {}", output::harmless(text));
            status(*code)
        }
        Failure::Interrupted => INTERRUPTED.into(),
    }
}

fn status(code: i32) -> ExitCode {
    u8::try_from(STATUS + code).unwrap_or(FAILURE).into()
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { server, output: format, command } = arguments;
    let client = Client::connect(&server)?.with_observer(tell);
    let mut output = Output::new(format);
    let interrupted = interruption();
    let resume = Resume::new(&server, format);
    match command {
        Command::Countdown(countdown) => {
            let resume = resume.of(countdown.words(), &countdown.stream);
            copy(client.countdown(countdown.request()), &mut output, resume, &interrupted, None).await
        }
        Command::Lines(lines) => {
            let resume = resume.of(lines.words(), &lines.stream);
            let progress = progress(lines.follow);
            copy(client.lines(lines.request()), &mut output, resume, &interrupted, progress).await
        }
        Command::Messages(messages) => {
            let resume = resume.of(messages.words(), &messages.stream);
            copy(client.messages(messages.request()), &mut output, resume, &interrupted, None).await
        }
        Command::Publish(publish) => {
            until_interrupted(&interrupted, self::publish(&client, &publish, &mut output)).await
        }
        command => until_interrupted(&interrupted, list(&client, command, &mut output)).await,
    }
}

/// What is answered at once.
async fn list(client: &Client, command: Command, output: &mut Output) -> Result<(), Failure> {
    match command {
        Command::Files { root } => {
            for file in client.list_files(root.as_deref().unwrap_or_default()).await? {
                output.file(&file)?;
            }
        }
        Command::Topics { pattern } => {
            for topic in client.list_topics(pattern.as_deref().unwrap_or_default()).await? {
                output.topic(&topic)?;
            }
        }
        Command::Health { service } => {
            let status = client.health(service.as_deref().unwrap_or_default()).await?;
            output.word("status", status.as_str_name())?;
        }
        Command::Countdown(_) | Command::Lines(_) | Command::Messages(_) | Command::Publish(_) => {}
    }
    Ok(output.flush()?)
}

async fn publish(client: &Client, publish: &Publish, output: &mut Output) -> Result<(), Failure> {
    if !publish.stdin {
        let published = client.publish(publish.request(None)).await?;
        output.published(&published)?;
        return Ok(output.flush()?);
    }
    let template = publish.clone();
    let lines = tokio::io::BufReader::new(tokio::io::stdin()).split(b'\n');
    let messages = futures::stream::unfold(lines, |mut lines| async {
        match lines.next_segment().await {
            Ok(Some(line)) => Some((line, lines)),
            Ok(None) => None,
            Err(error) => {
                anstream::eprintln!("perennial: stdin: {error}");
                None
            }
        }
    });
    let messages = messages.map(move |mut line| {
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        template.request(Some(line))
    });
    let mut results = Box::pin(client.publish_stream(messages));
    let (mut count, mut refused) = (0_u64, None);
    while let Some(result) = results.next().await {
        match result?.result {
            Some(publish_result::Result::Error(error)) => {
                anstream::eprintln!(
                    "perennial: a message was not published: {}",
                    output::harmless(&error.message)
                );
                refused = Some(Failure::Refused {
                    code: error.code,
                    text: "not all messages were published".into(),
                });
            }
            _ => count += 1,
        }
    }
    anstream::eprintln!("{count} published");
    refused.map_or(Ok(()), Err)
}

/// A response that can be printed.
trait Print {
    fn print(&self, output: &mut Output) -> io::Result<()>;
    fn cursor(&self) -> &str;
    fn items(&self) -> usize;
    /// How far, of how much.
    fn progress(&self) -> Option<(u64, u64)> {
        None
    }
}

impl Print for CountdownResponse {
    fn print(&self, output: &mut Output) -> io::Result<()> {
        output.ticks(self)
    }

    fn cursor(&self) -> &str {
        &self.cursor
    }

    fn items(&self) -> usize {
        self.ticks.len()
    }
}

impl Print for ReadLinesResponse {
    fn print(&self, output: &mut Output) -> io::Result<()> {
        self.events.iter().try_for_each(|event| output.line_event(event))?;
        self.lines.iter().try_for_each(|line| output.line(line))
    }

    fn cursor(&self) -> &str {
        &self.cursor
    }

    fn items(&self) -> usize {
        self.lines.len()
    }

    fn progress(&self) -> Option<(u64, u64)> {
        Some((u64::try_from(self.next_offset?).ok()?, u64::try_from(self.size?).ok()?))
    }
}

impl Print for MessagesResponse {
    fn print(&self, output: &mut Output) -> io::Result<()> {
        self.events.iter().try_for_each(|event| output.message_event(event))?;
        self.messages.iter().try_for_each(|message| output.message(message))
    }

    fn cursor(&self) -> &str {
        &self.cursor
    }

    fn items(&self) -> usize {
        self.messages.len()
    }
}

/// Prints a stream to its end, or to the end of the batch in hand when it is interrupted.
async fn copy<R: Print>(
    stream: impl Stream<Item = Result<R, client::Error>>,
    output: &mut Output,
    mut resume: Resume,
    interrupted: &Notify,
    progress: Option<ProgressBar>,
) -> Result<(), Failure> {
    let mut stream = Box::pin(stream);
    loop {
        let next = if let Some(next) = stream.next().now_or_never() {
            Some(next).filter(|_| interrupted.notified().now_or_never().is_none())
        } else {
            // Nothing more at the moment: what there is must not wait.
            output.flush()?;
            tokio::select! {
                next = stream.next() => Some(next),
                () = interrupted.notified() => None,
            }
        };
        let Some(next) = next else {
            output.flush()?;
            resume.print();
            return Err(Failure::Interrupted);
        };
        match next {
            None => break,
            Some(Ok(response)) => {
                response.print(output)?;
                resume.advance(response.cursor(), response.items());
                if let (Some(bar), Some((done, size))) = (&progress, response.progress()) {
                    bar.set_length(size);
                    bar.set_position(done);
                }
            }
            Some(Err(error)) => {
                output.flush()?;
                resume.print();
                return Err(error.into());
            }
        }
    }
    if let Some(bar) = progress {
        bar.finish_and_clear();
    }
    Ok(output.flush()?)
}

/// How far a long read is, on a terminal that does not show the read itself.
fn progress(follows: bool) -> Option<ProgressBar> {
    use io::IsTerminal;
    if follows || io::stdout().is_terminal() || !io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style =
        ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}").ok()?;
    Some(bar.with_style(style))
}

/// The command that resumes.
struct Resume {
    words: Vec<String>,
    cursor: Option<String>,
    limit: Option<i64>,
}

impl Resume {
    fn new(server: &str, format: args::Format) -> Self {
        let mut words = vec!["perennial".to_string()];
        let is_given = std::env::args().any(|word| word == "--server" || word.starts_with("--server="));
        words.extend(is_given.then(|| format!("--server={server}")));
        let format = match format {
            args::Format::Text => None,
            args::Format::Json => Some("-ojson"),
            args::Format::Ndjson => Some("-ondjson"),
            args::Format::Raw => Some("-oraw"),
        };
        words.extend(format.map(str::to_owned));
        Self { words, cursor: None, limit: None }
    }

    fn of(mut self, words: Vec<String>, stream: &args::Stream) -> Self {
        self.words.extend(words);
        self.words.extend(stream.max_batch.map(|max_batch| format!("--max-batch={max_batch}")));
        self.words.extend(stream.heartbeat.map(|heartbeat| format!("--heartbeat={heartbeat:#}")));
        self.limit = stream.limit;
        self
    }

    fn advance(&mut self, cursor: &str, items: usize) {
        self.cursor = Some(cursor.to_owned());
        let items = i64::try_from(items).unwrap_or(i64::MAX);
        self.limit = self.limit.map(|limit| limit.saturating_sub(items));
    }

    /// Nothing, if nothing came that could be resumed, or nothing is left.
    fn print(&self) {
        let Some(cursor) = &self.cursor else { return };
        if self.limit == Some(0) {
            return;
        }
        let limit = self.limit.map(|limit| format!("--limit={limit}"));
        let words = self.words.iter().cloned().chain(limit).chain([format!("--cursor={cursor}")]);
        let words = words.map(|word| quoted(&word)).collect::<Vec<_>>();
        anstream::eprintln!("to resume: {}", words.join(" "));
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,+@".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Is notified at the first Ctrl-C; a second one ends the process at once.
fn interruption() -> Arc<Notify> {
    let first = Arc::new(Notify::new());
    let notify = first.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            notify.notify_one();
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(INTERRUPTED.into());
            }
        }
    });
    first
}

async fn until_interrupted(
    interrupted: &Notify,
    work: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    tokio::select! {
        result = work => result,
        () = interrupted.notified() => Err(Failure::Interrupted),
    }
}

/// Says once that a stream was lost, and once that it goes on.
fn tell(notice: &Notice<'_>) {
    use std::sync::atomic::{AtomicBool, Ordering};
    static IS_LOST: AtomicBool = AtomicBool::new(false);
    match notice {
        Notice::Interrupted { error, .. } if !IS_LOST.swap(true, Ordering::Relaxed) => {
            note(&format!("interrupted ({error}): resuming"));
        }
        Notice::Interrupted { .. } => {}
        Notice::Resumed => {
            IS_LOST.store(false, Ordering::Relaxed);
            note("resumed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_word_is_quoted_so_that_a_shell_takes_it_as_it_is() {
        assert_eq!(quoted("demo/app.log"), "demo/app.log");
        assert_eq!(quoted("demo.>"), "'demo.>'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
