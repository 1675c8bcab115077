//! Files with the same mark, compressed in two ways or one of them not.

use std::{
    fs::{self, File},
    time::{Duration, SystemTime},
};

use perennial::lines::{Fault, Start};

use super::{compress, faults::gap_of, gaps, gzip, history, lines, numbers, zstd};
use crate::bed::{Bed, LOG};

/// Writes ten lines, as they were written this many minutes ago.
fn write(bed: &Bed, name: &str, from: u32, minutes: u64) {
    fs::write(bed.path(name), lines(from..from + 10)).unwrap();
    let at = SystemTime::now() - Duration::from_secs(minutes * 60);
    File::options().write(true).open(bed.path(name)).unwrap().set_modified(at).unwrap();
}

#[tokio::test]
async fn a_rotation_that_was_changed_to_compress_otherwise_leaves_files_with_the_same_marks_and_all_are_read()
{
    for bed in Bed::both() {
        // First gzip, then zstd, then nothing: each began again at 1, and left the files before it where they were.
        for (at, name) in (0..).zip(["app.log.2", "app.log.1"]) {
            write(&bed, name, at * 10, 60 - u64::from(at));
            gzip(&bed, name);
        }
        for (at, name) in (2..).zip(["app.log.2", "app.log.1"]) {
            write(&bed, name, at * 10, 60 - u64::from(at));
            zstd(&bed, name);
        }
        for (at, name) in (4..).zip(["app.log.2", "app.log.1", LOG]) {
            write(&bed, name, at * 10, 60 - u64::from(at));
        }
        let mut reading = bed.open(history(Start::Head)).await;
        reading.read_to_end().await;
        assert_eq!((reading.texts(), gaps(&reading.events)), (numbers(0..70), vec![]));
        let parts = super::read_in_parts(&bed, 4).await;
        assert_eq!((parts.texts(), gaps(&parts.events)), (numbers(0..70), vec![]));
    }
}

#[tokio::test]
async fn a_generation_that_is_compressed_twice_or_just_now_is_read_once() {
    for bed in Bed::both() {
        write(&bed, "app.log.2", 0, 30);
        compress(&bed.path("app.log.2"), "gzip", &["-k"]);
        zstd(&bed, "app.log.2");
        write(&bed, "app.log.1", 10, 20);
        compress(&bed.path("app.log.1"), "gzip", &["-k"]);
        // It has only the start of the content by now.
        let start = fs::read(bed.path("app.log.1.gz")).unwrap();
        fs::write(bed.path("app.log.1.gz"), &start[..start.len() / 2]).unwrap();
        bed.append(LOG, lines(20..30));
        let mut reading = bed.open(history(Start::Head)).await;
        reading.read_to_end().await;
        assert_eq!((reading.texts(), gaps(&reading.events)), (numbers(0..30), vec![]));
    }
}

#[tokio::test]
async fn an_older_file_of_another_format_with_the_same_mark_is_a_gap() {
    for bed in Bed::both() {
        write(&bed, "app.log.1", 0, 30);
        compress(&bed.path("app.log.1"), "xz", &[]);
        write(&bed, "app.log.1", 10, 20);
        bed.append(LOG, lines(20..30));
        let mut reading = bed.open(history(Start::Head)).await;
        reading.read_to_end().await;
        let gap = gap_of("app.log.1.xz", Fault::Format("xz"));
        assert_eq!((reading.texts(), gaps(&reading.events)), (numbers(10..30), vec![gap]));
        // One that is made of the file just now has its lines.
        bed.remove("app.log.1.xz");
        compress(&bed.path("app.log.1"), "xz", &["-k"]);
        let mut reading = bed.open(history(Start::Head)).await;
        reading.read_to_end().await;
        assert_eq!((reading.texts(), gaps(&reading.events)), (numbers(10..30), vec![]));
    }
}

#[tokio::test]
async fn a_compressed_file_to_which_nothing_was_written_yet_is_no_generation_of_its_own() {
    for bed in Bed::both() {
        for ending in ["gz", "zst", "xz"] {
            let begun = bed.path(&format!("app.log.1.{ending}"));
            for bytes in [&b""[..], b"\x1f"] {
                write(&bed, "app.log.1", 0, 30);
                fs::write(&begun, bytes).unwrap();
                fs::write(bed.path(LOG), lines(10..20)).unwrap();
                let mut first = history(Start::Head);
                first.batching.max_items = 5;
                let mut reading = bed.open(first).await;
                reading.read_lines(5).await;
                // It gets its content after it was listed.
                if ending == "gz" {
                    fs::remove_file(&begun).unwrap();
                    gzip(&bed, "app.log.1");
                }
                reading.read_to_end().await;
                assert_eq!((reading.texts(), gaps(&reading.events)), (numbers(0..20), vec![]), "{ending}");
                fs::remove_file(&begun).unwrap();
            }
        }
        // One that was given up is there beside the one that replaced the file.
        write(&bed, "app.log.1", 0, 30);
        fs::write(bed.path("app.log.1.gz"), "").unwrap();
        zstd(&bed, "app.log.1");
        let mut reading = bed.open(history(Start::Head)).await;
        reading.read_to_end().await;
        assert_eq!((reading.texts(), gaps(&reading.events)), (numbers(0..20), vec![]));
    }
}
