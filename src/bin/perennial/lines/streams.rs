//! The streams of a run: that of the files that match globs, and those of lines, which are opened while it runs.
//!
//! Up to [`MAX_STREAMS`] share a connection. A stream that is closed yields nothing more.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream, SelectAll},
};
use perennial::{
    client::{Client, Error},
    proto::{ReadLinesRequest, ReadLinesResponse, WatchFilesRequest, WatchFilesResponse},
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use crate::output::Connection;

/// The streams on one connection. A server allows 256 by default.
const MAX_STREAMS: usize = 100;

/// How long a stream that is opened later tries to get its first response: the server was there, and comes back.
const OUTAGE: Duration = Duration::from_secs(365 * 24 * 3600);

/// The number of the stream of files, for the state of the connection.
const OF_FILES: usize = usize::MAX;

/// What a stream yielded: a response, an error, or `None` when it ended with OK.
pub enum Given {
    /// The number of a stream of lines.
    Lines(usize, Option<Result<ReadLinesResponse, Error>>),
    Files(Option<Result<WatchFilesResponse, Error>>),
}

/// All streams as one.
pub struct Streams {
    open: SelectAll<BoxStream<'static, Given>>,
    new: UnboundedReceiver<BoxStream<'static, Given>>,
    /// No other stream will be opened.
    is_complete: bool,
}

impl Stream for Streams {
    type Item = Given;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Given>> {
        while !self.is_complete
            && let Poll::Ready(new) = self.new.poll_recv(context)
        {
            match new {
                Some(stream) => self.open.push(stream),
                None => self.is_complete = true,
            }
        }
        match self.open.poll_next_unpin(context) {
            Poll::Ready(None) if !self.is_complete => Poll::Pending,
            polled => polled,
        }
    }
}

/// A stream of lines that is to be opened.
pub struct Order {
    pub n: usize,
    pub request: ReadLinesRequest,
    /// Closes the stream.
    pub stop: CancellationToken,
}

/// Opens streams.
pub struct Opener {
    client: Client,
    /// Each has a connection of its own.
    clients: Vec<Client>,
    connection: Connection,
    is_in_turn: bool,
    /// `None` when no other stream will be opened.
    new: Option<UnboundedSender<BoxStream<'static, Given>>>,
}

impl Opener {
    /// With `is_in_turn`, streams that are opened together are read one after the other.
    pub fn new(client: &Client, connection: &Connection, is_in_turn: bool) -> (Self, Streams) {
        let (sender, new) = unbounded_channel();
        let (client, connection) = (client.clone(), connection.clone());
        let opener = Self { client, clients: Vec::new(), connection, is_in_turn, new: Some(sender) };
        (opener, Streams { open: SelectAll::new(), new, is_complete: false })
    }

    /// Opens the stream of files.
    pub fn watch(&self, request: WatchFilesRequest) {
        let client = self.client.apart().with_observer(self.connection.observer(OF_FILES));
        let responses = client.watch_files(request).map(Some);
        let end = stream::once(std::future::ready(None));
        self.push(responses.chain(end).map(Given::Files).boxed());
    }

    /// The stream of files has ended.
    pub fn watch_ended(&self) {
        self.connection.closed(OF_FILES);
    }

    /// Opens streams.
    pub fn open(&mut self, orders: Vec<Order>) {
        let streams = orders.into_iter().map(|order| self.stream(order)).collect::<Vec<_>>();
        if self.is_in_turn {
            self.push(stream::iter(streams).flatten().boxed());
        } else {
            for stream in streams {
                self.push(stream);
            }
        }
    }

    /// From now on, a server that is away is waited for.
    pub fn be_patient(&mut self) {
        self.client = self.client.clone().with_connect_timeout(OUTAGE);
        self.clients.clear();
    }

    /// No other stream will be opened.
    pub fn complete(&mut self) {
        self.new = None;
    }

    fn push(&self, stream: BoxStream<'static, Given>) {
        if let Some(new) = &self.new {
            // Without a receiver, the run is over.
            let _ = new.send(stream);
        }
    }

    fn stream(&mut self, Order { n, request, stop }: Order) -> BoxStream<'static, Given> {
        let at = n / MAX_STREAMS;
        while self.clients.len() <= at {
            self.clients.push(self.client.apart());
        }
        let client = self.clients.get(at).unwrap_or(&self.client).clone();
        let client = client.with_observer(self.connection.observer(n));
        let responses = client.read_lines(request).responses().map(Some);
        let end = stream::once(std::future::ready(None));
        let given = responses.chain(end).map(move |given| Given::Lines(n, given));
        given.take_until(stop.cancelled_owned()).boxed()
    }
}
