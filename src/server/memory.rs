//! Memory that goes back to the system after many readers have gone.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{blocking::Pool, grpc::call::Calls, system};

/// Fewer streams than this leave little behind: about 4 MiB of idle ones, and some 100 MiB of stalled ones.
const MANY_STREAMS: u64 = 1_000;

/// The pause between two looks: an allocation may wait for some milliseconds each time.
const PAUSE: Duration = Duration::from_secs(10);

/// Gives memory back after many streams have ended, until the server ends.
pub async fn give_back(calls: Calls, pool: Pool, ending: CancellationToken) {
    let mut seen = 0;
    while ending.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_some() {
        let ended = calls.ended();
        if ended - seen < MANY_STREAMS {
            continue;
        }
        seen = ended;
        if pool.run(system::give_back_memory).await.is_err() {
            return;
        }
    }
}
