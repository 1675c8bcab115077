//! Calls by plain HTTP: parameters or JSON in, server-sent events, lines of JSON or JSON out.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use prost_reflect::{DynamicMessage, Value};
use tonic::{Code, Status, body::Body};

use super::{
    BoxError,
    door::Door,
    events::{self, Events, Form, Writer},
    full, json,
    problem::Problem,
    query, refuse, refuse_as,
};
use crate::grpc::{
    call::{Backlog, Connection, Part},
    gate::Gate,
    status::{self, Failure},
};

/// The type of requests and of single answers.
const JSON: &str = "application/json";

/// Where a browser sends the `id` of the last event.
const LAST_EVENT_ID: &str = "last-event-id";

/// A text has up to this many times the bytes of the request that it stands for: bytes in base64, and escapes.
const TEXT_FACTOR: usize = 2;

/// Answers a request to a door.
pub async fn answer<B>(
    door: Door,
    gate: &Gate,
    connection: &Connection,
    backlog: &Arc<Backlog>,
    request: Request<B>,
) -> Response<Body>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let (parts, body) = request.into_parts();
    let served = if parts.method == Method::GET {
        stream(door, gate, connection, backlog, &parts).await
    } else {
        single(door, gate, connection, &parts, body).await
    };
    served.unwrap_or_else(|refusal| *refusal.0)
}

/// A refusal that is an answer of its own. In a box, because most requests have none.
#[derive(Debug)]
pub struct Refusal(pub Box<Response<Body>>);

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        refuse(failure).into()
    }
}

impl From<Response<Body>> for Refusal {
    fn from(response: Response<Body>) -> Self {
        Self(Box::new(response))
    }
}

/// Opens a stream.
async fn stream(
    door: Door,
    gate: &Gate,
    connection: &Connection,
    backlog: &Arc<Backlog>,
    parts: &Parts,
) -> Result<Response<Body>, Refusal> {
    let form = form(&parts.headers)?;
    let query = parts.uri.query().unwrap_or_default();
    let (mut message, options) = query::read(query, &door.method.request, &door.bound)?;
    if options.items && form == Form::Events {
        // An event is dispatched as a whole or not at all, and the cursor of a response is after all its items.
        if message.has_field_by_name("max_batch") {
            let text = "cannot be set together with items: each item is an event with a cursor of its own";
            return Err(Failure::field("max_batch", text).into());
        }
        message.set_field_by_name("max_batch", Value::I32(1));
    }
    let last = parts.headers.get(LAST_EVENT_ID).filter(|last| !last.is_empty());
    if let Some(last) = last {
        // The browser has it from this server, and sends it after it has lost the connection: it is newer than the URL.
        message.set_field_by_name("cursor", Value::String(String::from_utf8_lossy(last.as_bytes()).into()));
    }
    let call = call(&door, parts, full(json::framed(&message)));
    let response = gate.serve(connection, call).await;
    if let Some(status) =
        Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok)
    {
        return Err(not_opened(&status, form, &parts.headers).into());
    }
    let mut events =
        Events::new(response.into_body(), Writer::new(door.method, form, options.items), backlog);
    if last.is_some() && form == Form::Events && events.is_empty().await {
        // Nothing is left. A browser that came back for more stops only at this status.
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
    Ok(streamed(form, Body::new(events)))
}

/// The head of a stream.
fn streamed(form: Form, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would keep events back until its buffer is full.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// The answer to a stream that could not be opened. A browser's `EventSource` gives up at every status but 200, so one
/// that can try again gets the error as an event.
fn not_opened(status: &Status, form: Form, headers: &HeaderMap) -> Response<Body> {
    let problem = Problem::from(status);
    let is_event_source = form == Form::Events
        && headers.get(header::ACCEPT).is_some_and(|accept| accept == Form::Events.content_type());
    if is_event_source && problem.retry_delay().is_some() {
        return streamed(form, full(events::error(form, &problem)));
    }
    problem.into_response()
}

/// The form that a client accepts: events, unless it asks for something else.
fn form(headers: &HeaderMap) -> Result<Form, Refusal> {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let accepted = accepted.flat_map(|accept| accept.split(','));
    let accepted = accepted.map(|part| part.split(';').next().unwrap_or_default().trim());
    let accepted = accepted.filter(|part| !part.is_empty()).collect::<Vec<_>>();
    if accepted.contains(&Form::Lines.content_type()) {
        return Ok(Form::Lines);
    }
    let takes_events = |part: &&str| ["text/event-stream", "text/*", "*/*"].contains(part);
    if accepted.is_empty() || accepted.iter().any(takes_events) {
        return Ok(Form::Events);
    }
    let failure = status::not_acceptable(&accepted.join(", "));
    Err(refuse_as(StatusCode::NOT_ACCEPTABLE, failure).into())
}

/// A call with one answer.
async fn single<B>(
    door: Door,
    gate: &Gate,
    connection: &Connection,
    parts: &Parts,
    body: B,
) -> Result<Response<Body>, Refusal>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    is_json(&parts.headers)?;
    if let Some(query) = parts.uri.query() {
        // Reports a credential as such.
        query::read(query, &door.method.request, &door.bound)?;
        let text = "the request has its fields in its body: leave out what follows the ? in its URL";
        return Err(Failure::new(crate::proto::ErrorReason::RequestMalformed, text).into());
    }
    let limit = gate.max_request_bytes(&door.method.path).saturating_mul(TEXT_FACTOR);
    let text = JsonBody {
        body,
        door: door.clone(),
        text: Vec::new(),
        part: connection.buffers.part(),
        limit,
        is_over: false,
    };
    let response = gate.serve(connection, call(&door, parts, Body::new(text))).await;
    let of_headers = Status::from_header_map(response.headers());
    let (status, bytes) = if let Some(status) = of_headers {
        (status, Bytes::new())
    } else {
        let cut = |status: Status| Refusal::from(Problem::from(&status).into_response());
        let collected = response.into_body().collect().await.map_err(cut)?;
        let status = collected.trailers().and_then(Status::from_header_map);
        (status.unwrap_or_else(status::ok), collected.to_bytes())
    };
    if status.code() != Code::Ok {
        return Err(Problem::from(&status).into_response().into());
    }
    let message = bytes.get(5..).unwrap_or_default();
    let mut text = Vec::new();
    let answer =
        json::response(message, &door.method.response).and_then(|answer| json::put(&answer, &mut text));
    answer?;
    text.push(b'\n');
    let mut response = Response::new(full(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Whether the body is JSON. A page of another site can send other types without being asked first.
pub fn is_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let kind = headers.get(header::CONTENT_TYPE).map_or("", |kind| kind.to_str().unwrap_or("not text"));
    if kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(JSON) {
        return Ok(());
    }
    Err(refuse_as(StatusCode::UNSUPPORTED_MEDIA_TYPE, status::wrong_content_type(kind, JSON)).into())
}

/// The call of gRPC that a request stands for, with the credential and the deadline of the request.
fn call(door: &Door, parts: &Parts, body: Body) -> Request<Body> {
    let mut call = Request::new(body);
    *call.method_mut() = Method::POST;
    *call.uri_mut() = door.method.path.parse().unwrap_or_default();
    *call.version_mut() = http::Version::HTTP_2;
    let headers = call.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    for name in [header::AUTHORIZATION, header::HeaderName::from_static("grpc-timeout")] {
        for value in parts.headers.get_all(&name) {
            headers.append(&name, value.clone());
        }
    }
    call
}

/// A request in JSON, which becomes one message when it is complete.
struct JsonBody<B> {
    body: B,
    door: Door,
    text: Vec<u8>,
    /// The bytes of `text`.
    part: Part,
    limit: usize,
    is_over: bool,
}

impl<B> JsonBody<B> {
    fn message(&self) -> Result<DynamicMessage, Failure> {
        let mut message = json::request(&self.text, &self.door.method.request)?;
        for (name, value) in &self.door.bound {
            let Some(field) = message_field(&message, name) else { continue };
            if message.has_field(&field) && message.get_field(&field).as_str() != Some(value) {
                return Err(Failure::field(name, "differs from the path: leave it out of the body"));
            }
            message.set_field(&field, Value::String(value.clone()));
        }
        Ok(message)
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let length = self.text.len() + bytes.len();
        if length > self.limit {
            return Err(status::too_large(length, self.limit));
        }
        self.text.extend_from_slice(bytes);
        self.part.resize(self.text.capacity())
    }
}

fn message_field(message: &DynamicMessage, name: &str) -> Option<prost_reflect::FieldDescriptor> {
    use prost_reflect::ReflectMessage;
    message.descriptor().get_field_by_name(name)
}

impl<B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin> HttpBody for JsonBody<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let fail = |failure: Failure| Poll::Ready(Some(Err(Status::from(failure).into())));
        while !this.is_over {
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    let Some(bytes) = frame.data_ref() else { continue };
                    if let Err(failure) = this.take(bytes.chunk()) {
                        this.is_over = true;
                        return fail(failure);
                    }
                }
                Some(Err(_)) => {
                    this.is_over = true;
                    return fail(status::malformed("was cut, or its body is not framed as HTTP/1.1 demands"));
                }
                None => {
                    this.is_over = true;
                    let message = this.message();
                    this.text = Vec::new();
                    let _ = this.part.resize(0);
                    return match message {
                        Ok(message) => Poll::Ready(Some(Ok(Frame::data(json::framed(&message).into())))),
                        Err(failure) => fail(failure),
                    };
                }
            }
        }
        Poll::Ready(None)
    }
}
