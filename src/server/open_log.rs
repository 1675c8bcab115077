//! Opens the log: in the data directory, or in a cluster.

use super::{Config, Error, data::DataDirectory};
use crate::messages::{self, Log};

/// Opens the log that the settings name.
#[cfg_attr(
    not(feature = "jetstream"),
    expect(clippy::unused_async, reason = "only a cluster is opened over a network")
)]
pub async fn open(config: &Config, data: &mut DataDirectory) -> Result<Log, Error> {
    #[cfg(feature = "jetstream")]
    if let Some(servers) = &config.cluster {
        let log = Log::connect(servers, config.messages.clone()).await?;
        tracing::info!(cluster = %servers.address, durability = ?log.durability(), "the log is open");
        for messages::Difference { what, verdict, how } in messages::DIFFERENCES {
            tracing::info!(what, %verdict, how, "not as in the embedded log");
        }
        return Ok(log);
    }
    let (log, opened) = Log::open(&data.create_log()?, config.messages.clone())?;
    log_opened(&opened);
    Ok(log)
}

fn log_opened(opened: &messages::Opened) {
    let messages::Opened { messages, segments, torn, damaged, upgraded } = opened;
    if *upgraded > 0 {
        tracing::info!(segments = upgraded, "the log had version 1 of the format and was upgraded");
    }
    tracing::info!(messages, segments, "the log is open");
    for (path, bytes) in torn {
        tracing::warn!(bytes, path = %path.display(), "an incomplete write at the end of the log was set aside; its messages were never acknowledged");
    }
    for place in damaged {
        tracing::error!(
            place,
            "the log is damaged: readers get a gap event for what cannot be read, and everything else"
        );
    }
}
