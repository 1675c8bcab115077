//! Servers of NATS that end, and streams that are not what they were.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server"]
async fn publishers_and_readers_only_pause_while_the_leader_of_the_stream_is_killed() {
    let mut bed = Bed::make(|_| ()).await;
    let mut reader = subscribe(&bed.log, live(&["a"], Start::New)).await.unwrap();
    next(&mut reader).await.unwrap();
    let publisher = tokio::spawn({
        let log = bed.log.clone();
        async move {
            for n in 0..400 {
                publish(&log, "a", &n.to_string()).await;
            }
        }
    });
    let expected = (0..400).map(|n| n.to_string()).collect::<Vec<_>>();
    let mut seen = until_text(&mut reader, "49").await;
    for last in ["99", "199"] {
        let leader = bed.server.leader("test").await;
        bed.server.kill(leader);
        seen.extend(until_text(&mut reader, last).await);
        bed.server.start_node(leader);
    }
    seen.extend(until_text(&mut reader, "399").await);
    publisher.await.unwrap();
    assert!(seen == expected);
    assert!(texts(&bed.log, query(&["a"], Start::Earliest)).await == expected);
}

#[tokio::test]
#[ignore = "needs nats-server"]
async fn a_stream_that_was_deleted_and_created_again_is_another_log() {
    let mut bed = Bed::make(|_| ()).await;
    publish(&bed.log, "a", "1").await;
    let mut batches = subscribe(&bed.log, query(&["a"], Start::Earliest)).await.unwrap();
    let position = next(&mut batches).await.unwrap().position;
    let mut reader = subscribe(&bed.log, live(&["a"], Start::New)).await.unwrap();
    next(&mut reader).await.unwrap();
    bed.server.client().await.delete_stream("test").await.unwrap();
    let other = bed.server.log(Config::default()).await;
    publish(&other, "a", "2").await;
    let end = async {
        loop {
            if let Some(Err(error)) = reader.next().await {
                return error;
            }
        }
    };
    let error = tokio::time::timeout(PATIENCE, end).await.expect("the stream ends");
    assert!(matches!(error, Error::OtherLog), "{error}");
    assert!(matches!(bed.log.publish(text("a", "3")).await, Err(Error::Failed)));
    bed.reopen().await;
    let resumed = subscribe(&bed.log, query(&["a"], Start::Resume(position))).await;
    assert!(matches!(resumed.err(), Some(Error::OtherLog)));
    assert_eq!(texts(&bed.log, query(&["a"], Start::Earliest)).await, ["2"]);
}

#[tokio::test]
#[ignore = "needs nats-server"]
async fn a_position_ahead_of_the_stream_is_one_of_another_history() {
    let bed = Bed::make(|_| ()).await;
    publish(&bed.log, "a", "1").await;
    let mut batches = subscribe(&bed.log, query(&["a"], Start::Earliest)).await.unwrap();
    let position = next(&mut batches).await.unwrap().position;
    let ahead = Position { delivered_up_to: 1_000, ..position };
    let refused = subscribe(&bed.log, query(&["a"], Start::Resume(ahead))).await.err();
    assert!(matches!(refused, Some(Error::Diverged(_))), "{refused:?}");
}
