//! The servers that are compared, under one name for each thing that is asked of them.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tonic::{client::Grpc, transport::Channel};

use super::{
    durable_streams,
    load::{Load, Messages},
    nats::{self, Consumers, Sync},
    ours,
    wire::Connection,
};
use crate::{
    Result,
    process::{self, Kind, Process, WIDE},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    Perennial,
    /// nats-server as it comes.
    Default,
    /// nats-server with `sync_interval: always`.
    Always,
    /// durable-streams-server as it comes: an append is synced before it is acknowledged.
    DurableStreams,
    Tonic,
}

impl System {
    pub fn name(self) -> &'static str {
        match self {
            Self::Perennial => Kind::Perennial.name(),
            Self::Default => "nats-server, default",
            Self::Always => "nats-server, sync always",
            Self::DurableStreams => "durable-streams",
            Self::Tonic => Kind::Tonic.name(),
        }
    }

    /// Why it can't run here, if it can't.
    pub fn missing(self) -> Option<&'static str> {
        match self {
            Self::Perennial | Self::Tonic => None,
            Self::Default | Self::Always => nats::missing(),
            Self::DurableStreams => durable_streams::missing(),
        }
    }
}

/// A server that keeps messages; dropping it ends it.
pub enum Server {
    Perennial(process::Server),
    Nats(nats::Server),
    DurableStreams(durable_streams::Server),
}

impl Server {
    /// Starts an empty one.
    pub async fn start(system: System) -> Result<Self> {
        Ok(match system {
            System::Perennial => Self::Perennial(process::Server::start(Kind::Perennial, Path::new("."))?),
            System::Default => Self::Nats(nats::Server::start(Sync::Default).await?),
            System::Always => Self::Nats(nats::Server::start(Sync::Always).await?),
            System::DurableStreams => Self::DurableStreams(durable_streams::Server::start()?),
            System::Tonic => return Err("it keeps nothing".into()),
        })
    }

    /// Starts one again on its data.
    pub fn open(system: System, data: TempDir) -> Result<Self> {
        Ok(match system {
            System::Perennial => {
                Self::Perennial(process::Server::open(Kind::Perennial, Path::new("."), data)?)
            }
            System::Default => Self::Nats(nats::Server::open(Sync::Default, data)?),
            System::Always => Self::Nats(nats::Server::open(Sync::Always, data)?),
            System::DurableStreams => Self::DurableStreams(durable_streams::Server::open(data)?),
            System::Tonic => return Err("it keeps nothing".into()),
        })
    }

    pub fn process(&self) -> &Process {
        match self {
            Self::Perennial(server) => server.process(),
            Self::Nats(server) => server.process(),
            Self::DurableStreams(server) => server.process(),
        }
    }

    /// Where its data are.
    pub fn data(&self) -> &Path {
        match self {
            Self::Perennial(server) => server.data(),
            Self::Nats(server) => server.data(),
            Self::DurableStreams(server) => server.data(),
        }
    }

    /// Asks it to stop, waits until it has, and hands out its data.
    pub fn stop(self) -> Result<TempDir> {
        match self {
            Self::Perennial(server) => server.stop(),
            Self::Nats(server) => server.stop(),
            Self::DurableStreams(server) => server.stop(),
        }
    }

    /// Kills it without a word, and hands out its data.
    pub fn kill(self) -> TempDir {
        match self {
            Self::Perennial(server) => server.kill(),
            Self::Nats(server) => server.kill(),
            Self::DurableStreams(server) => server.kill(),
        }
    }

    /// The last sequence that it has, over a connection of its own.
    pub async fn head(&self) -> Result<u64> {
        match self {
            Self::Perennial(server) => ours::head(server).await,
            Self::Nats(server) => server.head().await,
            Self::DurableStreams(_) => Err("it has no sequences".into()),
        }
    }

    /// A client on a connection of its own.
    pub async fn connect(&self) -> Result<Client> {
        Ok(match self {
            Self::Perennial(server) => Client::Perennial(Grpc::new(server.connect(WIDE).await?)),
            Self::Nats(server) => Client::Nats(server.connect().await?),
            Self::DurableStreams(server) => Client::DurableStreams(server.connect().await?),
        })
    }

    /// Publishes a load, and returns how many messages were acknowledged.
    pub async fn publish(&self, messages: &Messages, load: &Load) -> Result<u64> {
        self.connect().await?.publish(messages, load).await
    }
}

/// A client on a connection of its own.
pub enum Client {
    Perennial(Grpc<Channel>),
    Nats(Connection),
    DurableStreams(durable_streams::Connection),
}

impl Client {
    /// Publishes a load, and returns how many messages were acknowledged.
    pub async fn publish(&mut self, messages: &Messages, load: &Load) -> Result<u64> {
        match self {
            Self::Perennial(grpc) => ours::publish(grpc, messages, load).await,
            Self::Nats(connection) => nats::publish(connection, messages, load).await,
            Self::DurableStreams(connection) => durable_streams::fill(connection, messages, load).await,
        }
    }

    /// Makes what must be there before the messages of these topics can be published.
    pub async fn prepare(&mut self, messages: &Messages, topics: usize) -> Result<()> {
        match self {
            Self::Perennial(_) | Self::Nats(_) => Ok(()),
            Self::DurableStreams(connection) => durable_streams::create(connection, messages, topics).await,
        }
    }

    /// Publishes one after the other for a time, and returns how long each took, in nanoseconds.
    pub async fn publish_singly(
        &mut self,
        messages: &Messages,
        first: u64,
        time: Duration,
    ) -> Result<Vec<i64>> {
        let end = Instant::now() + time;
        match self {
            Self::Perennial(grpc) => ours::publish_singly(grpc, messages, first, end).await,
            Self::Nats(connection) => nats::publish_singly(connection, messages, first, end).await,
            Self::DurableStreams(connection) => {
                durable_streams::publish_singly(connection, messages, first, end).await
            }
        }
    }

    pub fn into_reader(self) -> Reader {
        match self {
            Self::Perennial(grpc) => Reader::Perennial(grpc),
            Self::Nats(connection) => Reader::Nats(Consumers::new(connection)),
            Self::DurableStreams(connection) => Reader::DurableStreams(connection),
        }
    }
}

/// A client that reads again what there is.
pub enum Reader {
    Perennial(Grpc<Channel>),
    Nats(Consumers),
    DurableStreams(durable_streams::Connection),
}

impl Reader {
    /// Reads all that matches, and returns how many messages came, each after the one before.
    pub async fn replay(&mut self, pattern: &str) -> Result<u64> {
        match self {
            Self::Perennial(grpc) => ours::replay(grpc, pattern).await,
            Self::Nats(consumers) => consumers.replay(pattern).await,
            Self::DurableStreams(connection) => durable_streams::replay(connection).await,
        }
    }
}
