//! Readers of the whole history that wait for the log.

use std::time::Duration;

use perennial::lines::{Error, Query, Start};

use super::{gaps, gzip, lines, numbers};
use crate::bed::{Bed, LOG, follow, query_of};

#[tokio::test]
async fn a_reader_that_waits_for_a_log_first_reads_the_generations_that_are_there() {
    for bed in Bed::both() {
        let waits = Query { history: true, wait_for_create: true, ..follow(Start::Head) };
        let mut from_nothing = bed.open(waits.clone()).await;
        from_nothing.quiet_for(Duration::from_millis(100)).await;
        bed.append("app.log.2", lines(0..10));
        bed.append("app.log.1", lines(10..20));
        gzip(&bed, "app.log.2");
        let mut reading = bed.open(waits.clone()).await;
        reading.read_until("line 00019").await;
        // Cut while there is no log, and continued.
        let mut resumed = bed.open(Query { start: reading.resume(), ..waits }).await;
        bed.append(LOG, lines(20..30));
        for reading in [&mut reading, &mut resumed, &mut from_nothing] {
            reading.read_until("line 00029").await;
            assert_eq!(gaps(&reading.events), []);
        }
        assert_eq!(reading.texts(), numbers(0..30));
        assert_eq!(resumed.texts(), numbers(20..30));
        assert_eq!(
            from_nothing.texts(),
            numbers(20..30),
            "lines that were rotated away before are not its lines"
        );
        let missing = Query { history: true, ..query_of("none", Start::Head) };
        assert!(matches!(bed.try_open(missing).await.err(), Some(Error::NotFound { .. })));
    }
}
