//! Every line once, over random rotations and compressions, for a reader that is cut at random.

use std::time::Duration;

use perennial::lines::{Query, Start};
use proptest::{prelude::*, test_runner::TestRunner};

use super::{gaps, gzip, rotate, zstd};
use crate::bed::{Bed, LIMIT, LOG, Reading, follow, text};

/// Lines of more than 1 KiB: the bytes before a cursor prove its file alone where they are that many.
const LONG: usize = 1024;

/// Lines of a few bytes: most cursors are near the start of their file, and its content alone does not prove it.
const SHORT: usize = 0;

/// Lines with this many bytes after their numbers.
fn lines(range: std::ops::Range<u32>, bytes: usize) -> String {
    range.map(|n| format!("line {n:05} {}\n", "x".repeat(bytes))).collect()
}

/// What happens between two reads.
#[derive(Clone, Copy, Debug)]
enum Step {
    Append(u32),
    Part,
    Rotate,
    Gzip(u32),
    Zstd(u32),
    Cut,
    Read,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1_u32..40).prop_map(Step::Append),
        1 => Just(Step::Part),
        2 => Just(Step::Rotate),
        1 => (1_u32..4).prop_map(Step::Gzip),
        1 => (1_u32..4).prop_map(Step::Zstd),
        2 => Just(Step::Cut),
        2 => Just(Step::Read),
    ];
    proptest::collection::vec(step, 1..40)
}

#[test]
fn every_line_comes_once_over_random_rotations_and_compressions_with_a_reader_that_is_cut_at_random() {
    play_many(LONG);
}

#[test]
fn short_lines_come_once_over_random_rotations_and_compressions_with_a_reader_that_is_cut_at_random() {
    play_many(SHORT);
}

fn play_many(bytes: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build().unwrap();
    let mut runner = TestRunner::new(ProptestConfig { cases: 40, ..ProptestConfig::default() });
    let outcome = runner.run(&(steps(), 1_usize..20, 0_u32..200), |(steps, most, before)| {
        runtime.block_on(play(&steps, most, before, bytes));
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// The next batch; says what was done if there is none soon.
async fn go_on(reading: &mut Reading, steps: &[Step], written: &str) {
    let next = tokio::time::timeout(Duration::from_secs(20), reading.batch()).await;
    let end = written.get(written.len().saturating_sub(200)..);
    assert!(matches!(next, Ok(Some(_))), "no batch after {steps:?}, up to {end:?}: {}", reading.seen());
}

async fn play(steps: &[Step], most: usize, before: u32, bytes: usize) {
    let bed = Bed::in_memory();
    let mut written = String::new();
    let mut next = 0;
    let mut append = |written: &mut String, count: u32| {
        let text = lines(next..next + count, bytes);
        next += count;
        bed.append(LOG, &text);
        written.push_str(&text);
    };
    append(&mut written, before + 1);
    let mut first = Query { history: true, ..follow(Start::Head) };
    first.batching.max_items = most;
    let mut reading = bed.open(first.clone()).await;
    let (mut all, mut events) = (String::new(), Vec::new());
    let mut take = |reading: &mut Reading| {
        for line in reading.lines.drain(..) {
            let end = if line.has_more || line.no_newline { "" } else { "\n" };
            all.push_str(&(text(&line) + end));
        }
        events.append(&mut reading.events);
        all.len()
    };
    for step in steps {
        match *step {
            Step::Append(count) => append(&mut written, count),
            Step::Part => {
                bed.append(LOG, "part ");
                written.push_str("part ");
            }
            Step::Rotate => {
                rotate(&bed, 60);
                append(&mut written, 1);
            }
            Step::Gzip(number) if bed.path(&format!("{LOG}.{number}")).exists() => {
                gzip(&bed, &format!("{LOG}.{number}"));
            }
            Step::Zstd(number) if bed.path(&format!("{LOG}.{number}")).exists() => {
                zstd(&bed, &format!("{LOG}.{number}"));
            }
            Step::Gzip(_) | Step::Zstd(_) => {}
            Step::Read => {
                if take(&mut reading) < written.rfind('\n').unwrap_or(0) {
                    go_on(&mut reading, steps, &written).await;
                }
            }
            Step::Cut => {
                take(&mut reading);
                if reading.position.is_some() {
                    reading = bed.open(Query { start: reading.resume(), ..first.clone() }).await;
                    go_on(&mut reading, steps, &written).await;
                }
            }
        }
    }
    append(&mut written, 1);
    let end = tokio::time::Instant::now() + LIMIT;
    while take(&mut reading) < written.len() {
        assert!(tokio::time::Instant::now() < end, "the end of {written:?} is missing after {steps:?}");
        go_on(&mut reading, steps, &written).await;
    }
    take(&mut reading);
    assert_eq!(all, written, "{steps:?}");
    assert_eq!(gaps(&events), [], "{steps:?}");
}
