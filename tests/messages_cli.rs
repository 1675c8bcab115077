//! `perennial publish`, `messages`, `consumers`, `purge` and `bench`, as people and scripts use them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

mod harness;

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdout, Output, Stdio},
    time::{Duration, Instant},
};

use harness::{
    PATIENCE, Server,
    output::{printed, run, stderr, stdout},
    signal, wait,
};
use rustix::process::Signal;
use serde_json::Value;

const ALL: [&str; 4] = ["messages", ">", "--from", "earliest"];

/// Runs a command with this stdin.
fn fed(server: &Server, arguments: &[&str], stdin: &[u8]) -> Output {
    let mut command = server.client(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    child.wait_with_output().unwrap()
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Starts a reader, and returns it with its stdout.
fn reader(server: &Server, arguments: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let mut child = server.client(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

fn line(out: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// Waits for the end of a reader, and returns its exit code and its stderr.
fn end(mut child: Child) -> (Option<i32>, String) {
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (wait(&mut child).code(), said)
}

/// Repeats a command until it prints the `wanted` text.
fn until_printed(server: &Server, arguments: &[&str], wanted: impl Fn(&str) -> bool) -> String {
    let begun = Instant::now();
    loop {
        let text = printed(server, arguments);
        if wanted(&text) {
            return text;
        }
        assert!(begun.elapsed() < PATIENCE, "{arguments:?}: {text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_dash_publishes_each_line_of_stdin_and_a_file_is_one_message() {
    let server = Server::start();
    let output = fed(&server, &["publish", "a", "-", "--key", "k"], b"one\ntwo\nthree");
    assert!(output.status.success() && output.stdout.is_empty(), "{}", stderr(&output));
    assert!(stderr(&output).contains("published 3 of 3 to a"), "{}", stderr(&output));
    let text = server.directory().join("text");
    std::fs::write(&text, "two\nlines\n").unwrap();
    let bytes = server.directory().join("bytes");
    std::fs::write(&bytes, [0xff, 0, b'\n']).unwrap();
    let (text, bytes) = (text.to_str().unwrap(), bytes.to_str().unwrap());
    assert_eq!(printed(&server, &["publish", "a", "--file", text]).trim(), "4");
    assert_eq!(printed(&server, &["publish", "a", "--file", text, "--file", bytes]), "");
    let all = printed(&server, &[&["-o", "ndjson"], &ALL[..], &["--until-caught-up"]].concat());
    let all = objects(&all);
    let texts = all.iter().map(|it| it["text"].as_str()).collect::<Vec<_>>();
    let two_lines = Some("two\nlines\n");
    assert_eq!(texts, [Some("one"), Some("two"), Some("three"), two_lines, two_lines, None]);
    assert!(all[..3].iter().all(|it| it["key"] == "k"));
    assert_eq!(all[5]["data"], "/wAK");
    let absent = run(&mut server.client(&["publish", "a", "--file", "absent"]));
    assert_eq!(absent.status.code(), Some(1));
    assert!(stderr(&absent).contains("absent"), "{}", stderr(&absent));
}

#[test]
fn the_output_of_messages_copies_a_topic() {
    let server = Server::start();
    let file = server.directory().join("bytes");
    std::fs::write(&file, [0xff]).unwrap();
    let file = file.to_str().unwrap();
    printed(&server, &["publish", "a", "ünï\tcode", "--key", "k", "--header", "x=1", "--header", "y=a=b"]);
    printed(&server, &["publish", "a", "--file", file, "--id", "own"]);
    let read = |topic: &str| {
        printed(&server, &["-o", "ndjson", "messages", topic, "--from", "earliest", "--until-caught-up"])
    };
    let original = read("a");
    let copied = fed(&server, &["publish", "b", "--json"], original.as_bytes());
    assert!(copied.status.success(), "{}", stderr(&copied));
    let content = |text: &str, with_id: bool| {
        let mut all = objects(text);
        for object in &mut all {
            let fields = object.as_object_mut().unwrap();
            for field in ["sequence", "publishTime", "topic"] {
                fields.remove(field);
            }
            if !with_id {
                fields.remove("messageId");
            }
        }
        all
    };
    assert_eq!(content(&original, false), content(&read("b"), false));
    assert_eq!(objects(&read("b"))[1]["messageId"], "own");
    // The message with an id is recognized the second time.
    let again = fed(&server, &["publish", "b", "--json"], original.as_bytes());
    assert!(stderr(&again).contains("1 of them were published before"), "{}", stderr(&again));
}

#[test]
fn a_refused_message_is_reported_with_its_line_and_the_others_are_published() {
    let server = Server::start();
    let lines = concat!(
        "{\"topic\":\"a\",\"text\":\"1\"}\n",
        "not an object\n",
        "\n",
        "{\"topic\":\"a b\",\"text\":\"2\"}\n",
        "{\"topic\":\"a\",\"text\":\"3\"}\n",
    );
    let output = fed(&server, &["publish", "--json"], lines.as_bytes());
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(64 + 3), "{said}");
    assert!(
        said.contains("line 2: ") && said.contains("line 4: ") && said.contains("INVALID_FIELD"),
        "{said}"
    );
    assert!(said.contains("published 2 of 4"), "{said}");
    assert_eq!(printed(&server, &["-o", "raw", "messages", "a", "--from", "1", "--limit", "2"]), "1\n3\n");
    let unread = fed(&server, &["publish", "--json"], b"{\"text\":\"no topic\"}\n");
    assert_eq!(unread.status.code(), Some(1), "{}", stderr(&unread));
}

#[test]
fn messages_are_printed_as_the_format_says() {
    let server = Server::start();
    printed(&server, &["publish", "orders.new", "hello", "--key", "k", "--header", "a=b"]);
    printed(&server, &["publish", "orders.old", "two\nlines"]);
    let format = |format: &str| {
        let options = ["--until-caught-up", "--format", format];
        printed(&server, &[&ALL[..], &options].concat())
    };
    assert_eq!(
        format("{sequence} {topic} [{key}] {header.a}: {text}"),
        "1 orders.new [k] b: hello\n2 orders.old [] : two\nlines\n"
    );
    assert_eq!(format("{{{topic}}}\\t{data}\\0"), "{orders.new}\taGVsbG8=\0{orders.old}\tdHdvCmxpbmVz\0");
    let wrong = run(&mut server.client(&["messages", "a", "--format", "{seq}"]));
    assert_eq!(wrong.status.code(), Some(2));
    assert!(stderr(&wrong).contains("{header.NAME}"), "{}", stderr(&wrong));
}

#[test]
fn a_message_with_a_ttl_says_when_it_expires_and_then_is_gone() {
    let server = Server::start();
    printed(&server, &["publish", "a", "for long", "--ttl", "1h"]);
    printed(&server, &["publish", "a", "short", "--ttl", "1ms"]);
    let read = ["-o", "ndjson", "messages", "a", "--from", "earliest", "--until-caught-up"];
    let left = until_printed(&server, &read, |text| text.lines().count() == 1);
    let left = &objects(&left)[0];
    assert_eq!(left["text"], "for long");
    assert!(left["expireTime"].as_str().unwrap() > left["publishTime"].as_str().unwrap());
}

#[test]
fn the_last_of_each_topic_is_the_state() {
    let server = Server::start();
    for (topic, text) in [("s.a", "1"), ("s.b", "2"), ("s.a", "3"), ("other", "4")] {
        printed(&server, &["publish", topic, text]);
    }
    let state = ["messages", "s.*", "--last-per-topic", "--until-caught-up", "--format", "{topic} {text}"];
    assert_eq!(printed(&server, &state), "s.b 2\ns.a 3\n");
}

#[test]
fn a_consumer_loses_nothing_however_often_its_reader_is_killed() {
    const MESSAGES: usize = 40_000;
    let server = Server::start();
    let arguments = ["-o", "raw", "messages", "a", "--consumer", "worker", "--from", "earliest"];
    let mut publish = server
        .client(&["publish", "a", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = publish.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        for n in 0..MESSAGES {
            writeln!(stdin, "{n}").unwrap();
            if n % 100 == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
    // The numbers below `next` were read.
    let (mut next, mut rounds, mut took, mut kept) = (0, 0, 1, None);
    while next < MESSAGES {
        let (mut child, mut out) = reader(&server, &arguments);
        let first = line(&mut out).parse::<usize>().unwrap();
        assert!(first <= next, "{next} to {first} are lost");
        assert!(kept.take().is_none_or(|kept| first == kept), "{first} is not where it stopped");
        let mut at = first + 1;
        while at < MESSAGES && at < first + took {
            assert_eq!(line(&mut out), at.to_string());
            at += 1;
        }
        next = next.max(at);
        if rounds % 3 == 2 {
            // It commits the position after the last printed message.
            signal(&child, Signal::INT);
            let mut rest = String::new();
            out.read_to_string(&mut rest).unwrap();
            rest.lines().for_each(|text| {
                assert_eq!(text, at.to_string());
                at += 1;
            });
            next = next.max(at);
            let (code, said) = end(child);
            assert_eq!(code, Some(130), "{said}");
            assert!(said.lines().last().unwrap().contains("--consumer worker"), "{said}");
            kept = Some(at);
        } else {
            std::thread::sleep(Duration::from_millis(rounds % 5 * 300));
            child.kill().unwrap();
            // The messages in the pipe were printed, so they count as read.
            let mut rest = String::new();
            out.read_to_string(&mut rest).unwrap();
            for text in rest.split_inclusive('\n').filter(|text| text.ends_with('\n')) {
                assert_eq!(text.trim_end(), at.to_string());
                at += 1;
            }
            next = next.max(at);
            wait(&mut child);
        }
        rounds += 1;
        took *= 3;
    }
    writer.join().unwrap();
    assert!(wait(&mut publish).success());
    // It ended by itself, so its position is after the last message.
    let rest = [&arguments[..], &["--until-caught-up"]].concat();
    printed(&server, &rest);
    assert_eq!(printed(&server, &rest), "");
    let consumers = objects(&printed(&server, &["-o", "ndjson", "consumers"]));
    assert_eq!(consumers.len(), 1);
    assert_eq!((&consumers[0]["name"], &consumers[0]["connected"]), (&"worker".into(), &false.into()));
}

#[test]
fn a_consumer_goes_on_by_itself_when_the_server_was_killed() {
    let mut server = Server::start();
    printed(&server, &["publish", "a", "1"]);
    let arguments = ["-o", "raw", "messages", "a", "--consumer", "worker", "--from", "earliest"];
    let (child, mut out) = reader(&server, &arguments);
    assert_eq!(line(&mut out), "1");
    server.kill();
    server.restart();
    printed(&server, &["publish", "a", "2"]);
    assert_eq!(line(&mut out), "2");
    signal(&child, Signal::INT);
    let (code, said) = end(child);
    assert_eq!(code, Some(130), "{said}");
    printed(&server, &["publish", "a", "3"]);
    assert_eq!(printed(&server, &[&arguments[..], &["--limit", "1"]].concat()), "3\n");
}

#[test]
fn a_position_that_cannot_be_committed_is_reported_at_the_end() {
    let mut server = Server::start();
    printed(&server, &["publish", "a", "1"]);
    let (child, mut out) = reader(&server, &["-o", "raw", "messages", "a", "--consumer", "w", "--from", "1"]);
    assert_eq!(line(&mut out), "1");
    until_printed(&server, &["consumers"], |text| text.contains(" connected "));
    printed(&server, &["publish", "a", "2"]);
    assert_eq!(line(&mut out), "2");
    server.kill();
    signal(&child, Signal::INT);
    let (code, said) = end(child);
    let last = said.lines().last().unwrap();
    // The position was committed in time, or the command has the cursor.
    assert!(code == Some(130) || code == Some(64 + 14) && last.contains("--cursor "), "{code:?} {said}");
    assert!(last.contains("--consumer w"), "{said}");
    server.restart();
    let command = last.split_whitespace().skip(1).chain(["--until-caught-up"]).collect::<Vec<_>>();
    assert_eq!(printed(&server, &command), "");
}

#[test]
fn a_second_reader_of_a_consumer_takes_over_and_the_first_one_ends() {
    let server = Server::start();
    printed(&server, &["publish", "a", "1"]);
    let arguments = ["-o", "raw", "messages", "a", "--consumer", "worker", "--from", "earliest"];
    let (first, mut first_out) = reader(&server, &arguments);
    assert_eq!(line(&mut first_out), "1");
    let connected = |text: &str| text.contains("worker") && text.contains(" connected ");
    until_printed(&server, &["consumers"], connected);
    let (second, mut second_out) = reader(&server, &arguments);
    let (code, said) = end(first);
    assert_eq!(code, Some(64 + 10), "{said}");
    assert!(said.contains("another reader") && said.contains("CONSUMER_TAKEN_OVER"), "{said}");
    assert!(!said.contains("perennial messages"), "{said}");
    printed(&server, &["publish", "a", "2"]);
    assert_eq!(line(&mut second_out), "2");
    signal(&second, Signal::INT);
    let (code, said) = end(second);
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("takes over from another reader"), "{said}");
}

#[test]
fn a_consumer_is_set_back_by_a_cursor_listed_and_deleted() {
    let server = Server::start();
    for text in ["1", "2", "3"] {
        printed(&server, &["publish", "a", text]);
    }
    let read = |more: &[&str]| {
        let read = ["-o", "raw", "messages", "a", "--consumer", "w", "--from", "earliest"];
        printed(&server, &[&read[..], more].concat())
    };
    assert_eq!(read(&["--limit", "1"]), "1\n");
    let cursor = objects(&printed(&server, &["-o", "ndjson", "consumers"]))[0]["cursor"].clone();
    assert_eq!(read(&["--until-caught-up"]), "2\n3\n");
    let list = printed(&server, &["consumers"]);
    assert!(list.starts_with("after ") && list.trim_end().ends_with("  w"), "{list}");
    let back = ["-o", "raw", "messages", "a", "--consumer", "w", "--limit", "1", "--cursor"];
    assert_eq!(printed(&server, &[&back[..], &[cursor.as_str().unwrap()]].concat()), "2\n");
    assert_eq!(read(&["--until-caught-up"]), "3\n");
    printed(&server, &["delete-consumer", "w"]);
    assert_eq!(printed(&server, &["consumers"]), "");
    let none = run(&mut server.client(&["delete-consumer", "w"]));
    assert_eq!(none.status.code(), Some(64 + 5), "{}", stderr(&none));
    assert_eq!(read(&["--until-caught-up"]), "1\n2\n3\n");
}

#[test]
fn a_consumer_is_set_to_a_sequence_a_time_the_oldest_and_the_next_message() {
    let server = Server::start();
    for text in ["1", "2", "3"] {
        printed(&server, &["publish", "a", text]);
    }
    let read = || {
        let read = ["-o", "raw", "messages", "a", "--consumer", "w", "--until-caught-up"];
        printed(&server, &read)
    };
    let set = |to: &str| printed(&server, &["set-consumer", "w", "--to", to]);
    // It is created where it is set to.
    let row = set("2");
    assert!(row.starts_with("after          1  log at          3  -") && row.ends_with("  w\n"), "{row}");
    assert_eq!(read(), "2\n3\n");
    assert_eq!(read(), "");
    set("earliest");
    assert_eq!(read(), "1\n2\n3\n");
    set("-1h");
    assert_eq!(read(), "1\n2\n3\n");
    set("earliest");
    let set_to_new = objects(&printed(&server, &["-o", "ndjson", "set-consumer", "w", "--to", "new"]));
    assert_eq!((&set_to_new[0]["name"], &set_to_new[0]["connected"]), (&"w".into(), &false.into()));
    printed(&server, &["publish", "a", "4"]);
    assert_eq!(read(), "4\n");
    for wrong in [&["set-consumer", "w"][..], &["set-consumer", "w", "--to", "soon"]] {
        assert_eq!(run(&mut server.client(wrong)).status.code(), Some(2), "{wrong:?}");
    }
    let wrong = run(&mut server.client(&["set-consumer", "a b", "--to", "new"]));
    assert_eq!(wrong.status.code(), Some(64 + 3), "{}", stderr(&wrong));
}

#[test]
fn a_consumer_is_not_set_while_a_reader_is_connected() {
    let server = Server::start();
    printed(&server, &["publish", "a", "1"]);
    let (child, mut out) = reader(&server, &["-o", "raw", "messages", "a", "--consumer", "w", "--from", "1"]);
    assert_eq!(line(&mut out), "1");
    let refused = run(&mut server.client(&["-o", "json", "set-consumer", "w", "--to", "earliest"]));
    assert_eq!(refused.status.code(), Some(64 + 9), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("CONSUMER_CONNECTED"), "{}", stderr(&refused));
    printed(&server, &["publish", "a", "2"]);
    assert_eq!(line(&mut out), "2");
    signal(&child, Signal::INT);
    end(child);
    printed(&server, &["set-consumer", "w", "--to", "earliest"]);
    let read = ["-o", "raw", "messages", "a", "--consumer", "w", "--until-caught-up"];
    assert_eq!(printed(&server, &read), "1\n2\n");
}

#[test]
fn the_number_of_consumers_is_limited_also_after_a_restart() {
    let mut server = Server::start_with(&["--max-consumers", "2"]);
    printed(&server, &["publish", "a", "1"]);
    for name in ["one", "two"] {
        printed(&server, &["set-consumer", name, "--to", "earliest"]);
    }
    for _ in 0..2 {
        let refused = run(&mut server.client(&["set-consumer", "three", "--to", "new"]));
        assert_eq!(refused.status.code(), Some(64 + 8), "{}", stderr(&refused));
        assert!(stderr(&refused).contains("`perennial delete-consumer`"), "{}", stderr(&refused));
        printed(&server, &["set-consumer", "two", "--to", "new"]);
        server.kill();
        server.restart();
    }
    printed(&server, &["delete-consumer", "one"]);
    printed(&server, &["set-consumer", "three", "--to", "new"]);
}

#[test]
fn a_purge_needs_a_confirmation_and_leaves_a_gap() {
    let server = Server::start();
    for text in ["1", "2", "3"] {
        printed(&server, &["publish", "a", text]);
    }
    let unasked = run(&mut server.client(&["purge", "a"]));
    assert_eq!(unasked.status.code(), Some(2));
    assert!(stderr(&unasked).contains("--yes"), "{}", stderr(&unasked));
    assert_eq!(printed(&server, &["purge", "a", "--until-sequence", "2", "--yes"]), "2\n");
    let read = ["-o", "raw", "messages", "a", "--from", "1", "--until-caught-up"];
    let failed = run(&mut server.client(&read));
    assert_eq!(failed.status.code(), Some(64 + 11), "{}", stderr(&failed));
    let skipped = run(&mut server.client(&[&read[..], &["--on-gap", "skip"]].concat()));
    assert!(skipped.status.success(), "{}", stderr(&skipped));
    assert_eq!(stdout(&skipped), "3\n");
    assert!(stderr(&skipped).contains("are missing"), "{}", stderr(&skipped));
    assert_eq!(printed(&server, &["-o", "ndjson", "purge", "a", "-y"]), "{\"messageCount\":1}\n");
    // Nothing is left to remove: what was removed is erased.
    assert_eq!(printed(&server, &["purge", "a", "-y"]), "0\n");
    let none = run(&mut server.client(&["purge", "never", "-y"]));
    assert_eq!(none.status.code(), Some(64 + 5), "{}", stderr(&none));
}

#[test]
fn a_benchmark_counts_what_it_published_and_what_arrived() {
    let server = Server::start();
    let row =
        |arguments: &[&str]| objects(&printed(&server, &[&["-o", "ndjson", "bench"], arguments].concat()));
    let load = ["--messages", "500", "--topics", "3", "--publishers", "2", "--size", "100"];
    for options in [&[][..], &["--in-flight", "5"], &["--unary"]] {
        let published = &row(&[&["pub"], &load[..], options].concat())[0];
        assert_eq!((&published["what"], &published["messages"]), (&"publish".into(), &500.into()));
        assert!(published["p50Ms"].as_f64().unwrap() <= published["maxMs"].as_f64().unwrap());
        assert_eq!(published["bytes"], 50_000);
    }
    let replay = &row(&["sub", "bench.*", "--subscribers", "2"])[0];
    assert_eq!((&replay["messages"], &replay["duplicates"]), (&3_000.into(), &0.into()));
    let subscribers = ["--subscribers", "10", "--connections", "2"];
    let both = row(&[&["pubsub"], &load[..], &subscribers].concat());
    assert_eq!((&both[1]["messages"], &both[1]["lost"]), (&5_000.into(), &0.into()));
    let table = printed(&server, &["bench", "pub", "--messages", "10"]);
    assert!(table.contains("messages/s") && table.lines().count() == 2, "{table}");
}

#[test]
fn a_benchmark_removes_its_messages_if_asked_to() {
    let server = Server::start();
    printed(&server, &["publish", "kept", "x"]);
    printed(&server, &["bench", "pub", "--messages", "10", "--topics", "20", "--purge"]);
    assert_eq!(printed(&server, &["-o", "raw", "topics"]), "kept\n");
}
