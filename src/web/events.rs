//! The responses of a stream as server-sent events, or as lines of JSON.
//!
//! An event is a response, with its cursor as `id`: a browser that reconnects sends the last one as `Last-Event-ID`, and
//! the stream continues after that response. A heartbeat is a comment, and moves the cursor. A stream that ends as its
//! caller asked has a last event `end`, and one that fails an event `error`.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame};
use prost_reflect::{DynamicMessage, ReflectMessage, Value};
use tonic::{Code, Status, body::Body};

use super::{
    json::{self, Method},
    problem::Problem,
};
use crate::grpc::{
    body::SLICE,
    call::{Backlog, Kept},
    status::Failure,
};

mod latest;

/// The bytes before each message: a flag and the length of the message.
const PREFIX_BYTES: usize = 5;

/// What a stream looks like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// `text/event-stream`.
    Events,
    /// `application/x-ndjson`.
    Lines,
}

impl Form {
    /// The type of the answer.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Events => "text/event-stream",
            Self::Lines => "application/x-ndjson",
        }
    }
}

/// The body of a stream.
#[derive(Debug)]
pub struct Events {
    body: Body,
    writer: Writer,
    /// The beginning of a response.
    partial: BytesMut,
    /// Text that has not left.
    ready: Bytes,
    /// The bytes of both.
    kept: Kept,
    is_over: bool,
}

impl Events {
    /// The body of a call as text.
    pub fn new(body: Body, writer: Writer, backlog: &Arc<Backlog>) -> Self {
        let (partial, ready) = (BytesMut::new(), Bytes::new());
        Self { body, writer, partial, ready, kept: backlog.kept(), is_over: false }
    }

    /// Whether the call has already ended as its caller asked, without an item. Reads what is ready.
    pub async fn is_empty(&mut self) -> bool {
        std::future::poll_fn(|context| {
            loop {
                if self.is_over {
                    return Poll::Ready(self.writer.written.is_finished && !self.writer.written.has_items);
                }
                match self.poll_text(context) {
                    Poll::Ready(Ok(text)) => self.ready = [&self.ready[..], &text].concat().into(),
                    Poll::Ready(Err(_)) | Poll::Pending => return Poll::Ready(false),
                }
                if self.writer.written.has_items {
                    return Poll::Ready(false);
                }
            }
        })
        .await
    }

    /// More text; none after the end.
    fn poll_text(&mut self, context: &mut Context<'_>) -> Poll<Result<Vec<u8>, Status>> {
        let mut text = Vec::new();
        while text.is_empty() && !self.is_over {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)).transpose()? else {
                self.is_over = true;
                break;
            };
            match frame.into_data() {
                Ok(bytes) => self.take(&bytes, &mut text),
                Err(frame) => {
                    let status =
                        frame.into_trailers().ok().and_then(|trailers| Status::from_header_map(&trailers));
                    self.end(status.as_ref(), &mut text);
                }
            }
        }
        Poll::Ready(Ok(text))
    }

    /// Takes bytes of responses. Writes those that are now complete.
    fn take(&mut self, bytes: &[u8], text: &mut Vec<u8>) {
        self.partial.extend_from_slice(bytes);
        while let Some(length) = length(&self.partial) {
            if self.partial.len() < PREFIX_BYTES + length {
                self.partial.reserve(PREFIX_BYTES + length - self.partial.len());
                return;
            }
            self.partial.advance(PREFIX_BYTES);
            let message = self.partial.split_to(length);
            if let Err(failure) = self.writer.put(&message, text) {
                self.end(Some(&failure.into()), text);
            }
        }
        // Otherwise a large response would leave its buffer to a stream that waits.
        if self.partial.is_empty() {
            self.partial = BytesMut::new();
        }
    }

    fn end(&mut self, status: Option<&Status>, text: &mut Vec<u8>) {
        self.is_over = true;
        self.body = Body::empty();
        self.partial = BytesMut::new();
        match status.filter(|status| status.code() != Code::Ok) {
            None => self.writer.put_end(text),
            Some(status) => self.writer.put_error(status, text),
        }
    }
}

impl HttpBody for Events {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.ready.is_empty() {
            match ready!(this.poll_text(context)) {
                Ok(text) => this.ready = text.into(),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
        let slice = this.ready.split_to(this.ready.len().min(SLICE));
        // The slices of a text share its buffer.
        this.kept.set(this.ready.len() + this.partial.capacity());
        if slice.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::data(slice))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over && self.ready.is_empty()
    }
}

/// The length of the message that begins here.
fn length(bytes: &[u8]) -> Option<usize> {
    let [_, length @ ..] = bytes.first_chunk::<PREFIX_BYTES>()?;
    usize::try_from(u32::from_be_bytes(*length)).ok()
}

/// Writes responses as text.
#[derive(Debug)]
pub struct Writer {
    pub method: Arc<Method>,
    pub form: Form,
    /// Each item is an event of its own.
    pub items: bool,
    phase: Phase,
    written: Written,
}

/// What of a stream's past decides how its next response is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Phase {
    /// It has had no response.
    is_first: bool,
    /// It has caught up.
    is_live: bool,
}

/// What a stream has had so far.
#[derive(Debug, Default)]
struct Written {
    has_items: bool,
    is_finished: bool,
}

impl Writer {
    /// Writes the responses of a method.
    pub fn new(method: Arc<Method>, form: Form, items: bool) -> Self {
        let phase = Phase { is_first: true, is_live: false };
        Self { method, form, items, phase, written: Written::default() }
    }

    /// Writes a response.
    fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
        if latest::put(self, bytes, out) {
            return Ok(());
        }
        let (before, from) = (self.phase, out.len());
        let has_items = self.put_new(bytes, out)?;
        latest::keep(self, before, bytes, has_items, out.get(from..).unwrap_or_default());
        Ok(())
    }

    /// Writes a response, and returns whether it has items.
    fn put_new(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<bool, Failure> {
        let response = json::response(bytes, &self.method.response)?;
        let is_live = field(&response, "caught_up").is_some_and(|it| it.as_bool() == Some(true));
        let before = self.phase;
        self.phase = Phase { is_first: false, is_live: before.is_live || is_live };
        let news = News { becomes_live: is_live && !before.is_live, is_first: before.is_first };
        let has_items = self.method.items.as_ref().is_some_and(|items| response.has_field(items));
        self.written.has_items |= has_items;
        match (self.form, self.items) {
            (Form::Events, false) => put_response(&response, &self.method, news, out)?,
            (Form::Events, true) => put_items(&response, &self.method, news, out)?,
            (Form::Lines, false) => put_line(&response, out)?,
            (Form::Lines, true) => put_item_lines(&response, &self.method, out)?,
        }
        Ok(has_items)
    }

    fn put_end(&mut self, out: &mut Vec<u8>) {
        self.written.is_finished = true;
        if self.form == Form::Events {
            out.extend(b"event: end\ndata: {}\n\n");
        }
    }

    fn put_error(&self, status: &Status, out: &mut Vec<u8>) {
        out.extend(error(self.form, &Problem::from(status)));
    }
}

/// An error as the last text of a stream.
pub fn error(form: Form, problem: &Problem) -> Vec<u8> {
    let json = problem.json();
    match form {
        Form::Lines => [b"{\"error\":", &json[..], b"}\n"].concat(),
        Form::Events => {
            let retry = problem.retry_delay().map(|delay| format!("retry: {}\n", delay.as_millis()));
            let retry = retry.unwrap_or_default();
            [b"event: error\n", retry.as_bytes(), b"data: ", &json[..], b"\n\n"].concat()
        }
    }
}

/// What a response says for the first time.
#[derive(Clone, Copy, Debug)]
struct News {
    is_first: bool,
    becomes_live: bool,
}

/// A field of a response that has it.
fn field<'a>(response: &'a DynamicMessage, name: &str) -> Option<std::borrow::Cow<'a, Value>> {
    let field = response.descriptor().get_field_by_name(name)?;
    response.has_field(&field).then(|| response.get_field(&field))
}

fn put_id(response: &DynamicMessage, out: &mut Vec<u8>) {
    if let Some(cursor) = field(response, "cursor")
        && let Some(cursor) = cursor.as_str()
    {
        out.extend(b"id: ");
        out.extend(cursor.as_bytes());
        out.push(b'\n');
    }
}

/// A browser records an `id` without data, and dispatches nothing.
fn put_heartbeat(response: &DynamicMessage, out: &mut Vec<u8>) {
    out.extend(b": heartbeat\n");
    put_id(response, out);
    out.push(b'\n');
}

fn put_response(
    response: &DynamicMessage,
    method: &Method,
    news: News,
    out: &mut Vec<u8>,
) -> Result<(), Failure> {
    let has_items = method.items.as_ref().is_some_and(|items| response.has_field(items));
    let has_news = news.is_first || news.becomes_live;
    if !has_items && !has_news && ["events", "countdown"].iter().all(|name| field(response, name).is_none()) {
        put_heartbeat(response, out);
        return Ok(());
    }
    put_id(response, out);
    out.extend(b"data: ");
    json::put(response, out)?;
    out.extend(b"\n\n");
    Ok(())
}

fn put_named(name: &str, value: &DynamicMessage, out: &mut Vec<u8>) -> Result<(), Failure> {
    out.extend(format!("event: {name}\ndata: ").as_bytes());
    json::put(value, out)?;
    out.extend(b"\n\n");
    Ok(())
}

fn put_items(
    response: &DynamicMessage,
    method: &Method,
    news: News,
    out: &mut Vec<u8>,
) -> Result<(), Failure> {
    if let Some(events) = field(response, "events") {
        for event in events.as_list().unwrap_or_default().iter().filter_map(Value::as_message) {
            for (kind, value) in event.fields() {
                if let Some(value) = value.as_message() {
                    put_named(kind.json_name(), value, out)?;
                }
            }
        }
    }
    if let Some(state) = field(response, "countdown")
        && let Some(state) = state.as_message()
    {
        put_named("countdown", state, out)?;
    }
    let items = method.items.as_ref().map(|items| response.get_field(items));
    let items = items.as_ref().and_then(|items| items.as_list()).unwrap_or_default();
    for (number, item) in items.iter().enumerate() {
        // A stream that is cut in the middle of a response continues before it.
        if number + 1 == items.len() {
            put_id(response, out);
        }
        out.extend(b"data: ");
        if let Some(item) = item.as_message() {
            json::put(item, out)?;
        }
        out.extend(b"\n\n");
    }
    if items.is_empty() {
        put_heartbeat(response, out);
    }
    if news.becomes_live {
        out.extend(b"event: caughtUp\ndata: {}\n\n");
    }
    Ok(())
}

fn put_line(response: &DynamicMessage, out: &mut Vec<u8>) -> Result<(), Failure> {
    json::put(response, out)?;
    out.push(b'\n');
    Ok(())
}

fn put_item_lines(response: &DynamicMessage, method: &Method, out: &mut Vec<u8>) -> Result<(), Failure> {
    if let Some(events) = field(response, "events") {
        for event in events.as_list().unwrap_or_default().iter().filter_map(Value::as_message) {
            out.extend(b"{\"event\":");
            json::put(event, out)?;
            out.extend(b"}\n");
        }
    }
    let items = method.items.as_ref().map(|items| response.get_field(items));
    let items = items.as_ref().and_then(|items| items.as_list()).unwrap_or_default();
    for item in items.iter().filter_map(Value::as_message) {
        put_line(item, out)?;
    }
    Ok(())
}
