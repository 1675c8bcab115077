//! The options of `perennial bench`.

use clap::{Args, Subcommand};
use perennial::{client::Client, units};

/// The size of the head of each message: its run, its publisher, its number, and the time at which it was made.
pub const MIN_SIZE: usize = 32;

#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Publish, and measure the rate and the time until the acknowledgement
    Pub(Load),
    /// Read the messages that exist, and measure the rate
    Sub(Replay),
    /// Publish to waiting subscribers, and measure the rate, the age of the messages, and losses
    Pubsub(Fanout),
}

/// The messages to publish.
#[derive(Args, Clone, Debug)]
pub struct Load {
    /// The number of messages
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub messages: u64,
    /// The size of a payload, at least 32 bytes: 256, 4KiB
    #[arg(long, value_name = "SIZE", default_value_t = 256, value_parser = size)]
    pub size: usize,
    /// The number of topics, used in turn: bench.0, bench.1, …
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub topics: u64,
    /// The number of publishers, each with its own connection
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub publishers: u16,
    /// The most unanswered messages of a publisher
    #[arg(long, value_name = "N", default_value_t = 1_000, conflicts_with = "unary")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub in_flight: u32,
    /// Make one call per message, each after the answer to the one before
    #[arg(long)]
    pub unary: bool,
    /// The number of messages per second, of all publishers together [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// Purge the topics at the end
    #[arg(long)]
    pub purge: bool,
}

/// The messages to read.
#[derive(Args, Clone, Debug)]
pub struct Replay {
    /// The topics to read: all of them, or one such as bench.7
    #[arg(default_value = ">")]
    pub pattern: String,
    #[command(flatten)]
    pub readers: Readers,
}

/// The messages to publish, and their subscribers.
#[derive(Args, Clone, Debug)]
pub struct Fanout {
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub readers: Readers,
}

/// The subscribers.
#[derive(Args, Clone, Copy, Debug)]
pub struct Readers {
    /// The number of subscribers, each of which gets all messages
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub subscribers: u32,
    /// The number of connections that the subscribers share; a server takes 256 streams on each by default
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: u16,
}

impl Readers {
    /// Opens the connections.
    pub fn connect(self, client: &Client) -> Vec<Client> {
        (0..self.connections).map(|_| client.apart()).collect()
    }
}

fn size(text: &str) -> Result<usize, String> {
    let size = units::parse_size(text).map_err(|error| error.to_string())?;
    let size = usize::try_from(size).ok().filter(|size| *size >= MIN_SIZE);
    size.ok_or_else(|| format!("a payload has {MIN_SIZE} bytes or more"))
}
