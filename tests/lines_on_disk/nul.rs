//! NUL bytes: space that is reserved and written in place, holes that a writer left, and content.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    time::Duration,
};

use perennial::{
    lines::{Delimiter, Event, Files, Found, GapReason, Query, Root, Rules, Start},
    stream::Batching,
};
use rustix::fs::{FallocateFlags, fallocate};

use crate::bed::{Bed, LOG, ROOT, follow, options, query};

/// A writer of a log in place.
struct InPlace {
    file: File,
    offset: u64,
}

impl InPlace {
    /// A log with this content, which is written on after its first `offset` bytes.
    fn new(bed: &Bed, content: &[u8], offset: u64) -> Self {
        fs::write(bed.path(LOG), content).unwrap();
        Self { file: File::options().write(true).open(bed.path(LOG)).unwrap(), offset }
    }

    fn write(&mut self, text: &str) {
        self.file.write_all_at(text.as_bytes(), self.offset).unwrap();
        self.offset += text.len() as u64;
    }
}

/// How space is reserved.
#[derive(Clone, Copy, Debug)]
enum Space {
    Written,
    Sparse,
    Allocated,
    /// Beyond the end of the file, whose size does not show it.
    KeepSize,
}

impl Space {
    const ALL: [Self; 4] = [Self::Written, Self::Sparse, Self::Allocated, Self::KeepSize];

    fn reserve(self, file: &File, bytes: u64) {
        match self {
            Self::Written => file.write_all_at(&vec![0; usize::try_from(bytes).unwrap()], 0).unwrap(),
            Self::Sparse => file.set_len(bytes).unwrap(),
            Self::Allocated => fallocate(file, FallocateFlags::empty(), 0, bytes).unwrap(),
            Self::KeepSize => fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes).unwrap(),
        }
    }
}

fn nuls(count: usize) -> Vec<u8> {
    vec![0; count]
}

fn is_filled(event: &Event) -> bool {
    matches!(event, Event::Gap { reason: GapReason::Filled, .. })
}

#[tokio::test]
async fn a_log_in_reserved_space_is_read_as_it_is_written_line_by_line_and_part_by_part() {
    for bed in Bed::both() {
        for space in Space::ALL {
            for bytes in [100, 4096, 200_000] {
                let mut writer = InPlace::new(&bed, b"", 0);
                space.reserve(&writer.file, bytes);
                let mut reading = bed.open(follow(Start::Head)).await;
                reading.read_until_caught_up().await;
                writer.write("one\n");
                reading.read_until("one").await;
                writer.write("a line in ");
                writer.write("two writes\nand");
                reading.read_until("a line in two writes").await;
                writer.write(" a part\n");
                reading.read_until("and a part").await;
                let start = reading.resume();
                // Resumed at a line and in reserved space, also by another server.
                let other = Files::new(vec![Root::new(ROOT, bed.path(""))], options()).unwrap();
                let mut resumed = Bed::try_open_on(&other, follow(start)).await.unwrap();
                resumed.batch().await.unwrap();
                writer.write("four\n");
                for reading in [&mut reading, &mut resumed] {
                    reading.read_until("four").await;
                }
                assert_eq!(
                    reading.texts(),
                    ["one", "a line in two writes", "and a part", "four"],
                    "{space:?}"
                );
                assert_eq!((resumed.texts(), reading.events), (vec!["four".to_owned()], vec![]), "{space:?}");
                assert_eq!(resumed.events, [Event::Resumed(Found::Exact)], "{space:?}");
                fs::remove_file(bed.path(LOG)).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn without_follow_reserved_space_is_a_hole_at_the_end_and_is_read_by_the_next_call() {
    for bed in Bed::both() {
        let mut writer = InPlace::new(&bed, &[b"1\nha".as_slice(), &nuls(1000)].concat(), 4);
        let mut reading = bed.open(query(Start::Head)).await;
        reading.read_to_end().await;
        assert_eq!(reading.shown(), ["1", "ha$"]);
        assert_eq!(reading.events, [Event::Hole { offset: 4, bytes: 1000 }]);
        writer.write("lf\n3\n");
        let mut next = bed.open(query(reading.resume())).await;
        next.read_to_end().await;
        assert_eq!(next.shown(), ["lf<", "3"]);
        assert_eq!(next.events, [Event::Resumed(Found::Exact), Event::Hole { offset: 9, bytes: 995 }]);
    }
}

#[tokio::test]
async fn sixteen_nul_bytes_are_a_hole_and_fifteen_are_content_wherever_they_are() {
    for bed in Bed::both() {
        // The blocks of a file system, and of reads.
        let borders = [4096, 64 * 1024, 128 * 1024, 256 * 1024];
        let around =
            |border: usize| [20, 15, 8, 1, 0].map(|before| border - before).into_iter().chain([border + 1]);
        for before in borders.into_iter().flat_map(around).chain([2, 100]) {
            let text = "x".repeat(before - 1) + "\n";
            for middle in ["", "mid"] {
                let of = |count| [text.as_bytes(), middle.as_bytes(), &nuls(count), b"end\n"].concat();
                fs::write(bed.path(LOG), of(15)).unwrap();
                let texts = bed.all(query(Start::Head)).await;
                assert_eq!(texts[1..], [format!("{middle}{}end", "\0".repeat(15))], "{before}");
                fs::write(bed.path(LOG), of(16)).unwrap();
                let mut reading = bed.open(query(Start::Head)).await;
                reading.read_to_end().await;
                let expected: &[&str] = if middle.is_empty() { &["end"] } else { &["mid>", "end<"] };
                assert_eq!(reading.shown()[1..], *expected, "{before}");
                let offset = (before + middle.len()) as u64;
                assert_eq!(reading.events, [Event::Hole { offset, bytes: 16 }], "{before}");
            }
        }
        for (count, shown, events) in [(15, 2, 0), (16, 1, 1)] {
            fs::write(bed.path(LOG), [b"1\n".as_slice(), &nuls(count)].concat()).unwrap();
            let mut reading = bed.open(query(Start::Head)).await;
            reading.read_to_end().await;
            assert_eq!((reading.lines.len(), reading.events.len()), (shown, events), "{count}");
        }
    }
}

/// A machine lost power, and the writer appends after its restart.
#[tokio::test]
async fn a_hole_before_data_is_passed_after_the_grace_and_nothing_comes_twice() {
    for bed in Bed::both() {
        for hole in [16, 3000, 1 << 20] {
            bed.append(LOG, "1\n2 in p");
            let mut reading = bed.open(follow(Start::Head)).await;
            reading.read_until("1").await;
            bed.append(LOG, nuls(hole));
            reading.quiet_for(Duration::from_millis(200)).await;
            bed.append(LOG, "arts\n3\n");
            reading.read_until("3").await;
            bed.append(LOG, "4\n");
            reading.read_until("4").await;
            assert_eq!(reading.shown(), ["1", "2 in p>", "arts<", "3", "4"]);
            assert_eq!(reading.events, [Event::Hole { offset: 8, bytes: hole as u64 }]);
            let mut resumed = bed.open(query(reading.resume())).await;
            resumed.read_to_end().await;
            assert_eq!((resumed.texts(), resumed.events), (vec![], vec![Event::Resumed(Found::Exact)]));
            bed.remove(LOG);
        }
    }
}

#[tokio::test]
async fn a_hole_that_is_filled_in_within_the_grace_is_none() {
    let grace = perennial::lines::Options { rotation_grace: Duration::from_secs(5), ..options() };
    for bed in Bed::both_with(grace) {
        let mut writer = InPlace::new(&bed, b"1\n", 2);
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("1").await;
        writer.file.write_all_at(b"after\n", 2 + 100).unwrap();
        reading.quiet_for(Duration::from_millis(100)).await;
        writer.write(&("2".repeat(99) + "\n"));
        reading.read_until("after").await;
        assert_eq!((reading.texts().len(), reading.events), (3, vec![]));
    }
}

#[tokio::test]
async fn what_is_written_into_a_hole_after_it_was_passed_is_a_gap_also_for_a_reader_that_was_away() {
    for bed in Bed::both() {
        for (offset, hole) in [(2, 100), (2, 100_000), (0, 5000)] {
            let writer = InPlace::new(&bed, &b"1\n"[..offset], 0);
            writer.file.write_all_at(b"after\n", (offset + hole) as u64).unwrap();
            let mut reading = bed.open(follow(Start::Head)).await;
            reading.read_until("after").await;
            let (start, events) = (reading.resume(), reading.take_events());
            assert_eq!(events, [Event::Hole { offset: offset as u64, bytes: hole as u64 }]);
            writer.file.write_all_at(b"late\n", (offset + hole / 2) as u64).unwrap();
            reading.wait_for_event("a gap", is_filled).await;
            bed.append(LOG, "next\n");
            reading.read_until("next").await;
            assert_eq!(reading.texts().last().unwrap(), "next");
            assert_eq!(reading.take_events().iter().filter(|event| is_filled(event)).count(), 1);
            // Reported once.
            let mut again = bed.open(query(reading.resume())).await;
            again.read_to_end().await;
            assert_eq!(again.events, [Event::Resumed(Found::Exact)]);
            let mut away = bed.open(query(start)).await;
            away.read_to_end().await;
            assert_eq!(away.texts(), ["next"]);
            assert!(away.events.iter().any(is_filled), "{:?}", away.events);
            bed.remove(LOG);
        }
    }
}

#[tokio::test]
async fn a_reserved_log_that_is_truncated_or_rotated_loses_nothing_and_repeats_nothing() {
    for bed in Bed::both() {
        let mut writer = InPlace::new(&bed, &nuls(4096), 0);
        let mut reading = bed.open(follow(Start::Head)).await;
        writer.write("1\n");
        reading.read_until("1").await;
        // Its writer starts again.
        let mut writer = InPlace::new(&bed, &nuls(4096), 0);
        writer.write("2\n");
        reading.read_until("2").await;
        let events = reading.take_events();
        assert!(matches!(events[..], [Event::Truncated { read_offset: 2, .. }]), "{events:?}");
        bed.rename(LOG, "app.log.1");
        writer.write("3\nend");
        let mut next = InPlace::new(&bed, &nuls(4096), 0);
        next.write("4\n");
        reading.read_until("4").await;
        // Late, in the space that was reserved.
        writer.write("\n5\n");
        reading.read_until("5").await;
        next.write("6\n");
        reading.read_until("6").await;
        assert_eq!(reading.shown()[..5], ["1", "2", "3", "end$", "4"]);
        assert_eq!(reading.texts().concat(), "123end456", "{:?}", reading.events);
        assert!(
            !reading.events.iter().any(|event| matches!(event, Event::Gap { .. })),
            "{:?}",
            reading.events
        );
    }
}

#[tokio::test]
async fn starts_near_the_end_find_their_line_in_reserved_space_and_after_holes() {
    for bed in Bed::both() {
        let content = [b"1\n2\n".as_slice(), &nuls(5000), b"3\n4\n5", &nuls(100_000)].concat();
        for (start, expected) in [
            (Start::Last(1), &["5"][..]),
            (Start::Last(3), &["3", "4", "5"]),
            (Start::Last(4), &["2", "3", "4", "5"]),
            (Start::Line(4), &["4", "5"]),
            (Start::Offset(5006), &["4", "5"]),
        ] {
            let mut writer = InPlace::new(&bed, &content, 5009);
            let mut reading = bed.open(follow(start.clone())).await;
            reading.batch().await.unwrap();
            writer.write(" to the end\n6\n");
            reading.read_until("6").await;
            let mut expected = expected.iter().map(ToString::to_string).collect::<Vec<_>>();
            *expected.last_mut().unwrap() += " to the end";
            expected.push("6".into());
            assert_eq!(reading.texts(), expected, "{start:?}");
            assert!(reading.events.iter().all(|event| matches!(event, Event::Hole { .. })), "{start:?}");
        }
        for (start, expected) in [(Start::Last(0), "7"), (Start::Line(6), "6 and more")] {
            let mut writer = InPlace::new(&bed, &content, 5009);
            let mut reading = bed.open(follow(start)).await;
            reading.batch().await.unwrap();
            writer.write("\n6 and more\n7\n");
            reading.read_until("7").await;
            assert!(reading.texts().contains(&expected.to_owned()), "{:?}", reading.texts());
        }
    }
}

#[tokio::test]
async fn nul_is_content_where_the_delimiter_has_one_and_in_utf_16() {
    for bed in Bed::both() {
        let rules = |text| Rules { delimiter: Delimiter::parse(Some(text)).unwrap(), ..Rules::default() };
        fs::write(bed.path(LOG), [b"a\0b\0".as_slice(), &nuls(30), b"c\0"].concat()).unwrap();
        let texts = bed.all(Query { rules: rules("\0"), ..query(Start::Head) }).await;
        assert_eq!(texts.len(), 33);
        assert_eq!((texts[1].as_str(), texts[32].as_str()), ("b", "c"));
        let utf_16 = "one\ntwo\n".encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>();
        fs::write(bed.path(LOG), &utf_16).unwrap();
        let mut reading = bed.open(Query { rules: rules("\0\n"), ..query(Start::Head) }).await;
        reading.read_to_end().await;
        assert_eq!(
            (reading.texts(), reading.events.len()),
            (vec!["\0o\0n\0e".into(), "\0t\0w\0o".into()], 0)
        );
        let mut reading = bed.open(query(Start::Head)).await;
        reading.read_to_end().await;
        let lines = reading.lines.iter().map(crate::bed::bytes).collect::<Vec<_>>();
        assert_eq!((lines.join(&b'\n'), reading.events.len()), (utf_16[..utf_16.len() - 1].to_vec(), 0));
    }
}

#[tokio::test]
async fn all_followers_of_a_file_with_holes_get_the_same() {
    for bed in Bed::both() {
        bed.append(LOG, "1\n");
        let mut all = Vec::new();
        for _ in 0..5 {
            let mut reading = bed.open(follow(Start::Head)).await;
            reading.read_until("1").await;
            all.push(reading);
        }
        let file = File::options().write(true).open(bed.path(LOG)).unwrap();
        file.write_all_at(b"2\n", 102).unwrap();
        for reading in &mut all {
            reading.read_until("2").await;
        }
        // One that comes later has not passed the hole.
        let mut late = bed.open(follow(Start::Last(1))).await;
        late.read_until("2").await;
        file.write_all_at(b"x", 50).unwrap();
        for reading in &mut all {
            reading.wait_for_event("a gap", is_filled).await;
        }
        bed.append(LOG, "3\n");
        all.push(late);
        for (n, reading) in all.iter_mut().enumerate() {
            reading.read_until("3").await;
            let events = reading.take_events();
            assert_eq!(events.len(), if n == 5 { 0 } else { 2 }, "{events:?}");
        }
    }
}

#[tokio::test]
async fn a_reader_that_is_cut_after_every_batch_passes_holes_as_one_that_is_not() {
    for bed in Bed::both() {
        let parts = (0..40_usize).map(|n| [format!("{n}\n").into_bytes(), nuls(n % 3 * 16)].concat());
        fs::write(bed.path(LOG), parts.collect::<Vec<_>>().concat()).unwrap();
        let mut whole = bed.open(query(Start::Head)).await;
        whole.read_to_end().await;
        assert_eq!(whole.texts(), (0..40).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(whole.events.len(), 26);
        let (mut lines, mut events, mut start) = (Vec::new(), Vec::new(), Start::Head);
        let mut is_over = false;
        while !is_over {
            let batching = Batching { max_items: 1, ..Batching::default() };
            let mut reading = bed.open(Query { batching, ..query(start) }).await;
            is_over = reading.batch().await.unwrap().progress.caught_up;
            lines.extend(reading.take_texts());
            events.extend(
                reading.take_events().into_iter().filter(|event| !matches!(event, Event::Resumed(_))),
            );
            start = reading.resume();
        }
        assert_eq!((lines, events), (whole.texts(), whole.events));
    }
}

#[tokio::test]
async fn a_run_of_nul_bytes_that_is_written_in_two_parts_is_a_hole_or_content_as_a_whole() {
    for bed in Bed::both() {
        for start in [10, 4096 - 4, 64 * 1024 - 9] {
            for (first, second) in [(8, 7), (7, 8), (15, 0), (8, 8), (15, 1), (1, 15), (16, 0), (20, 20)] {
                let (count, what) = (first + second, format!("{first} and {second} NULs at {start}"));
                fs::write(bed.path(LOG), "x".repeat(start - 2) + "\na").unwrap();
                let mut reading = bed.open(follow(Start::Head)).await;
                reading.read_until_caught_up().await;
                bed.append(LOG, nuls(first));
                // A follower reads in between.
                bed.append("other", "");
                reading.quiet_for(Duration::from_millis(10)).await;
                bed.append(LOG, [&nuls(second)[..], b"b\nlast\n"].concat());
                reading.read_until("last").await;
                let shown = reading.shown();
                if count < 16 {
                    let whole = format!("a{}b", "\0".repeat(count));
                    assert_eq!(
                        (&shown[1..], &reading.events[..]),
                        (&[whole, "last".into()][..], &[][..]),
                        "{what}"
                    );
                } else {
                    let hole = Event::Hole { offset: start as u64, bytes: count as u64 };
                    let parts = ["a>", "b<", "last"].map(String::from);
                    assert_eq!((&shown[1..], &reading.events[..]), (&parts[..], &[hole][..]), "{what}");
                }
                bed.remove(LOG);
            }
        }
    }
}
