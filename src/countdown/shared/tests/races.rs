//! Changes that come at once: the log decides, and whoever came too late is told.

use futures::future::join_all;

use super::*;

#[tokio::test]
async fn of_changes_of_one_version_one_is_made() {
    let house = House::new().await;
    let created = house.create("launch", seconds(60)).await;
    let extend = |n: i128| house.countdowns.extend("launch", Some(created.version), n * SECOND);
    let results = limited(join_all((1..=50).map(extend))).await;
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    let won = won.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(won.len(), 1);
    for error in lost {
        let Err(Error::VersionMismatch { expected, current }) = error else { panic!("{error:?}") };
        assert_eq!((expected, current), (created.version, won[0].version));
    }
    assert_eq!(house.countdowns.get("launch").unwrap().record, won[0].record);
}

#[tokio::test]
async fn without_a_version_every_change_is_made() {
    let house = House::new().await;
    house.create("launch", seconds(60)).await;
    let extend = |_| house.countdowns.extend("launch", None, SECOND);
    let results = limited(join_all((0..50).map(extend))).await;
    assert!(results.iter().all(Result::is_ok));
    let total = house.countdowns.get("launch").unwrap().record.total_nanos;
    assert_eq!(total, 110_000_000_000);
}

#[tokio::test]
async fn pausing_and_cancelling_twice_at_once_is_done_once() {
    let house = House::new().await;
    house.create("launch", seconds(60)).await;
    for is_pause in [true, false] {
        let change = |_| async {
            if is_pause {
                house.countdowns.pause("launch", None).await
            } else {
                house.countdowns.cancel("launch", None).await
            }
        };
        let results = limited(join_all((0..20).map(change))).await;
        let versions = results.into_iter().map(|result| result.unwrap().version);
        assert_eq!(versions.collect::<std::collections::HashSet<_>>().len(), 1);
    }
}

#[tokio::test]
async fn of_many_that_create_one_name_one_does() {
    let house = House::new().await;
    let create = |n: u64| house.countdowns.create("launch", seconds(n + 1));
    let results = limited(join_all((0..20).map(create))).await;
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    assert!(lost.iter().all(|error| matches!(error, Err(Error::Exists))), "{lost:?}");
    // And of one request, sent again and again, all get the one that it made.
    let spec = || Spec { request_id: Some("r".into()), ..seconds(60) };
    let results = limited(join_all((0..20).map(|_| house.countdowns.create("other", spec())))).await;
    let ids = results.iter().map(|result| result.as_ref().unwrap().0.record.id);
    assert_eq!(ids.collect::<std::collections::HashSet<_>>().len(), 1);
    assert_eq!(results.iter().filter(|result| !result.as_ref().unwrap().1).count(), 1);
}

/// Whatever happens around the end: either it came first, and the change is refused, or the change did, and nothing is
/// published before the new end.
#[tokio::test]
async fn at_the_end_a_change_comes_before_it_or_is_refused() {
    let house = House::new().await;
    let mut published = 0;
    for n in 0..40 {
        let name = format!("n{n}");
        house.create(&name, ending(seconds(100), &name)).await;
        // So close to the end that it comes while the change is on its way.
        house.clock.step(100 * SECOND - 2_000_000 - i128::from(n) * 20_000);
        let change = house.countdowns.extend(&name, None, 50 * SECOND);
        let cancels = n % 3 == 0;
        let result = if cancels {
            house.clock.step(1_900_000);
            limited(house.countdowns.cancel(&name, None)).await
        } else {
            let (result, ()) =
                limited(futures::future::join(change, async { house.clock.step(1_900_000) })).await;
            result
        };
        house.clock.step(SECOND);
        match result {
            Err(Error::Over { is_cancelled: false }) => {
                house.has_ended(&name).await;
                published += 1;
            }
            Ok(snapshot) => {
                assert!(snapshot.record.change == if cancels { Change::Cancelled } else { Change::Extended });
                if !cancels {
                    assert_eq!(house.countdowns.get(&name).unwrap().version, snapshot.version);
                    house.clock.step(50 * SECOND);
                    house.has_ended(&name).await;
                    published += 1;
                }
            }
            Err(error) => panic!("{error:?}"),
        }
        assert_eq!(house.published("ends").await.len(), published, "{name}");
    }
}
