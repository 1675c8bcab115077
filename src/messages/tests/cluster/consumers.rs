//! Consumers, at several servers.

use super::*;

fn reading(consumer: &str, query: Query) -> Query {
    Query { consumer: Some(consumer.into()), ..query }
}

/// Waits until a consumer is connected, or is not, as a server sees it.
async fn is_connected(log: &Log, consumer: &str, expected: bool) {
    let becomes = async {
        while log.consumer(consumer).await.unwrap().unwrap().is_connected != expected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, becomes).await.expect("the other server hears of it");
}

#[tokio::test]
#[ignore = "needs nats-server"]
async fn a_consumer_goes_on_at_another_server_and_its_reader_is_the_only_one_of_all_servers() {
    let bed = Bed::make(|_| ()).await;
    let other = bed.server.log(Config::default()).await;
    let mut reader = subscribe(&bed.log, reading("c", live(&["a"], Start::New))).await.unwrap();
    next(&mut reader).await.unwrap();
    publish(&other, "a", "1").await;
    let batch = loop {
        let batch = next(&mut reader).await.unwrap();
        if !batch.items.is_empty() {
            break batch;
        }
    };
    bed.log.commit_cursor("c", batch.position, false).await.unwrap();
    assert!(other.consumer("c").await.unwrap().unwrap().is_connected);
    let refused = other.set_consumer("c", Start::Earliest).await;
    assert!(matches!(refused, Err(Error::ConsumerConnected)), "{refused:?}");
    publish(&bed.log, "a", "2").await;
    let mut second = subscribe(&other, reading("c", live(&["a"], Start::Earliest))).await.unwrap();
    assert_eq!(until_text(&mut second, "2").await, ["2"]);
    let end = async {
        loop {
            if let Err(error) = reader.next().await.unwrap() {
                return error;
            }
        }
    };
    let ended = tokio::time::timeout(PATIENCE, end).await.expect("the first reader ends");
    assert!(matches!(ended, Error::TakenOver { .. }), "{ended}");
    drop(reader);
    is_connected(&bed.log, "c", true).await;
    drop(second);
    is_connected(&bed.log, "c", false).await;
    bed.log.set_consumer("c", Start::Earliest).await.unwrap();
    let again = reading("c", query(&["a"], Start::New));
    assert_eq!(texts(&other, again).await, ["1", "2"]);
    other.delete_consumer("c").await.unwrap();
    assert!(bed.log.consumer("c").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server"]
async fn of_many_subscriptions_at_several_servers_one_keeps_the_consumer() {
    let bed = Bed::make(|_| ()).await;
    let other = bed.server.log(Config::default()).await;
    let readers = (0..10).map(|n| {
        let log = [&bed.log, &other][n % 2].clone();
        tokio::spawn(async move {
            let mut reader = subscribe(&log, reading("c", live(&["a"], Start::Earliest))).await?;
            loop {
                let batch = reader.next().await.expect("it ends by an error only")?;
                if decode(&batch).iter().any(|message| text_of(message) == "last") {
                    return Ok::<_, Error>(reader);
                }
            }
        })
    });
    let mut readers = readers.collect::<futures::stream::FuturesUnordered<_>>();
    for n in 1..10 {
        let ended = tokio::time::timeout(PATIENCE, readers.next()).await.expect("all but one end");
        let ended = ended.unwrap().unwrap();
        assert!(matches!(ended, Err(Error::TakenOver { .. })), "reader {n}");
    }
    publish(&bed.log, "a", "last").await;
    assert!(readers.next().await.unwrap().unwrap().is_ok(), "the last one reads on");
}
