//! A control beside latencies: how old a message is when a client of this process reads it, if all that lies between is a
//! socket. The writer is a task of this process too. What a server adds is the difference.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::{Result, measure::now};

/// The name of its row.
pub const NAME: &str = "control: only a socket";

/// The time between two messages.
const PACE: Duration = Duration::from_millis(10);

/// A running control.
pub struct Control {
    writer: JoinHandle<Result<()>>,
    reader: JoinHandle<Vec<i64>>,
}

impl Control {
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut input = TcpStream::connect(listener.local_addr()?).await?;
        let (mut output, _) = listener.accept().await?;
        output.set_nodelay(true)?;
        let writer = tokio::spawn(async move {
            let mut timer = interval(PACE);
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                timer.tick().await;
                output.write_i64(now()).await?;
            }
        });
        let reader = tokio::spawn(async move {
            let mut ages = Vec::new();
            while let Ok(sent) = input.read_i64().await {
                ages.push(now() - sent);
            }
            ages
        });
        Ok(Self { writer, reader })
    }

    /// Ends it, and returns the ages in nanoseconds, sorted.
    pub async fn stop(self) -> Result<Vec<i64>> {
        self.writer.abort();
        let mut ages = self.reader.await?;
        ages.sort_unstable();
        Ok(ages)
    }
}
