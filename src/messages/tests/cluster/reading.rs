//! Reading: starts, stops and cursors, at one server and at another one.

use super::*;

#[tokio::test]
#[ignore = "needs nats-server"]
async fn each_start_and_stop_is_where_it_says() {
    let mut bed = Bed::make(|_| ()).await;
    let (mut times, mut sequences) = (Vec::new(), Vec::new());
    for (topic, content) in [("a", "1"), ("b", "2"), ("a", "3"), ("c.d", "4"), ("a", "5")] {
        let published = bed.log.publish(text(topic, content)).await.unwrap();
        times.push(published.time);
        sequences.push(published.sequence.get());
    }
    let (all, moment): (&[&str], _) = (&[">"], Duration::from_nanos(1));
    for _ in 0..2 {
        for (topics, start, expected) in [
            (all, Start::New, &[][..]),
            (all, Start::Earliest, &["1", "2", "3", "4", "5"][..]),
            (&["a"], Start::Earliest, &["1", "3", "5"]),
            (all, from_sequence(1), &["1", "2", "3", "4", "5"]),
            (all, from_sequence(sequences[3]), &["4", "5"]),
            (all, from_sequence(sequences[4] + 100), &[]),
            (all, Start::Time(times[2]), &["3", "4", "5"]),
            (all, Start::Time(times[2] + moment), &["4", "5"]),
            (&["a"], Start::Time(times[1]), &["3", "5"]),
            (all, Start::Time(times[4] + moment), &[]),
            (all, Start::Time(SystemTime::UNIX_EPOCH), &["1", "2", "3", "4", "5"]),
            (all, Start::Time(SystemTime::now() + Duration::from_secs(600)), &[]),
            (all, Start::LastPerTopic, &["2", "4", "5"]),
            (&["*"], Start::LastPerTopic, &["2", "5"]),
        ] {
            let seen = texts(&bed.log, query(topics, start.clone())).await;
            assert_eq!(seen, expected, "{topics:?} {start:?}");
        }
        let after = |sequence| Stop { sequence: Sequence::new(sequence), ..Stop::default() };
        let before = |time| Stop { time: Some(time), ..Stop::default() };
        for (stop, expected) in [
            (after(sequences[1]), &["1", "2"][..]),
            (before(times[2]), &["1", "2", "3"]),
            (before(times[0] - moment), &[]),
        ] {
            let what = format!("{stop:?}");
            let seen = texts(&bed.log, Query { stop, ..query(all, Start::Earliest) }).await;
            assert_eq!(seen, expected, "{what}");
        }
        bed.reopen().await;
    }
}

#[tokio::test]
#[ignore = "needs nats-server"]
async fn what_one_server_has_acknowledged_another_one_reads_and_a_cursor_resumes_at_either() {
    let bed = Bed::make(|_| ()).await;
    let other = bed.server.log(Config::default()).await;
    let mut start = Start::Earliest;
    for n in 0..50 {
        publish(&bed.log, "a", &n.to_string()).await;
        let log = if n % 2 == 0 { &other } else { &bed.log };
        let mut batches = subscribe(log, query(&["a"], start)).await.unwrap();
        let (mut seen, mut position) = (Vec::new(), None);
        while let Some(batch) = next(&mut batches).await {
            seen.extend(decode(&batch).iter().map(text_of));
            position = Some(batch.position);
        }
        assert_eq!(seen, [n.to_string()]);
        start = Start::Resume(position.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server"]
async fn readers_go_from_history_to_live_without_a_gap_while_publishers_run() {
    const COUNT: usize = 3_000;
    let bed = Bed::make(|_| ()).await;
    for n in 0..COUNT / 2 {
        drop(bed.log.publish_each(vec![text("a", &n.to_string())]).await);
    }
    let other = bed.server.log(Config::default()).await;
    let publisher = tokio::spawn({
        let log = bed.log.clone();
        async move {
            for n in COUNT / 2..COUNT {
                publish(&log, "a", &n.to_string()).await;
            }
        }
    });
    let expected = (0..COUNT).map(|n| n.to_string()).collect::<Vec<_>>();
    for max_items in [usize::MAX, 100] {
        let (mut seen, mut start) = (Vec::new(), Start::Earliest);
        let mut logs = [&other, &bed.log].into_iter().cycle();
        while seen.len() < COUNT {
            let batching = Batching { max_items, ..Batching::default() };
            let query = Query { batching, ..live(&["a"], start.clone()) };
            let mut batches = subscribe(logs.next().unwrap(), query).await.unwrap();
            for _ in 0..20 {
                let batch = next(&mut batches).await.unwrap();
                seen.extend(decode(&batch).iter().map(text_of));
                start = Start::Resume(batch.position);
                if seen.len() >= COUNT {
                    break;
                }
            }
        }
        assert!(seen == expected);
    }
    publisher.await.unwrap();
}
