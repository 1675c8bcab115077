//! The whole history of a log: generations that were rotated away and compressed, as one stream.

use std::{fs, path::Path, process::Command, time::Duration};

use perennial::lines::{Error, Event, Query, RootRules, Start};

use crate::bed::{Bed, LOG, Reading, follow, query, text};

mod archives;
mod changed;
mod faults;
mod filters;
mod others;
mod random;
mod twins;
mod waits;

fn history(start: Start) -> Query {
    Query { history: true, ..query(start) }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| format!("line {n:05}")).collect()
}

fn lines(range: std::ops::Range<u32>) -> String {
    numbers(range).iter().map(|line| format!("{line}\n")).collect()
}

/// Compresses a file as the tool does: the compressed file replaces it.
fn compress(path: &Path, tool: &str, options: &[&str]) {
    let done = Command::new(tool).args(options).arg(path).output().expect("the tool is installed");
    assert!(done.status.success(), "{done:?}");
}

fn gzip(bed: &Bed, name: &str) {
    compress(&bed.path(name), "gzip", &[]);
}

fn zstd(bed: &Bed, name: &str) {
    compress(&bed.path(name), "zstd", &["--rm", "-q"]);
}

/// Four generations of 100 lines, the newest of which is at the path.
fn rotated(bed: &Bed) {
    for generation in 0..4 {
        rotate(bed, 3);
        bed.append(LOG, lines(generation * 100..generation * 100 + 100));
    }
}

/// The same, with the two oldest compressed.
fn rotated_and_compressed(bed: &Bed) {
    rotated(bed);
    gzip(bed, "app.log.3");
    zstd(bed, "app.log.2");
}

/// `app.log` becomes `app.log.1`, and so on, compressed or not.
fn rotate(bed: &Bed, most: u32) {
    for ending in ["", ".gz", ".zst"] {
        for number in (1..=most).rev() {
            let from = bed.path(&format!("{LOG}.{number}{ending}"));
            if from.exists() {
                fs::rename(&from, bed.path(&format!("{LOG}.{}{ending}", number + 1))).unwrap();
            }
        }
    }
    if bed.path(LOG).exists() {
        bed.rename(LOG, "app.log.1");
    }
}

fn gaps(events: &[Event]) -> Vec<Event> {
    events.iter().filter(|event| matches!(event, Event::Gap { .. })).cloned().collect()
}

/// Reads on in a new stream after each batch, of at most `most` lines.
async fn read_in_parts(bed: &Bed, most: usize) -> Reading {
    let mut first = history(Start::Head);
    first.batching.max_items = most;
    read_in_parts_of(bed, first).await
}

async fn read_in_parts_of(bed: &Bed, first: Query) -> Reading {
    let mut reading = bed.open(first.clone()).await;
    reading.batch().await;
    loop {
        let mut next = bed.open(Query { start: reading.resume(), ..first.clone() }).await;
        // The first batch leaves at once, also without lines.
        let mut is_end = false;
        while next.lines.is_empty() && !is_end {
            is_end = next.batch().await.is_none();
        }
        reading.lines.append(&mut next.lines);
        reading.events.append(&mut next.events);
        reading.position = next.position.take();
        if is_end {
            return reading;
        }
    }
}

#[tokio::test]
async fn the_oldest_generation_comes_first_and_then_each_once_up_to_the_file_at_the_path() {
    for bed in Bed::both() {
        rotated(&bed);
        let mut reading = bed.open(history(Start::Head)).await;
        reading.read_to_end().await;
        assert_eq!(reading.texts(), numbers(0..400));
        assert_eq!(reading.events, vec![Event::Rotated { next_offset: 0 }; 3]);
        assert_eq!(reading.lines[100].number, Some(1), "numbers start again in each file");
        assert_eq!(bed.all(query(Start::Head)).await, numbers(300..400), "only where it is asked for");
    }
}

#[tokio::test]
async fn dated_names_are_read_in_the_order_of_their_dates() {
    for bed in Bed::both() {
        for (name, from) in [("-20261121", 0), ("-20261122", 10), ("-20261123", 20), ("", 30)] {
            bed.append(&format!("{LOG}{name}"), lines(from..from + 10));
        }
        gzip(&bed, "app.log-20261121");
        assert_eq!(bed.all(history(Start::Head)).await, numbers(0..40));
    }
}

#[tokio::test]
async fn a_log_without_other_generations_is_read_as_without_history() {
    for bed in Bed::both() {
        bed.append(LOG, "a\nb");
        assert_eq!(bed.all(history(Start::Head)).await, ["a", "b"]);
        bed.append("app.logger.1", "another log\n");
        bed.append("app.log10", "another log\n");
        assert_eq!(bed.all(history(Start::Head)).await, ["a", "b"]);
    }
}

#[tokio::test]
async fn a_backup_of_the_log_beside_it_is_not_read_again() {
    for bed in Bed::both() {
        bed.append(LOG, lines(0..10));
        fs::copy(bed.path(LOG), bed.path("app.log.20261123")).unwrap();
        bed.append(LOG, lines(10..20));
        assert_eq!(bed.all(history(Start::Head)).await, numbers(0..20));
    }
}

#[tokio::test]
async fn compressed_generations_are_read_by_their_first_bytes_whatever_their_names() {
    for bed in Bed::both() {
        rotated_and_compressed(&bed);
        gzip(&bed, "app.log.1");
        bed.rename("app.log.1.gz", "app.log.1");
        let mut reading = bed.open(history(Start::Head)).await;
        reading.read_to_end().await;
        assert_eq!((reading.texts(), gaps(&reading.events)), (numbers(0..400), vec![]));
    }
}

#[tokio::test]
async fn a_reader_is_cut_and_resumed_anywhere_in_compressed_generations() {
    for bed in Bed::both() {
        rotated_and_compressed(&bed);
        for most in [1, 7, 100, 1000] {
            let reading = read_in_parts(&bed, most).await;
            assert_eq!((reading.texts(), gaps(&reading.events)), (numbers(0..400), vec![]), "{most}");
        }
    }
}

#[tokio::test]
async fn a_line_that_is_split_across_generations_is_joined() {
    for bed in Bed::both() {
        bed.append("app.log.2", "one\ntw");
        bed.append("app.log.1", "o and ");
        bed.append(LOG, "a half\nthree");
        gzip(&bed, "app.log.2");
        for most in [1, 100] {
            let reading = read_in_parts(&bed, most).await;
            let flags = reading.lines.iter().map(|it| (text(it), it.continued, it.has_more, it.no_newline));
            let expected = [
                ("one", false, false, false),
                ("tw", false, true, false),
                ("o and ", true, true, false),
                ("a half", true, false, false),
                ("three", false, false, true),
            ];
            let expected = expected.map(|(text, a, b, c)| (text.to_owned(), a, b, c));
            assert_eq!(flags.collect::<Vec<_>>(), expected, "{most}");
        }
    }
}

#[tokio::test]
async fn a_generation_that_is_compressed_while_it_is_read_or_after_is_read_on() {
    for bed in Bed::both() {
        for tool in [gzip, zstd] {
            let names = fs::read_dir(bed.path("")).unwrap().map(|entry| entry.unwrap().path());
            names.for_each(|path| fs::remove_file(path).unwrap());
            rotated(&bed);
            let mut first = history(Start::Head);
            first.batching.max_items = 50;
            let mut reading = bed.open(first.clone()).await;
            reading.read_lines(150).await;
            for name in ["app.log.3", "app.log.2", "app.log.1"] {
                tool(&bed, name);
            }
            let mut resumed = bed.open(Query { start: reading.resume(), ..first }).await;
            // The one that was open goes on, and so does one that comes later.
            for reading in [&mut reading, &mut resumed] {
                reading.read_to_end().await;
                assert_eq!(gaps(&reading.events), []);
            }
            assert_eq!(reading.texts(), numbers(0..400));
            assert_eq!(resumed.texts(), numbers(150..400));
        }
    }
}

#[tokio::test]
async fn history_ends_in_the_lines_that_are_written_and_in_later_rotations() {
    for bed in Bed::both() {
        rotated(&bed);
        gzip(&bed, "app.log.3");
        let mut reading = bed.open(Query { history: true, ..follow(Start::Head) }).await;
        reading.read_until("line 00399").await;
        for generation in 4..8 {
            rotate(&bed, 9);
            bed.append(LOG, lines(generation * 100..generation * 100 + 100));
            reading.read_until(&format!("line {:05}", generation * 100 + 99)).await;
            gzip(&bed, "app.log.2");
        }
        assert_eq!((reading.texts(), gaps(&reading.events)), (numbers(0..800), vec![]));
    }
}

#[tokio::test]
async fn fields_of_one_file_and_a_cursor_in_an_archive_without_history_are_refused() {
    let bed = Bed::on_disk();
    rotated(&bed);
    gzip(&bed, "app.log.3");
    for (start, field) in
        [(Start::Last(1), "last"), (Start::Line(2), "from_line"), (Start::Offset(3), "from_offset")]
    {
        let error = bed.try_open(history(start)).await.err().expect("it is refused");
        assert!(matches!(error, Error::NotInHistory { field: found } if found == field), "{error:?}");
    }
    let mut until = history(Start::Head);
    until.rules.until_line = Some(3);
    assert!(matches!(bed.try_open(until).await.err(), Some(Error::NotInHistory { field: "until_line" })));
    let mut reading = bed.open(history(Start::Head)).await;
    reading.batch().await;
    assert!(matches!(bed.try_open(query(reading.resume())).await.err(), Some(Error::NeedsHistory)));
}

#[tokio::test]
#[ignore = "needs logrotate"]
async fn real_logrotate_with_compress_and_delaycompress_loses_nothing_under_a_reader() {
    for options in [
        "compress",
        "compress\ndelaycompress",
        "compress\ncompresscmd /usr/bin/zstd\ncompressext .zst\ncompressoptions -q",
    ] {
        let bed = Bed::on_disk();
        let (log, conf, state) = (bed.path(LOG), bed.path("../rotate"), bed.path("../state"));
        let (conf, state) =
            (conf.with_file_name(name(&bed, "conf")), state.with_file_name(name(&bed, "state")));
        fs::write(&conf, format!("{} {{\nrotate 50\ncreate\n{options}\n}}\n", log.display())).unwrap();
        let rotate = || {
            let mut command = Command::new("logrotate");
            let done = command.arg("-f").arg("-s").arg(&state).arg(&conf).output().unwrap();
            assert!(done.status.success(), "{done:?}");
        };
        bed.append(LOG, lines(0..50));
        let mut live = bed.open(Query { history: true, ..follow(Start::Head) }).await;
        for generation in 1..10 {
            rotate();
            bed.append(LOG, lines(generation * 50..generation * 50 + 50));
            live.read_until(&format!("line {:05}", generation * 50 + 49)).await;
            let all = read_in_parts(&bed, 60).await;
            assert_eq!(
                (all.texts(), gaps(&all.events)),
                (numbers(0..generation * 50 + 50), vec![]),
                "{options}"
            );
        }
        assert_eq!((live.texts(), gaps(&live.events)), (numbers(0..500), vec![]), "{options}");
        let (_, _) = (fs::remove_file(conf), fs::remove_file(state));
    }
}

/// A name beside the directory of a bed, of its own.
fn name(bed: &Bed, what: &str) -> String {
    let own = bed.path("").components().next_back().unwrap().as_os_str().to_string_lossy().into_owned();
    format!("{what}{own}")
}

#[tokio::test]
async fn generations_that_are_rotated_and_compressed_while_a_slow_reader_is_in_an_old_one_come_once() {
    for bed in Bed::both() {
        for pause in [0, 100] {
            let names = fs::read_dir(bed.path("")).unwrap().map(|entry| entry.unwrap().path());
            names.for_each(|path| fs::remove_file(path).unwrap());
            rotated(&bed);
            let mut first = Query { history: true, ..follow(Start::Head) };
            first.batching.max_items = 30;
            let mut reading = bed.open(first.clone()).await;
            reading.read_lines(60).await;
            for generation in 4..8 {
                rotate(&bed, 9);
                bed.append(LOG, lines(generation * 100..generation * 100 + 100));
                gzip(&bed, "app.log.1");
                // With a pause, the server sees each file at the path, and keeps it open.
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            let mut resumed = bed.open(Query { start: reading.resume(), ..first }).await;
            let from = u32::try_from(reading.lines.len()).unwrap();
            for reading in [&mut reading, &mut resumed] {
                reading.read_until("line 00799").await;
                assert_eq!(gaps(&reading.events), [], "{pause}");
            }
            assert_eq!(reading.texts(), numbers(0..800), "{pause}");
            assert_eq!(resumed.texts(), numbers(from..800), "{pause}");
        }
    }
}

#[tokio::test]
async fn a_reader_at_the_start_of_an_empty_file_is_resumed_after_that_was_compressed() {
    for bed in Bed::both() {
        bed.append("app.log.1", lines(0..10));
        gzip(&bed, "app.log.1");
        bed.append(LOG, "");
        let mut reading = bed.open(history(Start::Head)).await;
        reading.read_to_end().await;
        assert_eq!(reading.texts(), numbers(0..10));
        bed.append(LOG, lines(10..20));
        rotate(&bed, 3);
        gzip(&bed, "app.log.1");
        bed.append(LOG, lines(20..30));
        let mut resumed = bed.open(history(reading.resume())).await;
        resumed.read_to_end().await;
        assert_eq!((resumed.texts(), gaps(&resumed.events)), (numbers(10..30), vec![]));
        // Without an older one, it may have been deleted, and another may have its name.
        bed.remove("app.log.2.gz");
        assert!(matches!(bed.try_open(history(reading.resume())).await.err(), Some(Error::Expired)));
    }
}

#[tokio::test]
async fn more_readers_than_archives_may_be_open_take_turns_and_all_get_all_lines() {
    let bed = Bed::in_memory();
    bed.append("app.log.1", lines(0..2000));
    gzip(&bed, "app.log.1");
    bed.append(LOG, "");
    let mut first = history(Start::Head);
    first.batching.max_items = 100;
    let mut readings = Vec::new();
    for _ in 0..70 {
        let mut reading = bed.open(first.clone()).await;
        // Those that stay without reading on give way after a while.
        reading.read_lines(1).await;
        readings.push(reading);
    }
    let all = readings.into_iter().map(|mut reading| async move {
        reading.read_to_end().await;
        (reading.texts(), gaps(&reading.events))
    });
    for read in futures::future::join_all(all).await {
        assert_eq!(read, (numbers(0..2000), vec![]));
    }
}

#[tokio::test]
async fn a_rule_that_denies_a_log_denies_its_compressed_generations() {
    let rules = RootRules { deny: vec!["*.key".parse().unwrap()], ..RootRules::default() };
    let bed = Bed::on_disk_with(rules);
    for name in ["a.key.1", "a.key-20261123", "a.key.2"] {
        bed.append(name, "secret\n");
    }
    for name in ["a.key.1", "a.key-20261123"] {
        gzip(&bed, name);
    }
    zstd(&bed, "a.key.2");
    for name in ["a.key.1.gz", "a.key-20261123.gz", "a.key.2.zst", "a.key"] {
        let query = Query { history: true, ..crate::bed::query_of(name, Start::Head) };
        assert!(matches!(bed.try_open(query).await.err(), Some(Error::NotFound { .. })), "{name}");
    }
    // Neither through a name that is allowed.
    bed.append(LOG, "public\n");
    std::os::unix::fs::symlink("a.key.1.gz", bed.path("app.log.1.gz")).unwrap();
    assert_eq!(bed.all(history(Start::Head)).await, ["public"]);
}
