//! Start and open: where a stream begins, and files that are not there yet.

use perennial::lines::Start;

use crate::bed::{Bed, follow};

#[tokio::test]
async fn case_9_the_first_batch_leaves_before_the_stream_waits() {
    for bed in Bed::both() {
        bed.append("app.log", "");
        let mut reading = bed.open(follow(Start::Head)).await;
        let first = reading.batch().await.unwrap();
        assert!(first.count == 0 && first.caught_up);
        bed.append("app.log", "1\n");
        reading.read_until("1").await;
    }
}
