//! The connection to the cluster, and the stream there.
//!
//! A stream that does not exist is created. One that exists is used only if it loses nothing by itself: limits that remove
//! messages, acknowledgements before a message is stored, and settings with known faults are refused by name.

use std::time::Duration;

use async_nats::{
    Client, ConnectOptions, HeaderMap,
    jetstream::{
        self, Context, ErrorCode,
        context::{ContextBuilder, CreateStreamError, CreateStreamErrorKind},
        message::PublishMessage,
        stream::{Compression, Config, DiscardPolicy, Info, PersistenceMode, RetentionPolicy, StorageType},
    },
};
use tokio::time::Instant;

use super::{
    address::{Address, Credentials},
    native::Subjects,
};
use crate::messages::{Durability, Error};

/// An operation is repeated for this long while the cluster does not answer: several times as long as it needs to choose
/// another leader, which is 4 to 9 s.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The pause before the cluster is asked again.
pub const PAUSE: Duration = Duration::from_millis(250);

/// How long one try of a request may take.
const TRY: Duration = Duration::from_secs(3);

/// A connection whose server does not answer two pings is given up.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// The longest pause between two tries to connect again.
const RECONNECT: Duration = Duration::from_secs(1);

/// The most publishes that wait for their acknowledgement.
pub const MAX_IN_FLIGHT: usize = 4_096;

/// Messages of a subscription of NATS that wait to be read; one above it would be dropped.
const SUBSCRIPTION_CAPACITY: usize = 65_536;

/// The oldest nats-server that is used: older ones lose messages that were acknowledged.
const MIN_VERSION: [u64; 3] = [2, 15, 3];

/// The time for which JetStream knows the ids of messages.
pub const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// The copies of each message in a stream that is created.
const REPLICAS: usize = 3;

/// How long the stream keeps a mark.
const MARK_TTL: &str = "60s";

/// Why the cluster cannot be used. The message is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No server can be reached, or none takes the credentials.
    #[error("no server of {address} can be used: {fault}")]
    Connect {
        /// The servers.
        address: String,
        /// The error of the client.
        fault: String,
    },
    /// A file of the credentials cannot be read.
    #[error("--messages-credentials: {0}")]
    Credentials(std::io::Error),
    /// The server is older than the first that is used.
    #[error(
        "nats-server {version} is older than 2.15.3: older versions lose acknowledged messages where their file store is \
         compacted or repaired (#8456, #8475, #8490): upgrade every server of the cluster"
    )]
    Version {
        /// The version of the server.
        version: String,
    },
    /// The stream cannot be created.
    #[error("the stream {name} cannot be created: {fault}")]
    Create {
        /// The stream.
        name: String,
        /// The error of the cluster.
        fault: String,
    },
    /// The stream exists, and does not keep what Perennial promises.
    #[error(
        "the stream {name} {fault}: change it, or name another namespace, as in --messages nats://HOST/NAMESPACE"
    )]
    Stream {
        /// The stream.
        name: String,
        /// The first setting that is wrong, and the one that works.
        fault: &'static str,
    },
    /// The cluster does not answer.
    #[error("the cluster does not answer: {0}")]
    Silent(String),
}

/// The connection, and the stream.
#[derive(Debug)]
pub struct Cluster {
    pub client: Client,
    pub context: Context,
    /// The name of the stream.
    pub name: String,
    pub subjects: Subjects,
    /// The identity of the stream: another one after it was deleted and created again.
    pub id: [u8; 16],
    /// What an acknowledgement guarantees.
    pub durability: Durability,
}

impl Cluster {
    /// Connects, and opens or creates the stream.
    pub async fn connect(address: &Address, credentials: &Credentials) -> Result<Self, ConnectError> {
        let options = options(credentials).await?;
        let client = options.connect(address.urls()).await.map_err(|error| ConnectError::Connect {
            address: address.to_string(),
            fault: error.to_string(),
        })?;
        let version = client.server_info().version;
        if is_older(&version) {
            return Err(ConnectError::Version { version });
        }
        let context = ContextBuilder::new()
            .timeout(TRY)
            .ack_timeout(TRY)
            .max_ack_inflight(MAX_IN_FLIGHT)
            .backpressure_on_inflight(true)
            .build(client.clone());
        let name = address.namespace().to_owned();
        let subjects = Subjects::new(&name);
        let info = open(&context, &name, &subjects).await?;
        let durability =
            if info.config.num_replicas > 1 { Durability::Replicated } else { Durability::Buffered };
        Ok(Self { client, context, id: identity(&info), name, subjects, durability })
    }

    /// What the leader says of the stream, which may be old if another leader was chosen.
    pub async fn info(&self) -> Result<Info, String> {
        let stream = self.context.get_stream_no_info(&self.name).await.map_err(|error| error.to_string())?;
        stream.get_info().await.map_err(|error| error.to_string())
    }

    /// Publishes a mark: a message of the log's own without content. Every message that was acknowledged before the call
    /// has a lower sequence than it.
    pub async fn mark(&self) -> Result<u64, Error> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-TTL", MARK_TTL);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let mark = PublishMessage::build().headers(headers.clone());
            let sent = self.context.send_publish(self.subjects.mark(), mark).await;
            let acknowledged = match sent {
                Ok(acknowledgement) => acknowledgement.await,
                Err(error) => Err(error),
            };
            match acknowledged {
                Ok(acknowledgement) => return Ok(acknowledgement.sequence),
                Err(error) => tracing::debug!(%error, "a mark is published again"),
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(Error::Unreachable)
    }
}

async fn options(credentials: &Credentials) -> Result<ConnectOptions, ConnectError> {
    let mut options = ConnectOptions::new()
        .name("perenniald")
        .ping_interval(PING_INTERVAL)
        .connection_timeout(CONNECT)
        .request_timeout(Some(TRY))
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .reconnect_delay_callback(|tries| {
            RECONNECT.min(Duration::from_millis(50) * u32::try_from(tries).unwrap_or(20))
        });
    if let Some(authorities) = &credentials.authorities {
        options = options.add_root_certificates(authorities.clone()).require_tls(true);
    }
    if let Some(file) = &credentials.credentials {
        options = options.credentials_file(file).await.map_err(ConnectError::Credentials)?;
    }
    Ok(options)
}

/// Opens the stream, or creates it.
async fn open(context: &Context, name: &str, subjects: &Subjects) -> Result<Info, ConnectError> {
    let create =
        |fault: &dyn std::fmt::Display| ConnectError::Create { name: name.into(), fault: fault.to_string() };
    let info = if let Ok(stream) = context.get_stream(name).await {
        stream.cached_info().clone()
    } else {
        let created = match context.create_stream(config(name, subjects, REPLICAS)).await {
            Err(error) if is_alone(&error) => {
                tracing::warn!(
                    "one nats-server without a cluster: each message has one copy, which may be lost with it"
                );
                context.create_stream(config(name, subjects, 1)).await
            }
            created => created,
        };
        created.map_err(|error| create(&error))?.cached_info().clone()
    };
    match fault(&info.config, subjects) {
        Some(fault) => Err(ConnectError::Stream { name: name.into(), fault }),
        None => Ok(info),
    }
}

/// Whether the stream was refused because the server is not part of a cluster.
fn is_alone(error: &CreateStreamError) -> bool {
    matches!(error.kind(), CreateStreamErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED)
}

/// The stream as it is created.
fn config(name: &str, subjects: &Subjects, replicas: usize) -> Config {
    Config {
        name: name.into(),
        subjects: subjects.all().into(),
        description: Some("messages of Perennial".into()),
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        num_replicas: replicas,
        duplicate_window: DUPLICATE_WINDOW,
        allow_direct: true,
        allow_message_ttl: true,
        allow_atomic_publish: true,
        allow_rollup: true,
        ..Config::default()
    }
}

/// The first setting of a stream with which it would not keep what Perennial promises.
fn fault(config: &Config, subjects: &Subjects) -> Option<&'static str> {
    let has_subjects = subjects.all().iter().all(|subject| config.subjects.contains(subject));
    let is_limited = config.max_messages > 0 || config.max_bytes > 0;
    let is_compressed =
        config.compression.as_ref().is_some_and(|compression| *compression != Compression::None);
    let checks = [
        (has_subjects, "does not have the subjects NAMESPACE.> and NAMESPACE-own.>"),
        (
            config.retention == RetentionPolicy::Limits,
            "removes messages that were read: set `retention` to `limits`",
        ),
        (config.max_age.is_zero(), "removes messages by their age: unset `max_age`"),
        (config.max_messages_per_subject <= 0, "removes messages of a subject: unset `max_msgs_per_subject`"),
        (
            !is_limited || config.discard == DiscardPolicy::New,
            "removes old messages when it is full: set `discard` to `new`",
        ),
        (config.storage == StorageType::File, "is in memory: set `storage` to `file`"),
        (!config.no_ack, "acknowledges no message: unset `no_ack`"),
        (
            config.persist_mode.as_ref().is_none_or(|mode| *mode == PersistenceMode::Default),
            "acknowledges messages before they are stored: unset `persist_mode`",
        ),
        (!is_compressed, "is compressed, which nats-server has corrupted (#8312): unset `compression`"),
        (
            config.mirror.is_none() && config.sources.is_none(),
            "is fed by another stream: unset `mirror` and `sources`",
        ),
        (config.subject_transform.is_none(), "changes subjects: unset `subject_transform`"),
        (!config.sealed, "is sealed"),
        (config.allow_direct, "cannot be read by direct get: set `allow_direct`"),
        (config.allow_message_ttl, "does not let messages expire: set `allow_msg_ttl`"),
        (config.allow_rollup, "keeps every state of consumers: set `allow_rollup_hdrs`"),
        (config.allow_atomic_publish, "takes no batches: set `allow_atomic`"),
        (
            config.duplicate_window >= DUPLICATE_WINDOW,
            "forgets ids too early: set `duplicate_window` to 2m or more",
        ),
    ];
    checks.into_iter().find(|(is_right, _)| !is_right).map(|(_, fault)| fault)
}

/// The identity of a stream: of its name, and of the time at which it was created, which a backup keeps.
pub fn identity(info: &Info) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(info.config.name.as_bytes());
    hasher.update(&info.created.unix_timestamp_nanos().to_le_bytes());
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    id
}

/// Whether a version such as 2.15.3 or 2.16.0-dev is older than [`MIN_VERSION`].
fn is_older(version: &str) -> bool {
    let numbers = version.split(['.', '-']).map_while(|number| number.parse::<u64>().ok()).take(3);
    numbers.collect::<Vec<_>>().as_slice() < MIN_VERSION.as_slice()
}

/// The error of JetStream that an error of its client is about.
pub fn api_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a jetstream::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(of) = error.downcast_ref() {
            return Some(of);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_server_is_refused() {
        for version in ["2.10.9", "2.15.2", "2.9.15", "1.4.1", "x"] {
            assert!(is_older(version), "{version}");
        }
        for version in ["2.15.3", "2.15.10", "2.16.0-dev", "3.0.0"] {
            assert!(!is_older(version), "{version}");
        }
    }

    #[test]
    fn a_stream_that_would_lose_messages_is_refused() {
        let subjects = Subjects::new("shop");
        let good = || config("shop", &subjects, 3);
        assert_eq!(fault(&good(), &subjects), None);
        let bad = [
            Config { max_age: Duration::from_secs(1), ..good() },
            Config { max_bytes: 1, discard: DiscardPolicy::Old, ..good() },
            Config { max_messages_per_subject: 1, ..good() },
            Config { retention: RetentionPolicy::Interest, ..good() },
            Config { storage: StorageType::Memory, ..good() },
            Config { compression: Some(Compression::S2), ..good() },
            Config { persist_mode: Some(PersistenceMode::Async), ..good() },
            Config { subjects: vec!["shop.>".into()], ..good() },
            Config { duplicate_window: Duration::from_secs(1), ..good() },
        ];
        for config in bad {
            assert!(fault(&config, &subjects).is_some(), "{config:?}");
        }
    }
}
