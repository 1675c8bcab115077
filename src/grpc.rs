//! The layer between the generators and the wire: it translates and decides nothing.
//!
//! A request becomes a query, a batch a response, an error a status. What a stream shares with every other, its
//! deadline, its quota, its end on shutdown, its metrics and its line in the log, is [`call`]'s and no one else's.

use std::sync::Arc;

use tonic::{Status, service::Routes};
use tower::util::MapResponseLayer;

use crate::{
    countdown, lines, messages,
    proto::{
        countdown_service_server::CountdownServiceServer, line_service_server::LineServiceServer,
        message_service_server::MessageServiceServer,
    },
    stream::BATCH_BYTES,
};

pub mod call;
pub mod codec;
mod countdown_service;
mod field;
mod line_service;
mod message_service;
pub mod metrics;
pub mod status;

/// The default of [`Limits::request_bytes`]: no request but a publish carries data.
pub const REQUEST_BYTES: usize = 64 * 1024;

/// The default of [`Limits::publish_bytes`]: a few of the largest messages.
pub const PUBLISH_BYTES: usize = 4 * 1024 * 1024;

/// The default of [`Limits::publish_window`]: enough for the disk to be the bound, not the round trip.
pub const PUBLISH_WINDOW: usize = 10_000;

/// What requests may ask for.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest request, in bytes.
    pub request_bytes: usize,
    /// The largest request that publishes, in bytes.
    pub publish_bytes: usize,
    /// When a batch leaves, in bytes.
    pub batch_bytes: usize,
    /// The most messages of a `PublishStream` that are not yet answered.
    pub publish_window: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes: REQUEST_BYTES,
            publish_bytes: PUBLISH_BYTES,
            batch_bytes: BATCH_BYTES,
            publish_window: PUBLISH_WINDOW,
        }
    }
}

/// All that the services serve.
#[derive(Clone, Debug)]
pub struct App {
    /// For countdowns.
    pub clock: countdown::Clock,
    /// For countdowns.
    pub countdown: countdown::Config,
    /// The shared ones.
    pub countdowns: countdown::shared::Countdowns,
    /// For `ReadLines` and `ListFiles`.
    pub files: lines::Files,
    /// For messages.
    pub log: messages::Log,
    /// What every call goes through.
    pub calls: call::Calls,
    /// What requests may ask for.
    pub limits: Limits,
}

/// The three services.
pub fn routes(app: App) -> Routes {
    let Limits { request_bytes, publish_bytes, .. } = app.limits;
    let app = Arc::new(app);
    // Requests of a service share one bound; those of messages that publish nothing are checked by their fields.
    let services =
        Routes::new(CountdownServiceServer::from_arc(app.clone()).max_decoding_message_size(request_bytes))
            .add_service(LineServiceServer::from_arc(app.clone()).max_decoding_message_size(request_bytes))
            .add_service(MessageServiceServer::from_arc(app).max_decoding_message_size(publish_bytes));
    services.into_axum_router().layer(MapResponseLayer::new(explained)).into()
}

/// A request that is too large or malformed is refused before a service sees it.
fn explained<B: Default>(response: http::Response<B>) -> http::Response<B> {
    let refusal = Status::from_header_map(response.headers());
    refusal.as_ref().and_then(status::explained).map_or(response, Status::into_http)
}

#[cfg(test)]
mod tests;
