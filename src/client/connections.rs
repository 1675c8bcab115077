//! The connection that all calls of a client share, and its replacement when it has died in silence.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tonic::transport::Endpoint;

use super::{
    connect::{Connector, Server},
    token::{Authorized, Bearer},
};

/// The connections of a client: one at a time for new calls.
pub(super) struct Connections {
    endpoint: Endpoint,
    connector: Connector,
    bearer: Bearer,
    current: Mutex<Connection>,
}

/// A connection. It connects at its first call, and again after it was lost.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) channel: Authorized,
    number: u64,
}

impl Connections {
    pub(super) fn new(endpoint: Endpoint, connector: Connector, bearer: Bearer) -> Self {
        let current = Mutex::new(connect(&endpoint, &connector, &bearer));
        Self { endpoint, connector, bearer, current }
    }

    /// The same server, by a connection of its own.
    pub(super) fn apart(&self) -> Self {
        Self::new(self.endpoint.clone(), self.connector.clone(), self.bearer.clone())
    }

    pub(super) fn server(&self) -> &Server {
        self.connector.server()
    }

    /// The connection for a new call.
    pub(super) fn current(&self) -> Connection {
        // Each change is one assignment, so a panic elsewhere leaves it whole.
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A stream got nothing over this connection: new calls use another one. Other calls on it go on.
    pub(super) fn retire(&self, connection: &Connection) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.number == connection.number {
            *current = connect(&self.endpoint, &self.connector, &self.bearer);
        }
    }
}

fn connect(endpoint: &Endpoint, connector: &Connector, bearer: &Bearer) -> Connection {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let channel = endpoint.connect_with_connector_lazy(connector.clone());
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Connection { channel: Authorized::new(channel, bearer.clone()), number }
}
