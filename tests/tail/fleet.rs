//! Globs: the files that match are read, those that appear too, and those that go are read to their ends.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    Run,
    harness::{PATIENCE, Server, append, wait},
    ran,
};

fn write(server: &Server, name: &str, text: &str) {
    let path = server.log_file(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    append(&path, text);
}

/// Reads this number of lines, and returns those of each file.
fn lines(run: &mut Run, count: usize) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::<_, Vec<_>>::new();
    for _ in 0..count {
        let line = run.line();
        let (file, text) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?}"));
        all.entry(file.to_owned()).or_default().push(text.to_owned());
    }
    all
}

fn of(files: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
    let owned = |lines: &[&str]| lines.iter().map(ToString::to_string).collect();
    files.iter().map(|(file, lines)| ((*file).to_owned(), owned(lines))).collect()
}

#[test]
fn files_that_match_are_read_one_after_the_other_in_the_order_of_their_paths() {
    let server = Server::start();
    for (name, text) in [("b/c.log", "3\n"), ("a.log", "1\n2\n"), ("z.txt", "4\n"), ("a.log.1", "0\n")] {
        write(&server, name, text);
    }
    for (arguments, expected) in [
        (&["lines", "logs/**/*.log"][..], "logs/a.log: 1\nlogs/a.log: 2\nlogs/b/c.log: 3\n"),
        (&["lines", "-q", "logs/**/*.log", "logs/z.txt", "-n", "1"], "4\n2\n3\n"),
        (&["lines", "-H", "logs/z.tx?"], "logs/z.txt: 4\n"),
        (&["lines", "logs/{z,y}.txt", "logs/a*"], "logs/a.log: 1\nlogs/a.log: 2\nlogs/z.txt: 4\n"),
        // A file that is also named is read once.
        (&["lines", "-q", "logs/z.*", "logs/z.txt"], "4\n"),
        (&["lines", "-q", "logs/b", "logs/**/c.*"], "3\n"),
    ] {
        let (code, out, said) = ran(&server, arguments);
        if arguments.contains(&"logs/b") {
            assert_eq!((code, out.as_str()), (Some(69), expected), "a directory is no file: {said}");
        } else {
            assert_eq!((code, out.as_str(), said.as_str()), (Some(0), expected, ""), "{arguments:?}");
        }
    }
    let (_, out, _) = ran(&server, &["-o", "ndjson", "lines", "logs/z.*"]);
    assert!(out.contains(r#""path":"logs/z.txt""#), "{out}");
}

#[test]
fn a_glob_that_matches_no_file_is_an_error_that_names_it_unless_files_are_waited_for() {
    let server = Server::start();
    write(&server, "a.log", "1\n");
    for arguments in [&["lines", "logs/none*.log"][..], &["lines", "-f", "logs/none*.log"]] {
        let (code, out, said) = ran(&server, arguments);
        assert_eq!((code, out.as_str()), (Some(69), ""));
        assert!(said.contains("no file matches logs/none*.log"), "{said}");
        assert!(said.contains("`perennial files`"), "{said}");
    }
    // The others are read.
    let (code, out, said) = ran(&server, &["lines", "logs/none*.log", "logs/a.log"]);
    assert_eq!((code, out.as_str()), (Some(69), "logs/a.log: 1\n"), "{said}");
    let (code, _, said) = ran(&server, &["lines", "none/*.log"]);
    assert_eq!(code, Some(69));
    assert!(said.contains("`none`"), "{said}");
    let (code, _, said) = ran(&server, &["lines", "logs/[a.log"]);
    assert_eq!(code, Some(67));
    assert!(said.contains("globs[0]"), "{said}");
    let mut run = Run::start(&server, &["lines", "-F", "logs/none*.log"]);
    write(&server, "none-any-more.log", "2\n");
    assert_eq!(run.line(), "logs/none-any-more.log: 2");
    let (code, _, said) = run.end(Signal::INT);
    assert_eq!(code, Some(130));
    assert!(said.contains("lines logs/none-any-more.log -H -F --cursor "), "{said}");
}

#[test]
fn a_file_whose_name_has_characters_of_globs_is_named_with_backslashes() {
    let server = Server::start();
    write(&server, "app[1].log", "1\n2\n");
    let name = r"logs/app\[1\].log";
    let mut run = Run::start(&server, &["lines", "-f", name]);
    assert_eq!((run.line(), run.line()), ("1".into(), "2".into()));
    let (_, _, said) = run.end(Signal::INT);
    assert!(said.contains(&format!("lines '{name}' -f --cursor ")), "{said}");
}

#[test]
fn files_that_appear_are_read_from_their_starts_and_files_that_go_to_their_ends() {
    let server = Server::start();
    write(&server, "a.log", "1\n2\n");
    let mut run = Run::start(&server, &["lines", "-f", "-n", "1", "logs/**/*.log"]);
    assert_eq!(lines(&mut run, 1), of(&[("logs/a.log", &["2"])]));
    write(&server, "new/b.log", "1\n2\n3\n");
    assert_eq!(lines(&mut run, 3), of(&[("logs/new/b.log", &["1", "2", "3"])]));
    // A rotation.
    fs::rename(server.log_file("a.log"), server.log_file("a.log.1")).unwrap();
    append(&server.log_file("a.log.1"), "3\n");
    write(&server, "a.log", "4\n");
    assert_eq!(lines(&mut run, 2), of(&[("logs/a.log", &["3", "4"])]));
    // A file that goes, with a last line, and comes again as another one.
    append(&server.log_file("new/b.log"), "4\n");
    fs::remove_file(server.log_file("new/b.log")).unwrap();
    assert_eq!(lines(&mut run, 1), of(&[("logs/new/b.log", &["4"])]));
    server.wait_for_log("logs/new/b.log");
    write(&server, "new/b.log", "5\n");
    assert_eq!(lines(&mut run, 1), of(&[("logs/new/b.log", &["5"])]));
    // A file that goes and comes back as it was.
    fs::rename(server.log_file("a.log"), server.log_file("kept")).unwrap();
    server.wait_for_log("logs/a.log");
    fs::rename(server.log_file("kept"), server.log_file("a.log")).unwrap();
    append(&server.log_file("a.log"), "5\n");
    assert_eq!(lines(&mut run, 1), of(&[("logs/a.log", &["5"])]));
    let (code, rest, _) = run.end(Signal::INT);
    assert_eq!((code, rest.as_str()), (Some(130), ""));
}

#[test]
fn a_file_of_cursors_continues_each_file_and_reads_new_ones_from_their_starts() {
    let server = Server::start();
    let state = server.directory().join("state").display().to_string();
    for name in ["a.log", "b.log"] {
        write(&server, name, "1\n2\n");
    }
    let arguments = ["lines", "-f", "-n", "1", "logs/*.log", "--resume", &state];
    let mut run = Run::start(&server, &arguments);
    assert_eq!(lines(&mut run, 2), of(&[("logs/a.log", &["2"]), ("logs/b.log", &["2"])]));
    let (code, _, said) = run.end(Signal::TERM);
    assert_eq!(code, Some(130));
    assert!(said.contains("lines 'logs/*.log' -f --resume "), "{said}");
    let kept = fs::read_to_string(&state).unwrap();
    assert!(kept.contains(" logs/a.log\n") && kept.contains(" logs/b.log\n"), "{kept}");
    append(&server.log_file("a.log"), "3\n");
    write(&server, "c.log", "1\n2\n");
    let mut run = Run::start(&server, &arguments);
    assert_eq!(lines(&mut run, 3), of(&[("logs/a.log", &["3"]), ("logs/c.log", &["1", "2"])]));
    run.end(Signal::TERM);
    // A file that went with a line that was not read is reported once.
    append(&server.log_file("b.log"), "3\n");
    fs::remove_file(server.log_file("b.log")).unwrap();
    append(&server.log_file("a.log"), "4\n");
    let mut run = Run::start(&server, &arguments);
    assert_eq!(lines(&mut run, 1), of(&[("logs/a.log", &["4"])]));
    let end = Instant::now() + PATIENCE;
    while fs::read_to_string(&state).unwrap().contains("logs/b.log") {
        assert!(Instant::now() < end, "the cursor stays");
        std::thread::sleep(Duration::from_millis(5));
    }
    let (_, _, said) = run.end(Signal::TERM);
    assert!(said.contains("error: ") && said.contains("logs/b.log"), "{said}");
    let (code, out, said) = ran(&server, &["lines", "logs/*.log", "--resume", &state]);
    assert_eq!((code, out.as_str()), (Some(0), ""), "{said}");
}

#[test]
fn more_files_than_allowed_are_an_error_also_later() {
    let server = Server::start();
    for name in ["a.log", "b.log", "c.log"] {
        write(&server, name, "1\n");
    }
    for follow in [&[][..], &["-f"]] {
        let arguments = [&["lines", "logs/*.log", "--max-files", "2"], follow].concat();
        let (code, out, said) = ran(&server, &arguments);
        assert_eq!((code, out.as_str()), (Some(2), ""));
        assert!(
            said.contains("more than 2 files match logs/*.log") && said.contains("--max-files"),
            "{said}"
        );
    }
    let mut run = Run::start(&server, &["lines", "-f", "logs/*.log", "--max-files", "3"]);
    assert_eq!(lines(&mut run, 3).len(), 3);
    write(&server, "d.log", "1\n");
    assert_eq!(wait(&mut run.child).code(), Some(2));
}

#[test]
fn each_line_of_many_files_comes_once_over_a_server_that_is_killed() {
    let mut server = Server::start_with(&["--max-streams-per-connection", "101"]);
    let names = (0..150).map(|n| format!("{n}.log")).collect::<Vec<_>>();
    for name in &names[..120] {
        write(&server, name, "1\n");
    }
    let mut run = Run::start(&server, &["lines", "-f", "logs/*.log"]);
    assert_eq!(lines(&mut run, 120).len(), 120);
    server.kill();
    for name in &names {
        write(&server, name, "2\n");
    }
    server.restart();
    let more = lines(&mut run, 150);
    assert!(more.len() == 150 && more.values().all(|lines| lines == &["2"]), "{more:?}");
    for name in &names {
        write(&server, name, "3\n");
    }
    let more = lines(&mut run, 150);
    assert!(more.len() == 150 && more.values().all(|lines| lines == &["3"]), "{more:?}");
    let (code, rest, said) = run.end(Signal::INT);
    assert_eq!((code, rest.as_str()), (Some(130), ""));
    assert!(said.contains("150 files were read: with --resume FILE"), "{said}");
}
