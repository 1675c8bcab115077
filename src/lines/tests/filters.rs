//! Streams with filters: where they start, what they hold back, and how their cursors move.

use super::*;

fn filtered(include: &[&str], exclude: &[&str], query: Query) -> Query {
    let owned = |patterns: &[&str]| patterns.iter().map(|it| (*it).to_owned()).collect();
    let patterns = Patterns { include: owned(include), exclude: owned(exclude), ..Patterns::default() };
    Query { patterns, ..query }
}

/// A batch with a line, an event, or nothing, once the stream is at the end of the file.
async fn live(batches: &mut Batches) -> Batch {
    loop {
        let batch = next(batches).await.unwrap();
        if batch.progress.caught_up {
            return batch;
        }
    }
}

#[tokio::test]
async fn limits_count_the_lines_that_match_and_numbers_those_of_the_file() {
    let log = Log::new();
    log.append("app.log", &(1..=1000).map(|n| format!("{n} {}\n", n % 10)).collect::<String>());
    let batching = Batching { limit: Some(3), max_items: 2, ..Batching::default() };
    let query = Query { batching, ..query(Start::Line(101)) };
    let mut batches = log.open(filtered(&[" 7$"], &["^1.7 "], query)).await.unwrap();
    let mut lines = Vec::new();
    while let Some(batch) = next(&mut batches).await {
        lines.extend(decode(&batch).into_iter().map(|line| line.number.unwrap()));
    }
    assert_eq!(lines, [207, 217, 227]);
}

#[tokio::test]
async fn a_stream_resumes_at_each_cut_also_with_another_filter() {
    let log = Log::new();
    log.append("app.log", &(1..=200).map(|n| format!("{n} {}\n", n % 7)).collect::<String>());
    let batching = Batching { max_items: 1, ..Batching::default() };
    let all = |start| filtered(&[" 3$"], &[], Query { batching: batching.clone(), ..query(start) });
    let expected = log.all(all(Start::Head)).await;
    assert_eq!(expected.len(), 29);
    let mut batches = log.open(all(Start::Head)).await.unwrap();
    let mut before = Vec::new();
    while let Some(batch) = next(&mut batches).await {
        before.extend(texts(&batch));
        let rest = log.all(all(Start::Resume(batch.position.clone()))).await;
        assert_eq!([before.clone(), rest].concat(), expected);
        let other = filtered(&[" 4$"], &[], query(Start::Resume(batch.position)));
        let last = before.last().map_or(0, |line| line.split(' ').next().unwrap().parse().unwrap());
        let others = (last + 1..=200).filter(|n| n % 7 == 4).map(|n| format!("{n} 4")).collect::<Vec<_>>();
        assert_eq!(log.all(other).await, others);
    }
    assert_eq!(before, expected);
}

#[tokio::test]
async fn a_cursor_moves_through_lines_that_do_not_match_with_each_heartbeat() {
    let log = Log::new();
    log.append("app.log", "one\ntwo\n");
    let batching = Batching { heartbeat: Duration::from_millis(100), ..Batching::default() };
    let follow = Query { batching, ..follow(Start::Head) };
    let mut batches = log.open(filtered(&["match"], &[], follow.clone())).await.unwrap();
    assert_eq!(live(&mut batches).await.progress.next_offset, 8);
    log.append("app.log", "three\n");
    let position = loop {
        let batch = next(&mut batches).await.unwrap();
        assert_eq!(batch.count, 0);
        if batch.progress.next_offset == 14 {
            break batch.position;
        }
    };
    // Those lines are not read again, also with a filter that admits them.
    log.append("app.log", "four\n");
    let query = Query { start: Start::Resume(position), ..query(Start::Head) };
    assert_eq!(log.all(filtered(&[], &["match"], query)).await, ["four"]);
}

#[tokio::test]
async fn an_unfinished_line_is_tested_again_when_it_is_complete() {
    let log = Log::new();
    log.append("app.log", "ERR");
    let flush = Some(Duration::from_millis(20));
    let follow = Query { partial_flush: flush, ..follow(Start::Head) };
    let mut batches = log.open(filtered(&["ERROR"], &[], follow)).await.unwrap();
    live(&mut batches).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    log.append("app.log", "OR 1\nno\n");
    assert_eq!(read_to(&mut batches, "ERROR 1").await.0, ["ERROR 1"]);
    log.append("app.log", "an ERROR");
    assert_eq!(read_to(&mut batches, "an ERROR").await.0, ["an ERROR"]);
    log.append("app.log", " 2\nERR");
    assert_eq!(read_to(&mut batches, " 2").await.0, [" 2"]);
    drop(batches);
    // A stream that does not follow leaves it, too, and its cursor stays before it.
    let mut batches = log.open(filtered(&["ERROR"], &[], query(Start::Last(1)))).await.unwrap();
    let mut position = None;
    while let Some(batch) = next(&mut batches).await {
        position = Some(batch.position);
    }
    log.append("app.log", "OR 3\n");
    let rest = query(Start::Resume(position.unwrap()));
    assert_eq!(log.all(filtered(&["ERROR"], &[], rest)).await, ["ERROR 3"]);
}

#[tokio::test]
async fn events_come_also_where_no_line_matches() {
    let log = Log::new();
    log.append("app.log", "1 no\n2 yes\n3 unfin");
    let mut batches = log.open(filtered(&["yes"], &[], follow(Start::Head))).await.unwrap();
    assert_eq!(read_to(&mut batches, "2 yes").await.0, ["2 yes"]);
    std::fs::rename(log.path("app.log"), log.path("app.log.1")).unwrap();
    log.append("app.log", "4 no\n");
    let rotated = loop {
        let batch = next(&mut batches).await.unwrap();
        assert_eq!(batch.count, 0);
        if !batch.events.is_empty() {
            break batch.events;
        }
    };
    assert_eq!(rotated, [Event::Rotated { next_offset: 0 }]);
    // The line is tested whole when its writer completes it in the file that was left.
    log.append("app.log.1", "ished, yes\n");
    let (lines, events) = read_to(&mut batches, "3 unfinished, yes").await;
    assert_eq!((lines.len(), &events[..1]), (1, &[Event::Late { offset: 11 }][..]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn the_last_lines_are_the_last_of_those_that_match(
        lengths in proptest::collection::vec(prop_oneof![
            30 => 0_usize..40, 5 => 900_usize..1100, 1 => 50_000_usize..70_000,
        ], 0..40),
        repeated in prop_oneof![2 => Just(1_usize), 1 => Just(40)],
        every in 1_usize..30,
        count in 0_u64..20,
        has_end: bool,
        delimiter in proptest::option::of(Just("x\n")),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let log = Log::new();
            let lines = lengths.repeat(repeated);
            let line = |(n, length): (usize, &usize)| format!("{}{n}{}x\n", n % every, "-".repeat(*length));
            let mut text = lines.iter().enumerate().map(line).collect::<String>();
            if !has_end {
                text.pop();
                text.pop();
            }
            log.append("app.log", &text);
            let rules = Rules { delimiter: Delimiter::parse(delimiter).unwrap(), ..Rules::default() };
            let of = |start| filtered(&["^0"], &["^01"], Query { rules: rules.clone(), ..query(start) });
            let mut all = Vec::new();
            let mut batches = log.open(of(Start::Head)).await.unwrap();
            while let Some(batch) = next(&mut batches).await {
                all.extend(decode(&batch));
            }
            let starts = all.iter().enumerate().filter(|(_, line)| !line.continued).map(|(n, _)| n);
            let starts = starts.collect::<Vec<_>>();
            let first = starts.len().saturating_sub(usize::try_from(count).unwrap());
            let first = starts.get(first).copied().unwrap_or(all.len());
            let mut last = Vec::new();
            let mut batches = log.open(of(Start::Last(count))).await.unwrap();
            while let Some(batch) = next(&mut batches).await {
                last.extend(decode(&batch));
            }
            let offsets = |lines: &[proto::Line]| lines.iter().map(|line| line.offset).collect::<Vec<_>>();
            prop_assert_eq!(offsets(&last), offsets(&all[first..]));
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_pattern_that_cannot_be_used_is_an_error_before_the_first_batch() {
    let log = Log::new();
    log.append("app.log", "1\n");
    let refused = log.open(filtered(&[], &["a(", "b"], query(Start::Head))).await.err();
    let Some(Error::Pattern { field: "exclude", fault: PatternFault::Syntax { pattern, .. } }) = refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!(pattern, "a(");
}

#[tokio::test]
async fn a_gap_is_reported_with_the_next_line_that_matches_and_without_one() {
    for next_line in ["5 no\n", "5 yes\n"] {
        let log = Log::new();
        log.append("app.log", "1 no\n2 yes\n3 no\n");
        let mut batches = log.open(filtered(&["yes"], &[], follow(Start::Head))).await.unwrap();
        let position = live(&mut batches).await.position;
        drop(batches);
        // The lines that were written meanwhile may have matched.
        log.append("app.log", "4 yes\n");
        std::fs::remove_file(log.path("app.log")).unwrap();
        log.append("app.log", next_line);
        let query = Query { on_gap: OnGap::Skip, ..follow(Start::Resume(position)) };
        let mut batches = log.open(filtered(&["yes"], &[], query)).await.unwrap();
        let (mut lines, mut events) = (Vec::new(), Vec::new());
        loop {
            let batch = next(&mut batches).await.unwrap();
            events.extend(batch.events.clone());
            lines.extend(texts(&batch));
            if batch.progress.caught_up {
                break;
            }
        }
        assert!(events.iter().any(|event| matches!(event, Event::Gap { .. })), "{events:?}");
        assert_eq!(lines.len(), usize::from(next_line.contains("yes")), "{lines:?}");
        log.append("app.log", "6 yes\n");
        read_to(&mut batches, "6 yes").await;
    }
}

#[tokio::test]
async fn a_file_that_does_not_exist_yet_is_filtered_from_its_first_line() {
    let log = Log::new();
    let query = Query { wait_for_create: true, ..follow(Start::Last(1)) };
    let mut batches = log.open(filtered(&["yes"], &[], query)).await.unwrap();
    assert_eq!(next(&mut batches).await.unwrap().count, 0);
    log.append("app.log", "1 no\n2 yes\n3 yes\n");
    let (lines, events) = read_to(&mut batches, "3 yes").await;
    assert_eq!(lines, ["2 yes", "3 yes"]);
    assert!(matches!(events[..], [Event::Opened { .. }]), "{events:?}");
}

/// Patterns whose search is slow in lines of these letters, and a log of such lines, which takes many slices.
fn slow_log(pool: Pool) -> (Log, &'static str) {
    let log = Log::with(Options { pool, ..Options::default() });
    let mut random = 1_u64;
    let mut letter = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if random >> 63 == 0 { 'a' } else { 'b' }
    };
    let block = (0..1000).map(|_| (0..99).map(|_| letter()).chain(['\n']).collect::<String>());
    log.append("slow.log", &block.collect::<String>().repeat(200));
    (log, "a[ab]{20}c")
}

fn slow(pattern: &str, query: Query) -> Query {
    let batching = Batching { heartbeat: Duration::from_millis(20), ..Batching::default() };
    filtered(&[pattern], &[], Query { path: "r/slow.log".into(), batching, ..query })
}

#[tokio::test]
async fn heartbeats_leave_and_the_cursor_moves_during_a_search_that_is_longer() {
    let (log, pattern) = slow_log(Pool::default());
    let mut batches = log.open(slow(pattern, query(Start::Head))).await.unwrap();
    let mut offset = 0;
    let position = loop {
        let batch = next(&mut batches).await.unwrap();
        assert!(batch.count == 0 && batch.progress.next_offset >= offset);
        let moved = batch.progress.next_offset > offset;
        offset = batch.progress.next_offset;
        assert!(offset < batch.progress.size, "the search was over before the third heartbeat");
        if moved && offset > 2 * 64 * 1024 {
            break batch.position;
        }
    };
    // What was searched is not searched again.
    let query = Query { path: "r/slow.log".into(), ..query(Start::Resume(position)) };
    let mut batches = log.open(query).await.unwrap();
    let first = loop {
        let batch = next(&mut batches).await.unwrap();
        if let Some(line) = decode(&batch).first() {
            break line.offset.unwrap();
        }
    };
    assert_eq!(first, offset.cast_signed());
}

#[tokio::test]
async fn a_slow_search_leaves_its_only_thread_to_others_and_ends_when_its_caller_is_gone() {
    let (log, pattern) = slow_log(Pool::new(1));
    log.append("app.log", "1 no\n2 yes\n");
    let mut batches = log.open(slow(pattern, query(Start::Head))).await.unwrap();
    let searching = tokio::spawn(async move {
        // Only an end would end it.
        while next(&mut batches).await.is_some() {}
    });
    for _ in 0..3 {
        assert_eq!(log.all(filtered(&["yes"], &[], query(Start::Head))).await, ["2 yes"]);
    }
    assert!(!searching.is_finished());
    searching.abort();
    assert!(searching.await.unwrap_err().is_cancelled());
    // So does the search for the last lines.
    let mut last = Box::pin(log.open(slow(pattern, query(Start::Last(1)))));
    for _ in 0..3 {
        let other = log.all(filtered(&["yes"], &[], query(Start::Last(1))));
        tokio::select! {
            _ = &mut last => panic!("the search for the last line was over first"),
            lines = other => assert_eq!(lines, ["2 yes"]),
        }
    }
    drop(last);
    assert_eq!(log.all(filtered(&["yes"], &[], query(Start::Head))).await, ["2 yes"]);
}
