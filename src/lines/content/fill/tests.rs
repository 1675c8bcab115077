//! Files that change while they are read.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{fs::File, os::unix::fs::FileExt, sync::atomic::Ordering};

use super::*;

fn request(checkpoint: Checkpoint) -> Request {
    Request {
        checkpoint,
        bounds: Bounds { max_items: 10, max_bytes: 1 << 20 },
        rules: Arc::new(Rules { max_line_bytes: Some(100_000), ..Rules::default() }),
        flush: None,
        flush_at: None,
        end: None,
        settled: 0,
        checks_holes: false,
    }
}

/// A file with a line, and another descriptor for its writer.
fn written(text: &str) -> (File, File) {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(text.as_bytes(), 0).unwrap();
    (file.try_clone().unwrap(), file)
}

fn rewrite(file: &File, text: &str) {
    file.set_len(0).unwrap();
    file.write_all_at(text.as_bytes(), 0).unwrap();
}

fn read(file: &File, checkpoint: Checkpoint) -> Filled {
    fill(file, &request(checkpoint), &AtomicBool::new(false)).unwrap()
}

#[test]
fn a_file_that_is_truncated_while_it_is_read_is_no_error() {
    let (file, writer) = written("a line\n");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                rewrite(&writer, "a line\n");
            }
        });
        let bounds = Bounds { max_items: 1, max_bytes: 1 << 20 };
        let request = Request { bounds, ..request(Checkpoint::start()) };
        let mut looks = (0..5_000).map(|_| fill(&file, &request, &AtomicBool::new(false)));
        let fault = looks.find_map(Result::err);
        is_over.store(true, Ordering::Relaxed);
        assert!(fault.is_none(), "{fault:?}");
    });
}

/// A rewriting between the read that proves the file and the one that finds its end.
#[test]
fn no_part_of_a_line_of_a_rewritten_file_is_taken_for_the_next_line() {
    // The bytes before the offset prove the whole file, or its head and its end.
    for length in [20, 3_000] {
        for round in 0..1_000 {
            let (file, writer) = written(&format!("{round} {}\n", "a".repeat(length)));
            let checkpoint = read(&file, Checkpoint::start()).checkpoint;
            let longer = format!("again {round} {}\n", "b".repeat(2 * length));
            std::thread::scope(|scope| {
                scope.spawn(|| rewrite(&writer, &longer));
                while let filled = read(&file, checkpoint)
                    && filled.ended != Ended::Truncated
                {
                    assert_eq!(filled.count, 0, "{:?} of round {round}", filled.items);
                }
            });
        }
    }
}

/// NULs that are reserved become text between two reads: that is no rewriting.
#[test]
fn a_line_that_is_written_into_reserved_space_while_it_is_read_is_read_whole() {
    for round in 0..1_000 {
        let (file, writer) = written(&format!("{round}\n{}", "\0".repeat(8)));
        let checkpoint = read(&file, Checkpoint::start()).checkpoint;
        std::thread::scope(|scope| {
            scope.spawn(|| writer.write_all_at(b"second\n", checkpoint.line.offset).unwrap());
            loop {
                let filled = read(&file, checkpoint);
                assert_ne!(filled.ended, Ended::Truncated, "round {round}");
                if filled.count > 0 {
                    break;
                }
            }
        });
    }
}
