//! Growth: lines that come in parts, long ones, and writers of all kinds.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    time::Duration,
};

use perennial::{
    lines::{Delimiter, Event, LongLine, MIN_ASKED_LINE_BYTES, Options, Query, Rules, Start},
    proto,
    stream::BATCH_BYTES,
};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use crate::bed::{Bed, LIMIT, Reading, bytes, follow, options, query, text};

const QUIET: Duration = Duration::from_millis(60);

/// How much is read at once, and the size of a page: where what is read is likely to be cut.
const BORDERS: [usize; 2] = [4096, 64 * 1024];

fn delimited(delimiter: &[u8]) -> Rules {
    Rules { delimiter: Delimiter::Bytes(delimiter.into()), ..Rules::default() }
}

fn with(rules: Rules, query: Query) -> Query {
    Query { rules, ..query }
}

/// Joins the pieces of lines: `continued` and `has_more` have to agree.
fn joined(lines: &[proto::Line]) -> Vec<Vec<u8>> {
    let mut joined = Vec::<Vec<u8>>::new();
    let mut goes_on = false;
    for line in lines {
        assert_eq!(line.continued, goes_on, "{:?}", line.offset);
        if line.continued {
            joined.last_mut().unwrap().extend(bytes(line));
        } else {
            joined.push(bytes(line));
        }
        goes_on = line.has_more || line.partial;
    }
    joined
}

#[tokio::test]
async fn a_line_in_two_writes_is_one_line() {
    for bed in Bed::both() {
        bed.append("app.log", "1\nfirst half,");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("1").await;
        reading.quiet_for(QUIET).await;
        bed.append("app.log", " second");
        reading.quiet_for(QUIET).await;
        bed.append("app.log", " half\n");
        reading.read_until("first half, second half").await;
        assert_eq!(reading.shown(), ["1", "first half, second half"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_lines_in_two_writes_are_whole() {
    const LINES: usize = 5000;
    for bed in Bed::both() {
        bed.append("app.log", "");
        let path = bed.path("app.log");
        let writer = std::thread::spawn(move || {
            let mut file = fs::File::options().append(true).open(path).unwrap();
            for n in 0..LINES {
                file.write_all(b"line ").unwrap();
                file.write_all(format!("{n}\n").as_bytes()).unwrap();
            }
        });
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_lines(LINES).await;
        writer.join().unwrap();
        assert!(reading.texts() == (0..LINES).map(|n| format!("line {n}")).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_write_that_is_seen_in_two_parts_is_one_line() {
    const LINES: usize = 2000;
    // A file system may show a part of a write, up to the border of a page.
    let line = |n: usize| format!("{n} {}", "x".repeat(9000));
    for bed in Bed::both() {
        bed.append("app.log", "");
        let path = bed.path("app.log");
        let writer = std::thread::spawn(move || {
            let mut file = fs::File::options().append(true).open(path).unwrap();
            (0..LINES).for_each(|n| file.write_all((line(n) + "\n").as_bytes()).unwrap());
        });
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_lines(LINES).await;
        writer.join().unwrap();
        assert!(reading.texts().into_iter().eq((0..LINES).map(line)));
    }
}

/// Writes a text in fragments, and follows it: everything comes, in order, once. With `partial_flush`, the first pause of the
/// writer ends when a part of a line has come.
async fn follow_fragments(bed: &Bed, partial_flush: Option<Duration>) -> Reading {
    const LINES: usize = 2000;
    let content = (0..LINES).map(|n| format!("{n} é€😀 {}\n", "y".repeat(n % 50))).collect::<String>();
    bed.append("app.log", "");
    let path = bed.path("app.log");
    let written = content.clone();
    let (has_come, comes) = std::sync::mpsc::channel();
    let writer = std::thread::spawn(move || {
        let mut file = fs::File::options().append(true).open(path).unwrap();
        let (mut rest, mut n) = (written.as_bytes(), 0);
        while !rest.is_empty() {
            n += 1;
            let (fragment, more) = rest.split_at(rest.len().min(n * 7919 % 97 + 1));
            file.write_all(fragment).unwrap();
            rest = more;
            if n == 50 && partial_flush.is_some() {
                comes.recv_timeout(LIMIT).unwrap();
            } else if n % 50 == 0 {
                // A pause within a line.
                std::thread::sleep(Duration::from_millis(12));
            }
        }
    });
    let mut reading = bed.open(Query { partial_flush, ..follow(Start::Head) }).await;
    let bytes = content.len() as u64;
    while reading.batch().await.unwrap().progress.next_offset < bytes {
        if reading.lines.iter().any(|line| line.partial) {
            // It is waited for once.
            let _ = has_come.send(());
        }
    }
    writer.join().unwrap();
    let lines = joined(&reading.lines).into_iter().map(|line| String::from_utf8(line).unwrap());
    assert!(lines.eq(content.lines().map(String::from)));
    reading
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_skipped_after_a_fragment() {
    for bed in Bed::both() {
        let reading = follow_fragments(&bed, None).await;
        assert!(reading.lines.iter().all(|line| !line.partial && !line.continued));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_skipped_after_a_fragment_that_was_sent_early() {
    for bed in Bed::both() {
        let reading = follow_fragments(&bed, Some(Duration::from_millis(10))).await;
        assert!(reading.lines.iter().any(|line| line.partial));
    }
}

#[tokio::test]
async fn a_partial_line_is_held_or_sent_flagged_after_a_silence_and_its_rest_is_flagged_continued() {
    for bed in Bed::both() {
        bed.append("app.log", "1\npar");
        let mut held = bed.open(follow(Start::Head)).await;
        let mut reading =
            bed.open(Query { partial_flush: Some(Duration::from_millis(30)), ..follow(Start::Head) }).await;
        reading.read_until("par").await;
        assert_eq!(reading.shown(), ["1", "par~"]);
        reading.quiet_for(QUIET).await;
        // A reader that resumes after the part gets the rest flagged as continued.
        let mut resumed = bed.open(follow(reading.resume())).await;
        bed.append("app.log", "t\n2\n");
        for (reading, expected) in [
            (&mut reading, &["1", "par~", "t<", "2"][..]),
            (&mut resumed, &["t<", "2"]),
            (&mut held, &["1", "part", "2"]),
        ] {
            reading.read_until("2").await;
            assert_eq!(reading.shown(), expected);
        }
        let offsets = reading.lines.iter().map(|line| line.offset.unwrap()).collect::<Vec<_>>();
        assert_eq!(offsets, [0, 2, 5, 7]);
        let numbers = reading.lines.iter().map(|line| line.number.unwrap()).collect::<Vec<_>>();
        assert_eq!(numbers, [1, 2, 2, 3]);
    }
}

#[tokio::test]
async fn a_partial_line_at_a_rotation_or_deletion_is_flagged_before_the_new_file() {
    for bed in Bed::both() {
        bed.append("app.log", "1\npart");
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("1").await;
        bed.rename("app.log", "app.log.1");
        bed.append("app.log", "2\nrest");
        reading.read_until("2").await;
        assert_eq!(reading.shown(), ["1", "part$", "2"]);
        assert_eq!(reading.take_events(), [Event::Rotated { next_offset: 0 }]);
        bed.remove("app.log");
        reading.wait_for_event("deleted", |event| *event == Event::Deleted).await;
        assert_eq!(reading.shown(), ["1", "part$", "2", "rest$"]);
        bed.append("app.log", "3\n");
        reading.read_until("3").await;
        assert_eq!(reading.shown(), ["1", "part$", "2", "rest$", "3"]);
        let numbers = reading.lines.iter().map(|line| line.number.unwrap()).collect::<Vec<_>>();
        assert_eq!(numbers, [1, 2, 1, 2, 1]);
    }
}

#[tokio::test]
async fn delimiters_are_found_across_every_border() {
    for bed in Bed::both() {
        for (delimiter, rules) in
            [("\r\n", Rules::default()), ("\r\n", delimited(b"\r\n")), ("\n---\n", delimited(b"\n---\n"))]
        {
            for (border, shift) in
                BORDERS.into_iter().flat_map(|border| (0..=6).map(move |shift| (border, shift)))
            {
                let first = "x".repeat(border - shift);
                fs::write(
                    bed.path("app.log"),
                    format!("{first}{delimiter}2{delimiter}{delimiter}4{delimiter}"),
                )
                .unwrap();
                let lines = bed.all(with(rules.clone(), query(Start::Head))).await;
                assert!(lines == [&first, "2", "", "4"], "{delimiter:?} {border} - {shift}");
            }
        }
    }
}

#[tokio::test]
async fn delimiters_that_are_written_byte_by_byte_are_found() {
    for bed in Bed::both() {
        for (name, delimiter, rules) in [
            ("1", "\r\n", Rules::default()),
            ("2", "\r\n", delimited(b"\r\n")),
            ("3", "\n---\n", delimited(b"\n---\n")),
            ("4", "\0", delimited(b"\0")),
        ] {
            bed.append(name, "");
            let early = Some(Duration::from_millis(10));
            let of = |partial_flush| {
                let query = Query { path: format!("r/{name}"), partial_flush, ..follow(Start::Head) };
                bed.open(with(rules.clone(), query))
            };
            let (mut held, mut early) = (of(None).await, of(early).await);
            for n in 0..3 {
                for byte in format!("{n}{delimiter}").into_bytes() {
                    bed.append(name, [byte]);
                    // Only after the reader got the part before.
                    if byte == b'0' + n {
                        early.read_until(&n.to_string()).await;
                    }
                }
            }
            held.read_until("2").await;
            assert_eq!(held.shown(), ["0", "1", "2"], "{delimiter:?}");
            bed.append(name, format!("end{delimiter}"));
            early.read_until("end").await;
            let lines = joined(&early.lines).into_iter().map(|line| String::from_utf8(line).unwrap());
            assert_eq!(lines.collect::<Vec<_>>(), ["0", "1", "2", "end"], "{delimiter:?}");
        }
    }
}

#[tokio::test]
async fn long_lines_are_whole_up_to_the_limit() {
    const LENGTHS: [usize; 5] = [4097, 65 * 1024, 1024 * 1024, 10 * 1024 * 1024, 4095];
    let large = Options { max_line_bytes: 10 * 1024 * 1024, ..options() };
    for bed in Bed::both_with(large) {
        let line = |length: usize| "abcdefghijklmnopqrstuvw".repeat(length / 23 + 1)[..length].to_string();
        bed.append("app.log", "");
        let mut reading = bed.open(follow(Start::Head)).await;
        for length in LENGTHS {
            bed.append("app.log", line(length) + "\n");
        }
        reading.read_lines(LENGTHS.len()).await;
        assert!(reading.texts().into_iter().eq(LENGTHS.map(line)));
        assert!(reading.shown() == reading.texts(), "none has a flag");
        assert!(bed.all(query(Start::Last(2))).await.into_iter().eq([LENGTHS[3], LENGTHS[4]].map(line)));
    }
}

#[tokio::test]
async fn a_cut_never_splits_a_character() {
    let content = "aé€😀".repeat(500) + "\n" + &"😀".repeat(300) + "\n";
    for bed in Bed::both() {
        bed.append("app.log", &content);
        for max_line_bytes in MIN_ASKED_LINE_BYTES..40 {
            for long_line in [LongLine::Split, LongLine::Truncate] {
                let rules = Rules { max_line_bytes: Some(max_line_bytes), long_line, ..Rules::default() };
                let mut reading = bed.open(with(rules, query(Start::Head))).await;
                reading.read_to_end().await;
                for line in &reading.lines {
                    assert!(matches!(line.content, Some(proto::line::Content::Text(_))), "{line:?}");
                    assert!(text(line).len() <= max_line_bytes);
                }
                if long_line == LongLine::Split {
                    let lines =
                        joined(&reading.lines).into_iter().map(|line| String::from_utf8(line).unwrap());
                    assert!(lines.eq(content.lines().map(String::from)));
                }
            }
        }
    }
}

#[tokio::test]
async fn one_endless_line_does_not_loop() {
    const PART_BYTES: usize = 2 * 1024 * 1024;
    const LIMIT_BYTES: usize = 64 * 1024;
    for bed in Bed::both() {
        for long_line in [LongLine::Split, LongLine::Truncate, LongLine::Skip] {
            fs::write(bed.path("app.log"), "x".repeat(PART_BYTES)).unwrap();
            let rules = Rules { max_line_bytes: Some(LIMIT_BYTES), long_line, ..Rules::default() };
            let mut reading = bed.open(with(rules, follow(Start::Head))).await;
            let mut batches = 0;
            for part in 1..=4 {
                if part > 1 {
                    bed.append("app.log", "x".repeat(PART_BYTES));
                }
                // Of a line that is left out nothing more is sent.
                let sends = part == 1 || long_line == LongLine::Split;
                let (mut at, to) = (0, if sends { part * PART_BYTES - LIMIT_BYTES - 2 } else { 0 });
                while at < to as u64 {
                    let batch = reading.batch().await.unwrap();
                    assert!(batch.bytes() <= LIMIT_BYTES + BATCH_BYTES + 100, "memory is bounded");
                    (at, batches) = (batch.progress.next_offset, batches + 1);
                }
            }
            bed.append("app.log", "end\nnext\n");
            while reading.lines.last().is_none_or(|line| text(line) != "next") {
                reading.batch().await.unwrap();
                batches += 1;
            }
            assert!(batches < 8 * PART_BYTES / LIMIT_BYTES, "{long_line:?}: {batches} batches");
            let (last, line) = reading.lines.split_last().unwrap();
            let whole = joined(line);
            let flags = (line[0].has_more, line[0].truncated, line[0].skipped);
            match long_line {
                LongLine::Split => {
                    assert!(whole == [("x".repeat(4 * PART_BYTES) + "end").into_bytes()]);
                    assert_eq!(flags, (true, false, false));
                }
                LongLine::Truncate => {
                    assert!(whole == ["x".repeat(LIMIT_BYTES).into_bytes()]);
                    assert_eq!(flags, (false, true, false));
                }
                LongLine::Skip => assert_eq!((whole, flags), (vec![vec![]], (false, false, true))),
            }
            assert_eq!(
                (last.number, last.offset),
                (Some(2), Some(i64::try_from(4 * PART_BYTES + 4).unwrap()))
            );
        }
    }
}

#[tokio::test]
async fn empty_lines_are_lines() {
    for bed in Bed::both() {
        bed.append("app.log", "\n\n1\n\r\n\n");
        assert_eq!(bed.all(query(Start::Head)).await, ["", "", "1", "", ""]);
        assert_eq!(bed.all(query(Start::Last(2))).await, ["", ""]);
        assert_eq!(bed.all(query(Start::Last(3))).await, ["1", "", ""]);
        assert_eq!(bed.all(query(Start::Line(4))).await, ["", ""]);
        let mut reading = bed.open(follow(Start::Last(0))).await;
        reading.batch().await.unwrap();
        bed.append("app.log", "\n");
        reading.read_lines(1).await;
        bed.append("app.log", "\n\n");
        reading.read_lines(3).await;
        assert_eq!(reading.texts(), ["", "", ""]);
    }
}

#[tokio::test]
async fn append_only_files_are_read() {
    for bed in Bed::both() {
        bed.append("app.log", "1\n");
        fs::set_permissions(bed.path("app.log"), fs::Permissions::from_mode(0o444)).unwrap();
        let file = fs::File::options().append(true).open(bed.path("app.log"));
        let append_only = |set| {
            let file = fs::File::open(bed.path("app.log")).unwrap();
            // Only root may; the permissions alone are as good as nothing else can be.
            ioctl_getflags(&file).and_then(|flags| {
                let flags = if set { flags | IFlags::APPEND } else { flags - IFlags::APPEND };
                ioctl_setflags(&file, flags)
            })
        };
        println!("append-only: {:?}", append_only(true));
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("1").await;
        if let Ok(mut file) = file {
            file.write_all(b"2\n").unwrap();
            reading.read_until("2").await;
        }
        assert_eq!(bed.all(query(Start::Last(1))).await, reading.texts()[reading.lines.len() - 1..]);
        let _ = append_only(false);
    }
}

/// Writes `2`, and a newline after it, into a file of two bytes and one that is not written yet, by mmap alone.
const MMAP: &str = "
import mmap, sys
with open(sys.argv[1], 'r+b') as file:
    memory = mmap.mmap(file.fileno(), 4)
    sys.stdin.readline()
    memory[2:4] = b'2\\n'
    print('written', flush=True)
    sys.stdin.readline()
";

#[tokio::test]
#[ignore = "needs python3"]
async fn lines_written_by_mmap_are_seen_though_nothing_reports_them() {
    for bed in Bed::both() {
        // Reserved first, as a writer by mmap must.
        bed.append("app.log", "1\n\0\0");
        let mut writer = Command::new("python3")
            .args(["-c", MMAP])
            .arg(bed.path("app.log"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut reading = bed.open(follow(Start::Head)).await;
        reading.read_until("1").await;
        reading.quiet_for(QUIET).await;
        writer.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
        let mut said = std::io::BufReader::new(writer.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut said, &mut String::new()).unwrap();
        reading.read_until("2").await;
        assert_eq!((reading.texts(), &reading.events[..]), (vec!["1".into(), "2".into()], &[][..]));
        drop(writer.stdin.take());
        writer.wait().unwrap();
    }
}
