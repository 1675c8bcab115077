//! A countdown on a terminal: a display that runs on between the numbers, and leaves a line behind.

use std::{
    io::{self, Write},
    time::Duration,
};

use futures::StreamExt;
use jiff::{Timestamp, Zoned};
use perennial::{
    client::{Client, Error, Notice},
    proto::CountdownResponse,
};
use rustix::termios::tcgetwinsize;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::Resume;
use crate::{Failure, INTERRUPTED, output};
use frame::{Size, frame};
use screen::Screen;
use view::View;

mod digits;
mod frame;
mod screen;
mod view;

/// Two frames are so far apart at least: as tenths of a second are, less what a timer is late.
const MIN_INTERVAL: Duration = Duration::from_millis(90);
/// Of a terminal that does not tell.
const USUAL_SIZE: Size = Size { columns: 80, rows: 24 };

/// Shows a countdown to its end, an error, or Ctrl-C.
pub async fn run(client: &Client, mut resume: Resume, stop: CancellationToken) -> Result<u8, Failure> {
    let (connection, lost) = watch::channel(None);
    let client = client.clone().with_observer(move |notice| {
        connection.send_replace(match notice {
            Notice::Interrupted { error, .. } => Some(format!("connection lost ({error}): resuming")),
            Notice::Resumed => None,
        });
    });
    let mut display = Display::new(View::new(&resume.it, Timestamp::now()));
    let why = display.watch(&client, &mut resume, lost, &stop).await;
    display.close()?;
    match why? {
        Why::Ended => Ok(0),
        Why::Interrupted => {
            resume.tell();
            Ok(INTERRUPTED)
        }
        Why::Failed(error) => Err(resume.failed(&error)),
    }
}

/// Why it is not shown any longer.
enum Why {
    Ended,
    Interrupted,
    Failed(Error),
}

struct Display {
    view: View,
    screen: Screen<io::Stdout>,
    has_colour: bool,
    /// When the last frame was drawn.
    drawn: Option<Instant>,
    /// Something happened since.
    has_news: bool,
}

impl Display {
    fn new(view: View) -> Self {
        let has_colour = output::has_colour();
        Self { view, screen: Screen::new(io::stdout()), has_colour, drawn: None, has_news: false }
    }

    async fn watch(
        &mut self,
        client: &Client,
        resume: &mut Resume,
        mut lost: watch::Receiver<Option<String>>,
        stop: &CancellationToken,
    ) -> Result<Why, Failure> {
        let mut resized = signal(SignalKind::window_change())?;
        let mut stream = std::pin::pin!(client.countdown(resume.it.request()));
        loop {
            let due = self.due();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(Why::Interrupted),
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.draw()?,
                _ = resized.recv() => self.draw()?,
                Ok(()) = lost.changed() => {
                    self.view.connection(lost.borrow_and_update().clone());
                    self.has_news = true;
                }
                next = stream.next() => match next {
                    Some(Ok(response)) => self.took(resume, &response),
                    Some(Err(error)) => return Ok(Why::Failed(error)),
                    None => {
                        self.view.ended(Timestamp::now());
                        return Ok(Why::Ended);
                    }
                },
            }
        }
    }

    fn took(&mut self, resume: &mut Resume, response: &CountdownResponse) {
        self.view.took(response, &Zoned::now());
        resume.took(response);
        self.has_news = true;
    }

    /// When the next frame is to be drawn, if it is known.
    fn due(&self) -> Option<Instant> {
        let now = Instant::now();
        let change = self.view.next_change(Timestamp::now()).map(|until| now + until);
        let due = if self.has_news { now } else { change? };
        Some(self.drawn.map_or(due, |drawn| due.max(drawn + MIN_INTERVAL)))
    }

    fn draw(&mut self) -> io::Result<()> {
        let (size, clock) = (size(), Zoned::now());
        // What clears behind a line that is full clears its last letter too.
        let room = Size { columns: size.columns.saturating_sub(1), ..size };
        let lines = frame(&self.view.shown(clock.timestamp()), room, self.has_colour, &clock);
        self.drawn = Some(Instant::now());
        self.has_news = false;
        self.screen.draw(&lines, size.columns)
    }

    /// Leaves a line instead of the display.
    fn close(&mut self) -> io::Result<()> {
        self.screen.clear(size().columns)?;
        match self.view.last_line(&Zoned::now()) {
            Some(line) => writeln!(io::stdout(), "{}", output::harmless(&line)),
            None => Ok(()),
        }
    }
}

fn size() -> Size {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            Size { columns: size.ws_col.into(), rows: size.ws_row.into() }
        }
        _ => USUAL_SIZE,
    }
}
