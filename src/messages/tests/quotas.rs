//! Quotas of topics: what they count is what the log lists, whatever happens to the messages, and after a restart.

use super::{
    quota::{QuotaUsage, TopicQuota},
    workload::enforce,
    *,
};

fn quota(patterns: &[&str], topics: Option<u64>, bytes: Option<u64>) -> TopicQuota {
    let patterns = patterns.iter().map(|pattern| Pattern::parse(pattern).unwrap()).collect();
    TopicQuota { patterns, topics, bytes }
}

/// What is used is what the list of topics shows.
async fn check(log: &Log) -> Vec<QuotaUsage> {
    let (listed, usages) = loop {
        let before = log.quotas();
        let listed = log.list_topics(None, 1_000, None).await.unwrap().topics;
        // Retention may run meanwhile.
        if log.quotas() == before {
            break (listed, before);
        }
    };
    for QuotaUsage { quota, topics, bytes } in &usages {
        let matching = || listed.iter().filter(|topic| quota.has(&topic.name));
        assert_eq!(*topics, matching().count() as u64, "{quota:?}");
        assert_eq!(*bytes, matching().map(|topic| topic.bytes.unwrap()).sum::<u64>(), "{quota:?}");
    }
    usages
}

#[tokio::test]
async fn a_topic_beyond_a_quota_is_refused_and_one_that_exists_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(&directory);
    log.set_quotas(vec![quota(&["a.>", "b"], Some(2), None), quota(&["a.x.>"], Some(1), None)])
        .await
        .unwrap();
    log.publish(text("a.x.1", "")).await.unwrap();
    // Both quotas hold for it, and the error names the one that is used up.
    let refused = log.publish(text("a.x.2", "")).await.unwrap_err();
    assert!(matches!(&refused, Error::TopicQuota { quota, limit: 1 } if quota == "a.x.>"), "{refused:?}");
    let refused = log.publish_batch(vec![text("b", ""), text("c", ""), text("a.y", "")]).await.unwrap_err();
    assert!(
        matches!(&refused, BatchError { index: Some(2), error: Error::TopicQuota { quota, limit: 2 } } if quota == "a.> b")
    );
    // Nothing of the batch counts.
    assert_eq!(check(&log).await[0].topics, 1);
    let messages = ["b", "a.y", "b", "a.x.1", "d"].map(|topic| text(topic, "")).to_vec();
    let results = log.publish_each(messages).await.await;
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true, true, true]);
    // A topic that ends leaves room for another one.
    log.purge_topic("b", None).await.unwrap();
    log.publish(text("a.y", "")).await.unwrap();
    log.publish(text("b", "")).await.unwrap_err();
    check(&log).await;
}

#[tokio::test]
async fn bytes_beyond_a_quota_are_refused_until_some_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(&directory);
    log.publish(text("b.12", &"x".repeat(1_000))).await.unwrap();
    let one = log.list_topics(None, 1, None).await.unwrap().topics[0].bytes.unwrap();
    // For two of them, and not for three.
    log.set_quotas(vec![quota(&["a.>"], None, Some(3 * one - 500))]).await.unwrap();
    let message = |topic: &str| text(topic, &"x".repeat(1_000));
    let refused =
        log.publish_batch(vec![message("a.12"), message("a.23"), message("a.34")]).await.unwrap_err();
    // The two before it in the batch count.
    assert!(
        matches!(refused, BatchError { index: Some(2), error: Error::StorageQuota { used, .. } } if used > one)
    );
    log.publish_batch(vec![message("a.12"), message("a.23")]).await.unwrap();
    let refused = log.publish(message("a.12")).await.unwrap_err();
    assert!(matches!(refused, Error::StorageQuota { used, .. } if used > one), "{refused:?}");
    let results = log.publish_each(vec![message("a.12"), text("a.12", "small"), message("c")]).await.await;
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, true]);
    // A restart finds what was used in the log.
    log.close().await;
    drop(log);
    let log = open(&directory);
    assert!(log.quotas().is_empty());
    log.set_quotas(vec![quota(&["a.>"], None, Some(3 * one - 500))]).await.unwrap();
    assert!(check(&log).await[0].bytes > one);
    log.publish(message("a.12")).await.unwrap_err();
    log.purge_topic("a.23", None).await.unwrap();
    log.publish(message("a.12")).await.unwrap();
    // A message that was published before is none that is stored again.
    let id = |id: &str| NewMessage { message_id: Some(id.into()), ..text("a.12", "") };
    log.publish(id("1")).await.unwrap();
    log.set_quotas(vec![quota(&["a.>"], None, Some(1))]).await.unwrap();
    assert!(log.publish(id("1")).await.unwrap().duplicate);
    log.publish(id("2")).await.unwrap_err();
}

#[tokio::test]
async fn a_topic_of_which_only_the_last_message_is_kept_can_be_published_to_at_its_quota() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { retention: vec!["state.>=last".parse().unwrap()], ..config() };
    let log = open_with(&directory, config.clone()).0;
    // The size of a time differs by some bytes.
    let message = |size: usize| text("state.a", &"x".repeat(size));
    log.publish(message(1_000)).await.unwrap();
    let one = log.list_topics(None, 1, None).await.unwrap().topics[0].bytes.unwrap();
    log.set_quotas(vec![quota(&["state.>"], None, Some(one + 50))]).await.unwrap();
    log.publish(message(1_000)).await.unwrap();
    log.publish_batch(vec![message(1_000); 10]).await.unwrap();
    log.publish(message(1_100)).await.unwrap_err();
    log.publish_batch(vec![message(900), message(1_000)]).await.unwrap();
    assert!(check(&log).await[0].bytes.abs_diff(one) < 50);
    // Above a limit that was lowered, what takes no more is published all the same.
    log.set_quotas(vec![quota(&["state.>"], Some(1), Some(10))]).await.unwrap();
    log.publish(message(900)).await.unwrap();
    log.publish(message(100)).await.unwrap();
    log.publish(message(200)).await.unwrap_err();
    check(&log).await;
}

#[tokio::test]
async fn quotas_count_what_the_log_lists_whatever_happens_to_the_messages() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let directory = tempfile::tempdir().unwrap();
    let rules = ["last.>=last", "few.>=count:3", "some.>=bytes:2KiB total:20KiB"];
    let retention = rules.map(|rule| rule.parse().unwrap()).to_vec();
    let config = Config { retention, retention_interval: Duration::from_secs(3_600), ..config() };
    let sets = || {
        [
            vec![quota(&[">"], None, None), quota(&["few.*", "last.>"], Some(1_000), None)],
            vec![quota(&["*.1"], Some(1_000), Some(1 << 30)), quota(&["some.>"], None, Some(1 << 30))],
            vec![quota(&["few.2"], None, None)],
        ]
    };
    let mut log = open_with(&directory, config.clone()).0;
    for round in 0..60 {
        if round % 7 == 0 {
            log.set_quotas(sets()[random.usize(..3)].clone()).await.unwrap();
        }
        let message = |random: &mut fastrand::Rng| {
            let first = ["last", "few", "some", "free"][random.usize(..4)];
            let size = random.usize(..2_000);
            let ttl = (random.u8(..9) == 0).then_some(Duration::from_millis(1));
            NewMessage { ttl, ..text(&format!("{first}.{}", random.u8(..4)), &"x".repeat(size)) }
        };
        let messages = (0..random.usize(1..40)).map(|_| message(&mut random)).collect();
        log.publish_batch(messages).await.unwrap();
        match random.u8(..8) {
            0 | 1 => enforce(&log).await,
            2 => {
                let topic =
                    format!("{}.{}", ["last", "few", "some", "free"][random.usize(..4)], random.u8(..4));
                log.purge_topic(&topic, None).await.ok();
            }
            3 => {
                let quotas = log.quotas().into_iter().map(|usage| usage.quota).collect();
                log.close().await;
                drop(log);
                log = open_with(&directory, config.clone()).0;
                log.set_quotas(quotas).await.unwrap();
            }
            _ => {}
        }
        check(&log).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_that_are_replaced_while_messages_are_published_count_each_topic_once() {
    let log = on(&Arc::default());
    let publisher = {
        let log = log.clone();
        tokio::spawn(async move {
            for round in 0..40 {
                let messages = (0..200).map(|number| text(&format!("t.{}", number * 40 + round), "x"));
                log.publish_batch(messages.collect()).await.unwrap();
            }
        })
    };
    let mut set = 0;
    while !publisher.is_finished() {
        set += 1;
        log.set_quotas(vec![quota(&["t.>"], Some(100_000 + set), None), quota(&[">"], None, None)])
            .await
            .unwrap();
    }
    publisher.await.unwrap();
    assert!(log.quotas().iter().all(|usage| usage.topics == 8_000), "{:?}", log.quotas());
}
