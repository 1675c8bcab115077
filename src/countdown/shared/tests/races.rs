//! Concurrent changes: the log decides which one succeeds, and the others get an error.

use futures::future::join_all;

use super::*;

#[tokio::test]
async fn of_concurrent_changes_of_one_version_one_succeeds() {
    let server = Server::new().await;
    let created = server.create("launch", seconds(60)).await;
    let extend = |n: i128| server.countdowns.extend("launch", Some(created.version), n * SECOND);
    let results = limited(join_all((1..=50).map(extend))).await;
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    let won = won.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(won.len(), 1);
    for error in lost {
        let Err(Error::VersionMismatch { expected, current }) = error else { panic!("{error:?}") };
        assert_eq!((expected, current), (created.version, won[0].version));
    }
    assert_eq!(server.countdowns.get("launch").await.unwrap().record, won[0].record);
}

#[tokio::test]
async fn without_a_version_every_concurrent_change_succeeds() {
    let server = Server::new().await;
    server.create("launch", seconds(60)).await;
    let extend = |_| server.countdowns.extend("launch", None, SECOND);
    let results = limited(join_all((0..50).map(extend))).await;
    assert!(results.iter().all(Result::is_ok));
    let total = server.countdowns.get("launch").await.unwrap().record.total;
    assert_eq!(Duration::from(total), Duration::from_secs(110));
}

#[tokio::test]
async fn concurrent_pauses_or_cancellations_are_recorded_once() {
    let server = Server::new().await;
    server.create("launch", seconds(60)).await;
    for is_pause in [true, false] {
        let change = |_| async {
            if is_pause {
                server.countdowns.pause("launch", None).await
            } else {
                server.countdowns.cancel("launch", None).await
            }
        };
        let results = limited(join_all((0..20).map(change))).await;
        let versions = results.into_iter().map(|result| result.unwrap().version);
        assert_eq!(versions.collect::<std::collections::HashSet<_>>().len(), 1);
    }
}

#[tokio::test]
async fn of_many_concurrent_requests_one_creates_a_name() {
    let server = Server::new().await;
    let create = |n: u64| server.countdowns.create("launch", seconds(n + 1));
    let results = limited(join_all((0..20).map(create))).await;
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    assert!(lost.iter().all(|error| matches!(error, Err(Error::Exists))), "{lost:?}");
    // One request that is sent many times gets the same countdown each time.
    let spec = || Spec { request_id: Some("r".into()), ..seconds(60) };
    let results = limited(join_all((0..20).map(|_| server.countdowns.create("other", spec())))).await;
    let ids = results.iter().map(|result| result.as_ref().unwrap().0.record.id);
    assert_eq!(ids.collect::<std::collections::HashSet<_>>().len(), 1);
    assert_eq!(results.iter().filter(|result| !result.as_ref().unwrap().1).count(), 1);
}

/// If the end comes first, the change is refused. If the change comes first, no message is published before the new
/// end.
#[tokio::test]
async fn a_change_close_to_the_end_comes_before_it_or_is_refused() {
    let server = Server::new().await;
    let mut published = 0;
    for n in 0..40 {
        let name = format!("n{n}");
        server.create(&name, ending(seconds(100), &name)).await;
        // The end is so close that it comes while the change is being written.
        server.clock.step(100 * SECOND - Nanos::new(2_000_000 + i128::from(n) * 20_000));
        let change = server.countdowns.extend(&name, None, 50 * SECOND);
        let cancels = n % 3 == 0;
        let result = if cancels {
            server.clock.step(Nanos::new(1_900_000));
            limited(server.countdowns.cancel(&name, None)).await
        } else {
            let (result, ()) =
                limited(futures::future::join(change, async { server.clock.step(Nanos::new(1_900_000)) }))
                    .await;
            result
        };
        server.clock.step(SECOND);
        match result {
            Err(Error::Over { is_cancelled: false }) => {
                server.has_ended(&name).await;
                published += 1;
            }
            Ok(snapshot) => {
                assert!(snapshot.record.change == if cancels { Change::Cancelled } else { Change::Extended });
                if !cancels {
                    assert_eq!(server.countdowns.get(&name).await.unwrap().version, snapshot.version);
                    server.clock.step(50 * SECOND);
                    server.has_ended(&name).await;
                    published += 1;
                }
            }
            Err(error) => panic!("{error:?}"),
        }
        assert_eq!(server.published("ends").await.len(), published, "{name}");
    }
}
