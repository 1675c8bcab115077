//! A client that follows a log of a real server, is cut, and continues after the last response that it got.

use std::time::Duration;

use perennial::proto::{
    FileResumedFound, OnGap, ReadLinesRequest, ReadLinesResponse, line_stream_event::Event,
};
use tokio::time::{Instant, timeout};
use tonic::{Code, Streaming};

use super::writer::line;
use crate::{
    bed::text,
    harness::{Server, soon},
};

/// How long a follower may get nothing new before it counts as having got all that it will get.
const IDLE: Duration = Duration::from_secs(30);

/// How long to wait for lines that come again, when all came.
const AFTER: Duration = Duration::from_millis(300);

/// What a follower may get besides each line once and in order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judge {
    /// Lines may be missing where an event says so.
    pub may_lose: bool,
    /// Lines may come again after an event.
    pub may_repeat: bool,
    /// The tool writes over lines in place: they are missing in what comes again after `truncated`, where nothing else shows
    /// that. A part of a line may be before another line for a moment.
    pub overwrites: bool,
}

/// What came.
#[derive(Clone, Debug)]
enum Got {
    Line(usize),
    /// No line of the writer.
    Other(String),
    Event(Event),
    /// The cursor was refused: its file is gone.
    Expired,
}

impl Got {
    fn is_loss(&self) -> bool {
        match self {
            Self::Expired | Self::Event(Event::Gap(_) | Event::Truncated(_)) => true,
            Self::Event(Event::Resumed(resumed)) => {
                matches!(resumed.found(), FileResumedFound::Lost | FileResumedFound::Truncated)
            }
            Self::Line(_) | Self::Other(_) | Self::Event(_) => false,
        }
    }

    fn is_turn(&self) -> bool {
        self.is_loss() || matches!(self, Self::Event(Event::Rotated(_) | Event::Opened(_) | Event::Late(_)))
    }
}

pub struct Follower {
    server: (String, tonic::transport::Channel),
    stream: Option<Streaming<ReadLinesResponse>>,
    cursor: Option<String>,
    got: Vec<Got>,
    /// When the last line or event came.
    last: Instant,
}

impl Follower {
    pub fn new(server: &Server, log: &str) -> Self {
        let channel = tonic::transport::Endpoint::from_shared(server.url()).unwrap().connect_lazy();
        let server = (format!("logs/{log}"), channel);
        Self { server, stream: None, cursor: None, got: Vec::new(), last: Instant::now() }
    }

    pub fn cut(&mut self) {
        self.stream = None;
    }

    pub fn is_cut(&self) -> bool {
        self.stream.is_none()
    }

    /// How many lines came.
    pub fn count(&self) -> usize {
        self.got.iter().filter(|got| matches!(got, Got::Line(_))).count()
    }

    /// Opens the stream again after the last response.
    pub async fn resume(&mut self) {
        if self.stream.is_some() {
            return;
        }
        let mut request = ReadLinesRequest {
            path: self.server.0.clone(),
            follow: true,
            wait_for_create: true,
            cursor: self.cursor.clone(),
            ..Default::default()
        };
        let mut client = perennial::proto::line_service_client::LineServiceClient::new(self.server.1.clone());
        let opened = soon("a stream", client.read_lines(request.clone())).await;
        let opened = match opened {
            Err(status) if status.code() == Code::OutOfRange => {
                self.got.push(Got::Expired);
                request.on_gap = OnGap::Skip.into();
                soon("a stream", client.read_lines(request)).await
            }
            opened => opened,
        };
        self.stream = Some(opened.unwrap().into_inner());
    }

    /// Reads one response; waits for ever if it is cut.
    pub async fn read(&mut self) {
        let Some(stream) = &mut self.stream else { return std::future::pending().await };
        let response = stream.message().await.unwrap().expect("the stream goes on");
        for event in response.events.into_iter().filter_map(|event| event.event) {
            self.last = Instant::now();
            self.got.push(Got::Event(event));
        }
        for got in &response.lines {
            self.last = Instant::now();
            let text = text(got);
            let number = text.split(' ').nth(1).and_then(|number| number.parse::<usize>().ok());
            let number = number.filter(|number| text == line(*number));
            self.got.push(number.map_or(Got::Other(text), Got::Line));
        }
        self.cursor = Some(response.cursor);
    }

    /// Reads until the first lines have come, this many, or nothing comes any more.
    pub async fn read_until(&mut self, count: usize) {
        self.last = Instant::now();
        while self.first(count).contains(&None) {
            let idle = IDLE.saturating_sub(self.last.elapsed());
            if timeout(idle, self.read()).await.is_err() {
                break;
            }
        }
    }

    /// Where each line came first.
    fn first(&self, count: usize) -> Vec<Option<usize>> {
        let mut first = vec![None; count];
        for (at, got) in self.got.iter().enumerate().rev() {
            if let Got::Line(number) = got
                && let Some(first) = first.get_mut(*number)
            {
                *first = Some(at);
            }
        }
        first
    }

    /// Judges what came of this many lines.
    pub async fn judge(mut self, written: usize, judge: Judge) {
        let _ = timeout(AFTER, async {
            loop {
                self.read().await;
            }
        })
        .await;
        let other = self.got.iter().find_map(|got| match got {
            Got::Other(text) if !judge.overwrites => Some(text),
            _ => None,
        });
        let fault = other.map(|text| format!("no line of the writer: {text:?}"));
        let fault = fault.or_else(|| self.lost(written, judge)).or_else(|| self.repeated(written, judge));
        assert!(fault.is_none(), "{}\n{}", fault.unwrap_or_default(), self.story());
    }

    /// The event after which lines came without another event up to this one.
    fn start_of_run(&self, at: usize) -> usize {
        self.got[..at].iter().rposition(|got| !matches!(got, Got::Line(_) | Got::Other(_))).unwrap_or(0)
    }

    fn lost(&self, written: usize, judge: Judge) -> Option<String> {
        let first = self.first(written);
        for (number, _) in first.iter().enumerate().filter(|(_, at)| at.is_none()) {
            let before = first[..number].iter().rev().find_map(|at| *at).unwrap_or(0);
            let before = if judge.overwrites { self.start_of_run(before) } else { before };
            let after = first[number..].iter().find_map(|at| *at).unwrap_or(self.got.len());
            let between = &self.got[before.min(after)..before.max(after)];
            if !judge.may_lose || !between.iter().any(Got::is_loss) {
                return Some(format!("line {number} of {written} is lost"));
            }
        }
        None
    }

    /// Lines that come again, or in another order without an event.
    fn repeated(&self, written: usize, judge: Judge) -> Option<String> {
        let first = self.first(written);
        let (mut seen, mut last, mut turned) = (vec![false; written], None, true);
        for got in &self.got {
            let Got::Line(number) = got else {
                turned |= got.is_turn();
                continue;
            };
            let is_again = std::mem::replace(&mut seen[*number], true);
            if is_again && !(judge.may_repeat && turned) {
                return Some(format!("line {number} came again"));
            }
            let is_over = |between: usize| judge.overwrites && (seen[between] || first[between].is_none());
            let is_next = |last: usize| last < *number && (last + 1..*number).all(is_over);
            if !turned && !last.is_none_or(is_next) {
                return Some(format!("line {number} came after {last:?} without an event"));
            }
            // After a turn, any number of lines may come again.
            turned &= is_again;
            last = Some(*number);
        }
        None
    }

    /// All that came, runs of lines together.
    fn story(&self) -> String {
        let mut story = String::new();
        let mut run: Option<(usize, usize)> = None;
        for got in self.got.iter().map(Some).chain([None]) {
            run = match (run, got) {
                (Some((from, to)), Some(Got::Line(number))) if to + 1 == *number => Some((from, *number)),
                (run, got) => {
                    if let Some((from, to)) = run {
                        story += &format!(" {from}–{to}");
                    }
                    match got {
                        Some(Got::Line(number)) => Some((*number, *number)),
                        Some(got) => {
                            story += &format!(" {got:?}");
                            None
                        }
                        None => None,
                    }
                }
            };
        }
        story
    }
}
