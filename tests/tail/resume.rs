//! `perennial lines --resume FILE`: no line is lost, and none comes twice that was before the saved cursor.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    Run,
    harness::{PATIENCE, Server, append, mount::Mount, wait},
    ran,
};

pub fn place(server: &Server) -> (PathBuf, String) {
    let path = server.directory().join("place");
    let text = path.to_str().unwrap().to_owned();
    (path, text)
}

/// Waits until a file has another content than this.
fn wait_for_change(path: &Path, before: &str) -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        let now = fs::read_to_string(path).unwrap_or_default();
        if now != before {
            return now;
        }
        assert!(Instant::now() < end, "{} does not change", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn numbered(range: std::ops::Range<usize>) -> String {
    range.map(|n| format!("line {n}\n")).collect()
}

#[test]
fn a_stopped_run_is_continued_exactly() {
    let server = Server::start();
    let log = server.log_file("app.log");
    let (file, place) = place(&server);
    append(&log, &numbered(0..5));
    let arguments = ["lines", "logs/app.log", "-n", "2", "-f", "--max-batch", "1", "--resume", &place];
    let mut first = Run::start(&server, &arguments);
    assert_eq!([first.line(), first.line()], ["line 3", "line 4"]);
    append(&log, &numbered(5..6));
    assert_eq!(first.line(), "line 5");
    let (code, rest, said) = first.end(Signal::INT);
    assert_eq!((code, rest.as_str()), (Some(130), ""));
    // The command that continues names the file, and needs no cursor.
    let command = said.lines().last().unwrap();
    assert!(command.ends_with(&format!("lines logs/app.log -f --max-batch 1 --resume {place}")), "{said}");
    let kept = fs::read_to_string(&file).unwrap();
    assert!(
        kept.starts_with("perennial cursor 2 lines\n") && kept.ends_with(" logs/app.log\nend\n"),
        "{kept}"
    );

    append(&log, &numbered(6..9));
    let mut second = Run::start(&server, &arguments);
    assert_eq!([second.line(), second.line(), second.line()], ["line 6", "line 7", "line 8"]);
    let (_, rest, said) = second.end(Signal::INT);
    assert_eq!(rest, "");
    assert_eq!(said.matches(&format!("-- continuing from {place} --")).count(), 1, "{said}");

    append(&log, &numbered(9..10));
    let third = ["lines", "logs/app.log", "--resume", &place];
    assert_eq!(ran(&server, &third).1, "line 9\n");
    assert_eq!(ran(&server, &third).1, "");
}

#[test]
fn a_live_run_that_is_killed_repeats_no_line_before_the_saved_cursor() {
    let server = Server::start();
    let log = server.log_file("app.log");
    let (file, place) = place(&server);
    append(&log, "");
    let arguments = ["lines", "logs/app.log", "-f", "--max-batch", "1", "--resume", &place];
    for n in 0..4 {
        let mut run = Run::start(&server, &arguments);
        let before = fs::read_to_string(&file).unwrap_or_default();
        append(&log, &numbered(n..n + 1));
        assert_eq!(run.line(), format!("line {n}"));
        // Live, the place is saved at once.
        let mut kept = wait_for_change(&file, &before);
        while !kept.contains(" logs/app.log") {
            kept = wait_for_change(&file, &kept);
        }
        let (_, rest, _) = run.end(Signal::KILL);
        assert_eq!(rest, "");
    }
}

#[test]
fn a_run_that_is_killed_in_bulk_loses_no_line() {
    const LINES: usize = 400_000;
    let server = Server::start();
    append(&server.log_file("big.log"), &numbered(0..LINES));
    let (file, place) = place(&server);
    let arguments = ["lines", "logs/big.log", "--resume", &place];
    let number = |line: &str| line.strip_prefix("line ").and_then(|n| n.parse::<usize>().ok());
    let mut run = Run::start(&server, &arguments);
    let mut printed = 0;
    let mut paced = Instant::now();
    // Slow enough that the place is saved on the way; and then it goes on.
    let mut left = 20_000;
    while left > 0 {
        assert_eq!(number(&run.line()), Some(printed));
        printed += 1;
        if printed.is_multiple_of(1_000) {
            std::thread::sleep(Duration::from_millis(20).saturating_sub(paced.elapsed()));
            paced = Instant::now();
        }
        let is_saved = left < 20_000 || fs::read_to_string(&file).unwrap().contains(" logs/big.log");
        left -= usize::from(is_saved);
    }
    let (_, rest, _) = run.end(Signal::KILL);
    // The last one may be cut in the middle.
    let whole = rest.rfind('\n').map_or("", |end| &rest[..end]);
    for line in whole.lines() {
        assert_eq!(number(line), Some(printed));
        printed += 1;
    }
    assert!(printed < LINES);
    let (code, out, said) = ran(&server, &arguments);
    assert_eq!(code, Some(0), "{said}");
    let again = out.lines().map(|line| number(line).unwrap()).collect::<Vec<_>>();
    assert!(0 < again[0] && again[0] <= printed, "{} of {printed}", again[0]);
    assert!(again.iter().copied().eq(again[0]..LINES));
}

#[test]
fn one_cursor_file_resumes_several_files() {
    let server = Server::start();
    let (file, place) = place(&server);
    append(&server.log_file("a.log"), "1\n");
    append(&server.log_file("b.log"), "2\n");
    let both = ["lines", "logs/a.log", "logs/b.log", "-q", "--resume", &place];
    assert_eq!(ran(&server, &both).1.len(), 4);
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 4);
    append(&server.log_file("b.log"), "3\n");
    assert_eq!(ran(&server, &both).1, "3\n");
    // One more begins at its start, and the others go on.
    append(&server.log_file("c.log"), "4\n");
    assert_eq!(ran(&server, &[&both[..], &["logs/c.log"]].concat()).1, "4\n");
    assert_eq!(ran(&server, &[&both[..], &["logs/c.log"]].concat()).1, "");
}

#[test]
fn a_cursor_file_of_something_else_is_refused_and_not_changed() {
    let server = Server::start();
    let (file, place) = place(&server);
    append(&server.log_file("a.log"), "1\n");
    append(&server.log_file("b.log"), "2\n");
    assert_eq!(ran(&server, &["lines", "logs/a.log", "--resume", &place]).1, "1\n");
    let kept = fs::read_to_string(&file).unwrap();
    let (code, out, said) = ran(&server, &["lines", "logs/b.log", "--resume", &place]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(said.contains("logs/a.log") && said.contains(&place), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), kept);
    fs::write(&file, "buy milk\n").unwrap();
    let (code, _, said) = ran(&server, &["lines", "logs/a.log", "--resume", &place]);
    assert_eq!(code, Some(1));
    assert!(said.contains("not a file of cursors"), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "buy milk\n");
}

#[test]
fn a_cursor_file_without_a_cursor_is_an_error_and_no_fresh_start() {
    let server = Server::start();
    let (file, place) = place(&server);
    append(&server.log_file("a.log"), "1\n2\n");
    let arguments = ["lines", "logs/a.log", "--resume", &place];
    assert_eq!(ran(&server, &arguments).1, "1\n2\n");
    let whole = fs::read_to_string(&file).unwrap();
    for (content, why) in [
        ("", "is empty"),
        ("\n", "is empty"),
        (&whole[..whole.len() / 2], "is not whole"),
        (whole.lines().next().unwrap(), "is not whole"),
        (&whole.replace(" lines\n", " messages\n"), "for another command"),
    ] {
        fs::write(&file, content).unwrap();
        let (code, out, said) = ran(&server, &arguments);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{content:?}: {said}");
        assert!(said.contains(&place) && said.contains(why), "{content:?}: {said}");
        assert_eq!(fs::read_to_string(&file).unwrap(), content);
    }
    let directory = server.directory().to_str().unwrap();
    let (code, _, said) = ran(&server, &["lines", "logs/a.log", "--resume", directory]);
    assert_eq!(code, Some(1));
    assert!(said.contains("is a directory"), "{said}");
}

#[test]
fn a_cursor_of_another_method_is_refused_with_the_remedy() {
    let server = Server::start();
    let (file, place) = place(&server);
    append(&server.log_file("a.log"), "1\n");
    let mut watch = Run::start(&server, &["-o", "raw", "countdown", "9"]);
    assert_eq!(watch.line(), "9");
    let (_, _, said) = watch.end(Signal::INT);
    let cursor = said.split_whitespace().last().unwrap();
    fs::write(&file, format!("perennial cursor 2 lines\n{cursor} logs/a.log\nend\n")).unwrap();
    let (code, out, said) = ran(&server, &["lines", "logs/a.log", "--resume", &place]);
    assert_eq!((code, out.as_str()), (Some(64 + 3), ""), "{said}");
    assert!(said.contains(&format!("delete {place} to read from the start")), "{said}");
}

#[test]
#[ignore = "mounts a tmpfs: needs root"]
fn a_full_disk_ends_the_run_with_the_command_that_continues_exactly() {
    let server = Server::start();
    let mount = Mount::new();
    let file = mount.path().join("place");
    let log = server.log_file("app.log");
    append(&log, "1\n");
    let place = file.to_str().unwrap();
    let arguments = ["lines", "logs/app.log", "-f", "--max-batch", "1", "--resume", place];
    let mut run = Run::start(&server, &arguments);
    assert_eq!(run.line(), "1");
    let mut kept = String::new();
    while !kept.contains(" logs/app.log") {
        kept = wait_for_change(&file, &kept);
    }
    mount.fill();
    append(&log, "2\n");
    assert_eq!(run.line(), "2");
    let (mut rest, mut said) = (String::new(), String::new());
    run.out.read_to_string(&mut rest).unwrap();
    run.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((wait(&mut run.child).code(), rest.as_str()), (Some(1), ""), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    append(&log, "3\n");
    let command = said.lines().last().unwrap().split_whitespace().skip(1).chain(["--limit", "1"]);
    assert_eq!(ran(&server, &command.collect::<Vec<_>>()).1, "3\n");
    // The file is whole, with the cursor before the disk was full, and nothing is left beside it.
    assert_eq!(fs::read_to_string(&file).unwrap(), kept);
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 2);
    fs::remove_file(mount.path().join("rest")).unwrap();
    assert_eq!(ran(&server, &["lines", "logs/app.log", "--resume", place]).1, "2\n3\n");
}

#[test]
fn a_cursor_that_the_server_refuses_is_reported_with_the_remedy() {
    let server = Server::start();
    let (file, place) = place(&server);
    append(&server.log_file("a.log"), "1\n");
    let arguments = ["lines", "logs/a.log", "--resume", &place];
    fs::write(&file, "perennial cursor 2 lines\nnonsense logs/a.log\nend\n").unwrap();
    let (code, out, said) = ran(&server, &arguments);
    assert_eq!((code, out.as_str()), (Some(64 + 3), ""), "{said}");
    assert!(said.contains("CURSOR_MALFORMED") && said.contains(&format!("delete {place}")), "{said}");
    assert!(fs::read_to_string(&file).unwrap().contains("nonsense"));
    fs::remove_file(&file).unwrap();
    assert_eq!(ran(&server, &arguments).1, "1\n");
    fs::remove_file(server.log_file("a.log")).unwrap();
    append(&server.log_file("a.log"), "another file altogether\n");
    let (code, _, said) = ran(&server, &arguments);
    assert_eq!(code, Some(64 + 11), "{said}");
    assert!(said.contains("--on-gap skip") && said.contains(&format!("delete {place}")), "{said}");
    let (code, out, said) = ran(&server, &[&arguments[..], &["--on-gap", "skip"]].concat());
    assert_eq!((code, out.as_str()), (Some(0), "another file altogether\n"), "{said}");
    assert!(said.contains("gone") && !said.contains("LINE_GAP"), "{said}");
}

#[test]
fn two_runs_cannot_share_a_cursor_file() {
    let server = Server::start();
    let (file, place) = place(&server);
    append(&server.log_file("a.log"), "1\n");
    let arguments = ["lines", "logs/a.log", "-f", "--resume", &place];
    let mut run = Run::start(&server, &arguments);
    assert_eq!(run.line(), "1");
    wait_for_change(&file, "perennial cursor 2 lines\nend\n");
    let (code, out, said) = ran(&server, &arguments);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(said.contains("another perennial uses") && said.contains(&place), "{said}");
    assert_eq!(run.end(Signal::TERM).0, Some(130));
    append(&server.log_file("a.log"), "2\n");
    assert_eq!(ran(&server, &["lines", "logs/a.log", "--resume", &place]).1, "2\n");
}

#[test]
fn an_end_holds_for_the_next_run() {
    let server = Server::start();
    let (_, place) = place(&server);
    append(&server.log_file("app.log"), &numbered(1..9));
    let arguments = ["lines", "logs/app.log", "-n", "+2", "--until-line", "4", "--resume", &place];
    let limited = [&arguments[..], &["--limit", "2"]].concat();
    assert_eq!(ran(&server, &limited).1, "line 2\nline 3\n");
    assert_eq!(
        ran(&server, &arguments),
        (Some(0), "line 4\n".into(), format!("-- continuing from {place} --\n"))
    );
    assert_eq!(ran(&server, &arguments).1, "");
    let by_offset = ["lines", "logs/app.log", "--until-offset", "8"];
    assert_eq!(ran(&server, &by_offset).1, "line 1\nline 2\n");
}
