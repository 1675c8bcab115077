//! The options of `perennial bench`.

use clap::{Args, Subcommand};
use perennial::client::Client;

/// What every message begins with: whose it is, its number, and when it was made.
pub const MIN_SIZE: usize = 32;

#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Publish: how many a second, and how long an acknowledgement takes
    Pub(Load),
    /// Read what is there: how many a second
    Sub(Replay),
    /// Publish to subscribers that wait: how many deliveries a second, how old they are, and whether any is lost
    Pubsub(Fanout),
}

/// What is published.
#[derive(Args, Clone, Debug)]
pub struct Load {
    /// How many messages
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub messages: u64,
    /// The bytes of a message's payload, 32 at least
    #[arg(long, value_name = "B", default_value_t = 256, value_parser = size)]
    pub size: usize,
    /// To so many topics in turn: bench.0, bench.1, …
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub topics: u64,
    /// By so many publishers, each over a connection of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub publishers: u16,
    /// Leave at most N messages of a publisher unanswered
    #[arg(long, value_name = "N", default_value_t = 1_000, conflicts_with = "unary")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub in_flight: u32,
    /// Make a call for each message, and the next one when it is answered
    #[arg(long)]
    pub unary: bool,
    /// Publish N messages a second in all [default: as many as possible]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// Purge the topics afterwards
    #[arg(long)]
    pub purge: bool,
}

/// What is read.
#[derive(Args, Clone, Debug)]
pub struct Replay {
    /// The topics to read: all, or bench.7
    #[arg(default_value = ">")]
    pub pattern: String,
    #[command(flatten)]
    pub readers: Readers,
}

/// What is published, and to whom.
#[derive(Args, Clone, Debug)]
pub struct Fanout {
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub readers: Readers,
}

/// Who reads.
#[derive(Args, Clone, Copy, Debug)]
pub struct Readers {
    /// By so many subscribers, each of which gets all
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub subscribers: u32,
    /// Over so many connections; a server takes 256 streams on each by default
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: u16,
}

impl Readers {
    /// Their connections.
    pub fn connect(self, client: &Client) -> Vec<Client> {
        (0..self.connections).map(|_| client.apart()).collect()
    }
}

fn size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size) if size >= MIN_SIZE => Ok(size),
        _ => Err(format!("not a size in bytes of {MIN_SIZE} or more")),
    }
}
