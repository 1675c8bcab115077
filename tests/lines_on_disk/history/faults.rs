//! Archives that are damaged, short, of another format, or made to harm.

use std::{
    fs::{self, File},
    time::{Duration, SystemTime},
};

use perennial::lines::{Event, Fault, GapReason, Query, Start};

use super::{compress, gaps, gzip, history, lines, numbers, rotated, zstd};
use crate::bed::{Bed, LOG, follow, text};

pub fn gap_of(name: &str, fault: Fault) -> Event {
    Event::Gap { reason: GapReason::Unreadable { name: name.into(), fault, unconfirmed: None }, bytes: None }
}

#[tokio::test]
async fn members_padding_and_empty_archives_are_no_faults() {
    for bed in Bed::both() {
        bed.append("one", lines(0..10));
        bed.append("two", lines(10..20));
        bed.append("none", "");
        for name in ["one", "two", "none"] {
            gzip(&bed, name);
        }
        let read = |name: &str| fs::read(bed.path(name)).unwrap();
        let all = [read("one.gz"), read("none.gz"), read("two.gz"), vec![0; 1000]].concat();
        fs::write(bed.path("app.log.2.gz"), all).unwrap();
        fs::write(bed.path("app.log.1.gz"), read("none.gz")).unwrap();
        bed.append(LOG, lines(20..30));
        let mut reading = bed.open(history(Start::Head)).await;
        reading.read_to_end().await;
        assert_eq!((reading.texts(), gaps(&reading.events)), (numbers(0..30), vec![]));
    }
}

#[tokio::test]
async fn frames_of_zstd_and_zeros_after_them_are_no_faults() {
    for bed in Bed::both() {
        bed.append("one", lines(0..10));
        bed.append("two", lines(10..20));
        for name in ["one", "two"] {
            zstd(&bed, name);
        }
        let read = |name: &str| fs::read(bed.path(name)).unwrap();
        let all = [read("one.zst"), vec![0; 3], read("two.zst"), vec![0; 200_000]].concat();
        fs::write(bed.path("app.log.1.zst"), &all).unwrap();
        bed.append(LOG, lines(20..30));
        let mut reading = bed.open(history(Start::Head)).await;
        reading.read_to_end().await;
        assert_eq!((reading.texts(), gaps(&reading.events)), (numbers(0..30), vec![]));
        // Other bytes are a frame whose start is damaged.
        write_old(&bed, "app.log.1.zst", &[all, b"and so on".to_vec()].concat());
        let mut reading = bed.open(history(Start::Head)).await;
        reading.read_to_end().await;
        let gap = gap_of("app.log.1.zst", Fault::Corrupt);
        assert_eq!((reading.texts(), gaps(&reading.events)), (numbers(0..30), vec![gap]));
    }
}

/// Lines that do not compress well, in about `bytes` bytes.
fn dense(bytes: u32) -> String {
    (0..bytes / 9).map(|n| format!("{:08x}\n", n.wrapping_mul(2_654_435_761))).collect()
}

/// Writes an archive as it was a while ago: otherwise one that is too short may still grow.
pub fn write_old(bed: &Bed, name: &str, bytes: &[u8]) {
    fs::write(bed.path(name), bytes).unwrap();
    let old = SystemTime::now() - Duration::from_secs(60);
    File::options().write(true).open(bed.path(name)).unwrap().set_modified(old).unwrap();
}

/// What is read of an archive before `last`, and the fault that it ends with.
async fn read_faulty(bed: &Bed, name: &str) -> (String, Fault, Option<u64>) {
    let mut reading = bed.open(history(Start::Head)).await;
    reading.read_to_end().await;
    let mut lines = reading.lines.clone();
    assert_eq!(lines.pop().map(|line| text(&line)).as_deref(), Some("last"));
    let found = gaps(&reading.events);
    let texts = lines.iter().map(|line| text(line) + if line.no_newline { "" } else { "\n" });
    let [Event::Gap { reason: GapReason::Unreadable { name: of, fault, unconfirmed }, bytes: None }] =
        &found[..]
    else {
        panic!("{:?}", reading.events)
    };
    assert_eq!(&**of, name);
    (texts.collect(), *fault, *unconfirmed)
}

#[tokio::test]
async fn a_short_archive_is_read_as_far_as_it_goes_and_is_a_gap_that_says_what_is_not_confirmed() {
    for bed in Bed::both() {
        for (tool, ending) in [(gzip as fn(&Bed, &str), "gz"), (zstd, "zst")] {
            let (name, whole) = (format!("app.log.1.{ending}"), dense(180_000));
            fs::write(bed.path("app.log.1"), &whole).unwrap();
            fs::write(bed.path(LOG), "last\n").unwrap();
            tool(&bed, "app.log.1");
            let bytes = fs::read(bed.path(&name)).unwrap();
            write_old(&bed, &name, &bytes[..bytes.len() * 9 / 10]);
            let (text, fault, unconfirmed) = read_faulty(&bed, &name).await;
            assert!(text.len() > 100_000 && whole.starts_with(&text), "{}", text.len());
            assert_eq!((fault, unconfirmed), (Fault::Incomplete, Some(0)));
            bed.remove(&name);
        }
    }
}

#[tokio::test]
async fn no_byte_of_a_damaged_archive_is_wrong_unless_the_gap_says_that_it_may_be() {
    for bed in Bed::both() {
        for (tool, ending) in [(gzip as fn(&Bed, &str), "gz"), (zstd, "zst")] {
            let name = format!("app.log.1.{ending}");
            let member = |text: &str| {
                let _ = fs::remove_file(bed.path(&name));
                fs::write(bed.path("app.log.1"), text).unwrap();
                tool(&bed, "app.log.1");
                let bytes = fs::read(bed.path(&name)).unwrap();
                bed.remove(&name);
                bytes
            };
            let damaged = |mut bytes: Vec<u8>| {
                let middle = bytes.len() / 2;
                bytes[middle..middle + 100].fill(0x55);
                bytes
            };
            fs::write(bed.path(LOG), "last\n").unwrap();
            let (small, large) = (dense(180_000), dense(1_800_000));
            // A small member is held back until its checksum was compared.
            write_old(&bed, &name, &damaged(member(&small)));
            assert_eq!(read_faulty(&bed, &name).await, (String::new(), Fault::Corrupt, None));
            write_old(&bed, &name, &[member(&large), damaged(member(&small))].concat());
            assert_eq!(read_faulty(&bed, &name).await, (large.clone(), Fault::Corrupt, None));
            // What begins like no member is one whose start is damaged.
            write_old(&bed, &name, &[member(&small), b"\x1e\x8b\x08 and so on".to_vec()].concat());
            assert_eq!(read_faulty(&bed, &name).await, (small.clone(), Fault::Corrupt, None));
            write_old(&bed, &name, &[member(&small), damaged(member(&large))].concat());
            let (text, fault, unconfirmed) = read_faulty(&bed, &name).await;
            assert_eq!((fault, unconfirmed), (Fault::Corrupt, Some(small.len() as u64)));
            assert!(text.starts_with(&small) && text.len() > small.len(), "{}", text.len());
            bed.remove(&name);
        }
    }
}

#[tokio::test]
async fn another_format_is_reported_by_name_and_the_others_are_read() {
    for bed in Bed::both() {
        rotated(&bed);
        compress(&bed.path("app.log.2"), "xz", &[]);
        let mut reading = bed.open(history(Start::Head)).await;
        reading.read_to_end().await;
        assert_eq!(reading.texts(), [numbers(0..100), numbers(200..400)].concat());
        assert_eq!(gaps(&reading.events), [gap_of("app.log.2.xz", Fault::Format("xz"))]);
        compress(&bed.path("app.log.3"), "bzip2", &[]);
        let mut reading = bed.open(history(Start::Head)).await;
        reading.read_to_end().await;
        assert_eq!(reading.texts(), numbers(200..400));
        assert_eq!(gaps(&reading.events).len(), 2);
    }
}

#[tokio::test]
async fn an_archive_that_grows_is_read_to_the_end_that_it_gets() {
    for bed in Bed::both() {
        bed.append("app.log.1", lines(0..20_000));
        gzip(&bed, "app.log.1");
        let whole = fs::read(bed.path("app.log.1.gz")).unwrap();
        let (start, rest) = whole.split_at(whole.len() / 2);
        fs::write(bed.path("app.log.1.gz"), start).unwrap();
        bed.append(LOG, "last\n");
        let mut reading = bed.open(history(Start::Head)).await;
        reading.read_lines(1).await;
        bed.append("app.log.1.gz", rest);
        reading.read_to_end().await;
        assert_eq!(gaps(&reading.events), []);
        assert_eq!(reading.lines.len(), 20_001);
    }
}

#[tokio::test]
async fn a_bomb_ends_where_its_ratio_is_impossible() {
    let bed = Bed::on_disk();
    // Ten gigabytes of one letter in a few hundred kilobytes, as frames of one run each.
    let mut frame = b"\x28\xb5\x2f\xfd\x00\x38".to_vec();
    for at in 0..1000 {
        let header = (u32::from(at == 999)) | 1 << 1 | (128 * 1024) << 3;
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(b'a');
    }
    fs::write(bed.path("app.log.1.zst"), frame.repeat(80)).unwrap();
    bed.append(LOG, lines(10..20));
    let mut reading = bed.open(history(Start::Head)).await;
    reading.read_to_end().await;
    let expected = Event::Gap {
        reason: GapReason::Unreadable {
            name: "app.log.1.zst".into(),
            fault: Fault::Ratio,
            unconfirmed: None,
        },
        bytes: None,
    };
    let mut found = gaps(&reading.events);
    if let [Event::Gap { reason: GapReason::Unreadable { unconfirmed, .. }, .. }] = &mut found[..] {
        *unconfirmed = None;
    }
    assert_eq!(found, [expected]);
    let bytes = reading.lines.iter().map(|line| text(line).len()).sum::<usize>();
    assert!(bytes < 100 << 20, "{bytes}");
    assert!(text(reading.lines.last().unwrap()) == "line 00019");
}

#[tokio::test]
async fn a_window_of_more_than_eight_mebibytes_is_refused() {
    let bed = Bed::on_disk();
    // A frame says only how large a window it needs.
    let frame = |window_log: u8, text: &str| {
        let header = (u32::try_from(text.len()).unwrap() << 3 | 1).to_le_bytes();
        [&b"\x28\xb5\x2f\xfd\x00"[..], &[(window_log - 10) << 3], &header[..3], text.as_bytes()].concat()
    };
    fs::write(bed.path("app.log.2"), frame(23, &lines(0..10))).unwrap();
    fs::write(bed.path("app.log.1"), frame(24, &lines(10..20))).unwrap();
    bed.append(LOG, lines(20..30));
    let mut reading = bed.open(history(Start::Head)).await;
    reading.read_to_end().await;
    assert_eq!(reading.texts(), [numbers(0..10), numbers(20..30)].concat());
    assert_eq!(gaps(&reading.events), [gap_of("app.log.1", Fault::Memory)]);
}

#[tokio::test]
async fn a_fault_of_the_last_generation_is_reported_also_where_there_is_no_log() {
    for bed in Bed::both() {
        for (name, fault) in [("app.log.1.gz", Fault::Incomplete), ("app.log.1.xz", Fault::Format("xz"))] {
            let bytes = if fault == Fault::Incomplete { &b"\x1f\x8b\x08"[..] } else { b"\xfd7zXZ\0" };
            fs::write(bed.path("app.log.2"), lines(0..10)).unwrap();
            write_old(&bed, name, bytes);
            let mut reading = bed.open(history(Start::Head)).await;
            reading.read_to_end().await;
            assert_eq!((reading.texts(), gaps(&reading.events)), (numbers(0..10), vec![gap_of(name, fault)]));
            let waits = Query { history: true, wait_for_create: true, ..follow(Start::Head) };
            let mut reading = bed.open(waits).await;
            let is_gap = |event: &Event| matches!(event, Event::Gap { .. });
            reading.wait_for_event("the gap before there is a log", is_gap).await;
            bed.append(LOG, lines(10..20));
            reading.read_until("line 00019").await;
            assert_eq!((reading.texts(), gaps(&reading.events)), (numbers(0..20), vec![gap_of(name, fault)]));
            for name in ["app.log.2", name, LOG] {
                bed.remove(name);
            }
        }
    }
}
