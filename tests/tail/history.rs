//! `--history`: rotated and compressed generations as one stream.

use std::{fs, process::Command};

use super::{
    Server, ran,
    resume::{numbered, place},
};

#[test]
fn the_whole_history_is_printed_and_a_stopped_run_continues_in_a_file_that_was_compressed_since() {
    let server = Server::start();
    let (_, cursors) = place(&server);
    let path = |name: &str| server.log_file(name);
    for (name, range) in [("app.log.2", 0..100), ("app.log.1", 100..200), ("app.log", 200..300)] {
        fs::write(path(name), numbered(range)).unwrap();
    }
    let compress = |tool: &str, name: &str| {
        assert!(Command::new(tool).arg("-q").arg(path(name)).status().unwrap().success());
        let _ = fs::remove_file(path(name));
    };
    compress("gzip", "app.log.2");
    let all = ["lines", "logs/app.log", "--history"];
    let (code, printed, _) = ran(&server, &all);
    assert_eq!((code, printed), (Some(0), numbered(0..300)));
    let resumable = [&all[..], &["--resume", &cursors]].concat();
    let (code, printed, _) = ran(&server, &[&resumable[..], &["--limit", "150"]].concat());
    assert_eq!((code, printed), (Some(0), numbered(0..150)));
    compress("zstd", "app.log.1");
    let (code, printed, _) = ran(&server, &resumable);
    assert_eq!((code, printed), (Some(0), numbered(150..300)));
    // What cannot be read is said by its name, and the rest is printed.
    assert!(Command::new("gunzip").arg(path("app.log.2.gz")).status().unwrap().success());
    compress("xz", "app.log.2");
    let (code, printed, said) = ran(&server, &all);
    assert_eq!((code, printed), (Some(0), numbered(100..300)));
    assert!(said.contains("app.log.2.xz has the format of xz"), "{said}");
    let (code, _, said) = ran(&server, &["lines", "logs/app.log", "--history", "-n", "3"]);
    assert!(code == Some(2) && said.contains("--history"), "{code:?} {said}");
}
