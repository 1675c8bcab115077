//! A countdown on a terminal: a display that keeps running between the numbers, and leaves one line at the end.

use std::{
    io::{self, Write},
    ops::ControlFlow,
    time::{Duration, Instant},
};

use jiff::{Timestamp, Zoned};
use perennial::{
    client::{Client, Error, Notice},
    proto::CountdownResponse,
};
use rustix::termios::tcgetwinsize;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use super::Resume;
use crate::{
    Failure, INTERRUPTED, output,
    session::{self, Session},
};
use frame::{Size, frame};
use screen::Screen;
use view::View;

mod digits;
mod frame;
mod screen;
mod view;

/// The shortest time between two frames: a tenth of a second, less the lateness of a timer.
const MIN_INTERVAL: Duration = Duration::from_millis(90);
/// The size of a terminal that does not report one.
const USUAL_SIZE: Size = Size { columns: 80, rows: 24 };

/// Displays a countdown to its end, an error, or Ctrl-C.
pub async fn run(client: &Client, resume: Resume, stop: CancellationToken) -> Result<u8, Failure> {
    let (connection, lost) = watch::channel(None);
    let client = client.clone().with_observer(move |notice| {
        connection.send_replace(match notice {
            Notice::Interrupted { error, .. } => Some(format!("connection lost ({error}): resuming")),
            Notice::Resumed => None,
        });
    });
    let responses = client.countdown(resume.it.request()).responses();
    let mut display = Display::new(resume, lost)?;
    session::run(&mut display, responses, &stop).await
}

struct Display {
    resume: Resume,
    view: View,
    screen: Screen<io::Stdout>,
    has_colour: bool,
    /// Why the connection is lost, while it is.
    lost: watch::Receiver<Option<String>>,
    resized: Signal,
    /// The time of the last frame.
    drawn: Option<Instant>,
    /// The view has changed since the last frame.
    is_changed: bool,
}

impl Session for Display {
    type Item = Result<CountdownResponse, Error>;

    async fn received(&mut self, response: Self::Item) -> Result<ControlFlow<u8>, Failure> {
        match response {
            Ok(response) => {
                self.view.record(&response, &Zoned::now());
                self.resume.record(&response);
                self.is_changed = true;
                self.draw_if_due()?;
                Ok(ControlFlow::Continue(()))
            }
            Err(error) => {
                self.close()?;
                Err(self.resume.failed(&error))
            }
        }
    }

    fn idle(&mut self) -> Result<Option<Duration>, Failure> {
        self.draw_if_due()?;
        Ok(self.due())
    }

    async fn background(&mut self) -> Result<(), Failure> {
        tokio::select! {
            _ = self.resized.recv() => self.draw()?,
            Ok(()) = self.lost.changed() => {
                self.view.connection(self.lost.borrow_and_update().clone());
                self.is_changed = true;
            }
        }
        Ok(())
    }

    async fn ended(&mut self) -> Result<u8, Failure> {
        self.view.ended(Timestamp::now());
        self.close()?;
        Ok(0)
    }

    async fn interrupted(&mut self) -> Result<u8, Failure> {
        self.close()?;
        self.resume.print_command();
        Ok(INTERRUPTED)
    }
}

impl Display {
    fn new(resume: Resume, lost: watch::Receiver<Option<String>>) -> io::Result<Self> {
        Ok(Self {
            view: View::new(&resume.it, Timestamp::now()),
            resume,
            screen: Screen::new(io::stdout()),
            has_colour: output::has_colour(),
            lost,
            resized: signal(SignalKind::window_change())?,
            drawn: None,
            is_changed: false,
        })
    }

    /// The time until the next frame, if one is to come.
    fn due(&self) -> Option<Duration> {
        let until_change = self.view.next_change(Timestamp::now());
        let until_change = if self.is_changed { Duration::ZERO } else { until_change? };
        let pause = self.drawn.map_or(Duration::ZERO, |drawn| MIN_INTERVAL.saturating_sub(drawn.elapsed()));
        Some(until_change.max(pause))
    }

    fn draw_if_due(&mut self) -> io::Result<()> {
        if self.due().is_some_and(|due| due.is_zero()) { self.draw() } else { Ok(()) }
    }

    fn draw(&mut self) -> io::Result<()> {
        let (size, clock) = (size(), Zoned::now());
        // To clear the rest of a full line clears its last letter too.
        let room = Size { columns: size.columns.saturating_sub(1), ..size };
        let lines = frame(&self.view.shown(clock.timestamp()), room, self.has_colour, &clock);
        self.drawn = Some(Instant::now());
        self.is_changed = false;
        self.screen.draw(&lines)
    }

    /// Replaces the display by one line.
    fn close(&mut self) -> io::Result<()> {
        self.screen.clear()?;
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
