//! The layer between the generators and the wire: it translates and decides nothing.
//!
//! A request becomes a query, a batch a response, and an error a status. [`gate`] and [`call`] alone handle the tasks that
//! all calls share: the gate bounds what a call may make the server hold, from its headers on, and the call has its
//! deadline, its end on shutdown, metrics, and the log line at the end.

use std::sync::Arc;

use tonic::service::Routes;

use crate::{
    countdown, lines, messages,
    proto::{
        countdown_service_server::CountdownServiceServer, line_service_server::LineServiceServer,
        message_service_server::MessageServiceServer,
    },
    stream::BATCH_BYTES,
};

pub mod access;
pub mod body;
pub mod call;
pub mod codec;
mod countdown_service;
mod field;
pub mod gate;
mod line_service;
mod message_service;
pub mod metrics;
pub mod status;

/// The default of [`Config::request_bytes`]: no request but a publish carries data.
pub const REQUEST_BYTES: usize = 64 * 1024;

/// The default of [`Config::publish_bytes`]: a few of the largest messages.
pub const PUBLISH_BYTES: usize = 4 * 1024 * 1024;

/// The default of [`Config::publish_window`]: large enough that the disk limits the rate, and not the round trip.
pub const PUBLISH_WINDOW: usize = 10_000;

/// The operator's configuration of requests.
#[derive(Clone, Debug)]
pub struct Config {
    /// The largest request, in bytes.
    pub request_bytes: usize,
    /// The largest request that publishes, in bytes.
    pub publish_bytes: usize,
    /// The size at which a batch leaves, in bytes.
    pub batch_bytes: usize,
    /// A `PublishStream` is not read while more messages than this are unanswered.
    pub publish_window: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            request_bytes: REQUEST_BYTES,
            publish_bytes: PUBLISH_BYTES,
            batch_bytes: BATCH_BYTES,
            publish_window: PUBLISH_WINDOW,
        }
    }
}

/// The parts that the services use.
#[derive(Clone, Debug)]
pub struct App {
    /// The clock of countdowns.
    pub clock: countdown::Clock,
    /// The configuration of countdowns.
    pub countdown: countdown::Config,
    /// The shared countdowns.
    pub countdowns: countdown::shared::Countdowns,
    /// The files of `ReadLines` and `ListFiles`.
    pub files: lines::Files,
    /// The log of messages.
    pub log: messages::Log,
    /// The wrapper of all calls.
    pub calls: call::Calls,
    /// The configuration of requests.
    pub config: Config,
}

/// The three services.
pub fn routes(app: App) -> Routes {
    let Config { request_bytes, publish_bytes, .. } = app.config;
    let app = Arc::new(app);
    // The limit is per service. The gate knows the limit of each method.
    Routes::new(CountdownServiceServer::from_arc(app.clone()).max_decoding_message_size(request_bytes))
        .add_service(LineServiceServer::from_arc(app.clone()).max_decoding_message_size(request_bytes))
        .add_service(MessageServiceServer::from_arc(app).max_decoding_message_size(publish_bytes))
}

#[cfg(test)]
mod tests;
