//! Content: what is in a file that is no plain text, or that is no file.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, symlink},
        net::UnixListener,
    },
    time::SystemTime,
};

use perennial::{
    lines::{Error, Event, Query, Start},
    proto::{ReadLinesRequest, line::Content, read_lines_request},
    stream::Batching,
};
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, mkfifoat, mknodat};

use crate::{
    bed::{Bed, Reading, bytes, follow, query, query_of, shown},
    harness::{Server, soon},
};

#[tokio::test]
async fn a_byte_order_mark_is_content_and_a_resume_after_it_decodes() {
    for bed in Bed::both() {
        bed.append("app.log", "\u{feff}1\n2\n");
        let batching = Batching { max_items: 1, ..Batching::default() };
        let mut reading = bed.open(Query { batching, ..query(Start::Head) }).await;
        reading.batch().await.unwrap();
        assert_eq!(reading.texts(), ["\u{feff}1"]);
        assert_eq!(bed.all(query(reading.resume())).await, ["2"]);
        // A place within it is one within a character: what is left is no text.
        let mut within = bed.open(query(Start::Offset(1))).await;
        within.read_to_end().await;
        assert_eq!(bytes(&within.lines[0]), b"\xbb\xbf1");
        assert!(matches!(within.lines[0].content, Some(Content::Data(_))) && within.lines[0].continued);
    }
}

#[tokio::test]
async fn a_line_that_is_not_utf_8_is_delivered_as_bytes_and_the_stream_goes_on() {
    let invalid: [&[u8]; 6] =
        [b"\xff", b"a\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80"];
    for bed in Bed::both() {
        bed.append("app.log", "");
        let mut reading = bed.open(follow(Start::Head)).await;
        for (n, invalid) in invalid.iter().enumerate() {
            let text = format!("text {n} é\n");
            bed.append("app.log", [text.as_bytes(), invalid, b"\n", text.as_bytes()].concat());
        }
        reading.read_lines(3 * invalid.len()).await;
        for (n, lines) in reading.lines.chunks(3).enumerate() {
            for line in [&lines[0], &lines[2]] {
                assert_eq!(line.content, Some(Content::Text(format!("text {n} é"))));
            }
            assert_eq!(lines[1].content, Some(Content::Data(invalid[n].to_vec())));
        }
    }
}

#[tokio::test]
async fn the_last_line_of_a_sparse_file_is_found_without_reading_it() {
    const SIZE: u64 = 20 << 30;
    let server = Server::start();
    let file = fs::File::create(server.log_file("app.log")).unwrap();
    file.write_all_at(b"first\n", 0).unwrap();
    file.write_all_at(b"\nlast\n", SIZE).unwrap();
    let read = || {
        let io = fs::read_to_string(format!("/proc/{}/io", server.id())).unwrap();
        io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse::<u64>().unwrap()
    };
    let before = read();
    let start = Some(read_lines_request::Start::Last(1));
    let request = ReadLinesRequest { path: "logs/app.log".into(), start, ..Default::default() };
    let mut stream = soon("a stream", server.lines().await.read_lines(request)).await.unwrap().into_inner();
    let response = soon("the last line", stream.message()).await.unwrap().unwrap();
    assert_eq!(response.lines.iter().map(shown).collect::<Vec<_>>(), ["last"]);
    assert!(read() - before < 1024 * 1024, "of 20 GiB, {} bytes were read", read() - before);
}

#[tokio::test]
async fn the_holes_of_a_sparse_file_are_reported_and_both_its_ends_are_read() {
    const SIZE: u64 = 20 << 30;
    for bed in Bed::both() {
        let file = fs::File::create(bed.path("app.log")).unwrap();
        file.write_all_at(b"first\n", 0).unwrap();
        file.write_all_at(b"last\n", SIZE).unwrap();
        let hole = Event::Hole { offset: 6, bytes: SIZE - 6 };
        for (start, lines, events) in [
            (Start::Head, &["first", "last"][..], std::slice::from_ref(&hole)),
            (Start::Last(1), &["last"], &[]),
            (Start::Last(2), &["first", "last"], std::slice::from_ref(&hole)),
            (Start::Offset(SIZE), &["last"], &[]),
        ] {
            let mut reading = bed.open(query(start.clone())).await;
            reading.read_to_end().await;
            assert_eq!(
                (reading.texts(), &reading.events[..]),
                (lines.iter().map(ToString::to_string).collect(), events),
                "{start:?}"
            );
        }
    }
}

#[tokio::test]
async fn other_than_regular_files_are_not_found_and_do_not_block() {
    for bed in Bed::both() {
        mkfifoat(CWD, bed.path("fifo"), Mode::RWXU).unwrap();
        let _socket = UnixListener::bind(bed.path("socket")).unwrap();
        symlink("/dev/zero", bed.path("zero")).unwrap();
        symlink("fifo", bed.path("link")).unwrap();
        symlink("circle", bed.path("circle")).unwrap();
        fs::create_dir(bed.path("directory")).unwrap();
        // Only root may make one; then it is refused like the others, and else it is missing.
        let _ = mknodat(
            CWD,
            bed.path("device"),
            FileType::CharacterDevice,
            Mode::RWXU,
            rustix::fs::makedev(1, 5),
        );
        let names = ["link", "fifo", "socket", "zero", "circle", "directory", "device"];
        for name in names {
            for start in [Start::Head, Start::Last(1), Start::Line(2), Start::Offset(1)] {
                let follow = Query { follow: true, ..query_of(name, start.clone()) };
                for query in [query_of(name, start), follow] {
                    let error = bed.try_open(query).await.err().unwrap();
                    assert!(matches!(error, Error::NotFound { .. }), "{name}: {error:?}");
                }
            }
        }
        assert!(bed.files.list(None, 10, None, SystemTime::now()).await.unwrap().files.is_empty());
        // A reader that waits gets the file that takes its place.
        for name in names {
            let query = Query { follow: true, wait_for_create: true, ..query_of(name, Start::Head) };
            let mut reading = bed.open(query).await;
            reading.batch().await.unwrap();
            bed.append("new", "1\n");
            if name == "directory" {
                fs::remove_dir(bed.path(name)).unwrap();
            }
            bed.rename("new", name);
            reading.read_until("1").await;
            assert_eq!(reading.texts(), ["1"]);
        }
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_by_a_fifo_counts_as_deleted() {
    for bed in Bed::both() {
        bed.append("app.log", "1\n");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("1").await;
        mkfifoat(CWD, bed.path("fifo"), Mode::RWXU).unwrap();
        bed.rename("fifo", "app.log");
        reading.wait_for_event("deleted", |event| *event == Event::Deleted).await;
        bed.append("new", "2\n");
        bed.rename("new", "app.log");
        reading.read_until("2").await;
        assert_eq!(reading.events, [Event::Deleted, Event::Opened { size: 2 }]);
    }
}

#[tokio::test]
async fn names_that_are_not_utf_8_are_not_listed_and_do_no_harm() {
    for bed in Bed::both() {
        let strange = |name: &[u8]| bed.path("").join(OsStr::from_bytes(name));
        for name in [&b"\xff"[..], b"app.log\xff", b"app.log.\xc3"] {
            fs::write(strange(name), "x\n").unwrap();
        }
        fs::create_dir(strange(b"\xffdirectory")).unwrap();
        fs::write(strange(b"\xffdirectory").join("in.log"), "x\n").unwrap();
        bed.append("app.log", "1\n");
        let listed = bed.files.list(None, 10, None, SystemTime::now()).await.unwrap().files;
        assert_eq!(listed.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["r/app.log"]);
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("1").await;
        // Renamed to a name that is not UTF-8, and written to there.
        fs::rename(bed.path("app.log"), strange(b"app.log.\xff1")).unwrap();
        fs::write(strange(b"\xff"), "y\n").unwrap();
        bed.append("app.log", "2\n");
        reading.read_until("2").await;
        fs::rename(strange(b"app.log.\xff1"), strange(b"\xff2")).unwrap();
        bed.append("app.log", "3\n");
        reading.read_until("3").await;
        assert_eq!(reading.texts(), ["1", "2", "3"]);
    }
}

#[tokio::test]
async fn names_with_newlines_and_other_signs_can_be_listed_read_and_followed() {
    for bed in Bed::both() {
        let names = ["\n", " ", "-rf", "\\", "a\nb.log", "tab\t", "é€😀.log", "\u{202e}gol", "…", "%2e%2e"];
        let long = "x".repeat(255);
        for name in names.into_iter().chain([long.as_str()]) {
            bed.append(name, "1\n");
            let mut reading = bed.open(Query { follow: true, ..query_of(name, Start::Head) }).await;
            reading.read_until("1").await;
            bed.append(name, "2\n");
            reading.read_until("2").await;
            assert_eq!(reading.texts(), ["1", "2"]);
        }
        let listed = bed.files.list(None, 100, None, SystemTime::now()).await.unwrap().files;
        let mut expected = names.map(|name| format!("r/{name}")).to_vec();
        expected.push(format!("r/{long}"));
        expected.sort();
        assert_eq!(listed.into_iter().map(|file| file.path).collect::<Vec<_>>(), expected);
    }
}

/// Compares what came with the file: lines and holes follow one another, with only line ends between them.
fn reconstruct(reading: &Reading, file: &[u8]) {
    let index = |offset: Option<i64>| usize::try_from(offset.unwrap()).unwrap();
    let holes = reading.events.iter().filter_map(|event| match *event {
        Event::Hole { offset, bytes } => {
            let (offset, bytes) = (usize::try_from(offset).unwrap(), usize::try_from(bytes).unwrap());
            Some((offset, vec![0; bytes]))
        }
        _ => None,
    });
    let mut parts =
        reading.lines.iter().map(|line| (index(line.offset), bytes(line))).chain(holes).collect::<Vec<_>>();
    parts.sort_by_key(|(offset, part)| (*offset, part.len()));
    let mut at = 0;
    for (offset, part) in parts.into_iter().chain([(file.len(), Vec::new())]) {
        let between = &file[at..offset];
        assert!(matches!(between, b"" | b"\n" | b"\r\n"), "{} bytes at {at} are missing", between.len());
        assert!(file[offset..offset + part.len()] == part, "at {offset}");
        at = offset + part.len();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn holes_at_any_offset_are_reported_and_lose_no_byte(
        writes in proptest::collection::vec(
            (prop_oneof![0_u64..200_000, 0_u64..10_000, Just(65_536_u64), Just(4096)], "[ab\n\r]{1,200}"), 0..6),
        size in prop_oneof![Just(0_u64), 0_u64..300_000],
        max_items in prop_oneof![1_usize..4, Just(usize::MAX)],
        max_line_bytes in proptest::option::of(16_usize..100),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for bed in Bed::both() {
                let file = fs::File::create(bed.path("app.log")).unwrap();
                for (offset, text) in &writes {
                    file.write_all_at(text.as_bytes(), *offset).unwrap();
                }
                file.set_len(size.max(file.metadata().unwrap().len())).unwrap();
                let content = fs::read(bed.path("app.log")).unwrap();
                let batching = Batching { max_items, ..Batching::default() };
                let of = |start| {
                    let mut query = Query { batching: batching.clone(), ..query(start) };
                    query.rules.max_line_bytes = max_line_bytes;
                    query
                };
                let mut whole = bed.open(of(Start::Head)).await;
                whole.read_to_end().await;
                reconstruct(&whole, &content);
                // The same, cut after every batch.
                let (mut lines, mut events) = (Vec::new(), Vec::<Event>::new());
                let mut start = Start::Head;
                loop {
                    let mut reading = bed.open(of(start)).await;
                    let Some(batch) = reading.batch().await else { break };
                    lines.append(&mut reading.lines);
                    let holes = reading.events.iter().filter(|event| matches!(event, Event::Hole { .. }));
                    events.extend(holes.cloned());
                    if batch.progress.caught_up {
                        break;
                    }
                    start = reading.resume();
                }
                assert!(lines == whole.lines);
                assert_eq!(events, whole.events);
            }
        });
    }
}
