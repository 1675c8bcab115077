//! A reading from a real server, over a connection of its own.

use perennial::proto::{
    ReadLinesRequest, ReadLinesResponse, line_service_client::LineServiceClient, line_stream_event::Event,
};
use tonic::{Streaming, transport::Channel};

use crate::{
    bed::text,
    harness::{Server, soon},
};

/// A stream of lines from a server, and all that came.
pub struct Remote {
    stream: Streaming<ReadLinesResponse>,
    pub lines: Vec<String>,
    pub events: Vec<Event>,
}

impl Remote {
    /// Follows a file of the root from its head.
    pub async fn follow(server: &Server, name: &str) -> Self {
        Self::follow_by(server.lines().await, name).await
    }

    /// The same over a connection that others use, too.
    pub async fn follow_by(mut client: LineServiceClient<Channel>, name: &str) -> Self {
        let request = ReadLinesRequest { path: format!("logs/{name}"), follow: true, ..Default::default() };
        let stream = soon("a stream", client.read_lines(request)).await;
        Self { stream: stream.unwrap().into_inner(), lines: Vec::new(), events: Vec::new() }
    }

    /// Reads the next response.
    pub async fn read(&mut self, for_what: &str) {
        let next = tokio::time::timeout(crate::bed::LIMIT, self.stream.message()).await;
        let last = self.lines.len().saturating_sub(5);
        let response = next
            .unwrap_or_else(|_| panic!("{for_what}, but {:?} {:?}", &self.lines[last..], self.events))
            .unwrap()
            .expect("the stream goes on");
        self.lines.extend(response.lines.iter().map(text));
        self.events.extend(response.events.into_iter().filter_map(|event| event.event));
    }

    /// Reads on until this line was read.
    pub async fn read_until(&mut self, line: &str) {
        while self.lines.iter().all(|other| other != line) {
            self.read(line).await;
        }
    }

    /// Reads on until this event came.
    pub async fn wait_for_event(&mut self, what: &str, is_it: impl Fn(&Event) -> bool) {
        while !self.events.iter().any(&is_it) {
            self.read(what).await;
        }
    }
}
