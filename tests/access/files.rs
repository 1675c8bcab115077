//! Files: a cursor names a file by its inode, and grants no right to it.

use std::{collections::HashMap, fs};

use futures::StreamExt;
use perennial::{
    cursor,
    lines::Position,
    proto::{OnGap, ReadLinesRequest},
};

use crate::{harness::soon, house::House};

const RULES: &str = r#"
[[rule]]
who = ["token:operator"]
may = ["administer"]

[[rule]]
who = ["token:tail"]
may = ["read"]
files = ["logs=public.log"]
"#;

/// The lines that a caller gets of a file, and the last cursor.
async fn read(house: &House, caller: &str, path: &str, cursor: &str) -> (Vec<String>, String) {
    let request = ReadLinesRequest {
        path: path.into(),
        cursor: (!cursor.is_empty()).then(|| cursor.into()),
        on_gap: OnGap::Skip.into(),
        ..Default::default()
    };
    let mut responses = Box::pin(house.client(Some(caller)).read_lines(request).responses());
    let (mut lines, mut last) = (Vec::new(), String::new());
    while let Some(response) = soon("a response", responses.next()).await {
        let response = response.unwrap();
        lines.extend(response.lines.iter().map(|line| format!("{:?}", line.content)));
        last = response.cursor;
    }
    (lines, last)
}

/// A cursor in one file, changed so that it names the path of another.
fn forged(cursor: &str, path: &str) -> String {
    let mut position = serde_json::to_value(cursor::decode::<Position>(cursor).unwrap()).unwrap();
    position["path"] = crc32c::crc32c(path.as_bytes()).into();
    cursor::encode(&serde_json::from_value::<Position>(position).unwrap())
}

#[tokio::test]
async fn a_cursor_of_a_file_that_a_caller_may_not_read_yields_nothing_of_it() {
    let house = House::with(RULES, &[]);
    for name in ["public", "private"] {
        let lines = (0..100).map(|n| format!("{name} {n}\n")).collect::<String>();
        fs::write(house.server.log_file(&format!("{name}.log")), lines).unwrap();
    }
    let (_, private) = read(&house, "operator", "logs/private.log", "").await;
    let more = (100..200).map(|n| format!("private {n}\n")).collect::<String>();
    let path = house.server.log_file("private.log");
    fs::write(&path, fs::read_to_string(&path).unwrap() + &more).unwrap();
    let forged = forged(&private, "logs/public.log");
    let (lines, _) = read(&house, "tail", "logs/public.log", &forged).await;
    assert!(lines.iter().all(|line| line.contains("public")), "{lines:?}");
    // A caller that may read both files gets it, so the cursor is a good one.
    let (lines, _) = read(&house, "operator", "logs/public.log", &forged).await;
    assert!(lines.iter().any(|line| line.contains("private 150")), "{lines:?}");
}

#[tokio::test]
async fn a_caller_resumes_in_a_rotation_of_the_file_that_it_may_read() {
    let house = House::with(RULES, &[]);
    let path = house.server.log_file("public.log");
    let lines = (0..100).map(|n| format!("public {n}\n")).collect::<String>();
    fs::write(&path, &lines).unwrap();
    let (_, cursor) = read(&house, "tail", "logs/public.log", "").await;
    fs::write(&path, lines + "public 100\n").unwrap();
    fs::rename(&path, house.server.log_file("public.log.1")).unwrap();
    fs::write(&path, "public 101\n").unwrap();
    let (lines, _) = read(&house, "tail", "logs/public.log", &cursor).await;
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("public 100") && lines[1].contains("public 101"), "{lines:?}");
}

#[tokio::test]
async fn older_generations_whose_right_is_withdrawn_do_not_come_in_a_stream_that_is_open() {
    const LINES: usize = 40_000;
    let rules = |files: &str| RULES.replace("\"logs=public.log\"", files);
    // A flat archive, which may be of other logs, too.
    let house =
        House::with(&rules(r#""logs=app/public.log", "logs=archive/**""#), &["--history", "logs=archive/**"]);
    let [archive, app] = ["archive", "app"].map(|name| house.server.log_file(name));
    fs::create_dir(&archive).unwrap();
    fs::create_dir(&app).unwrap();
    for (age, name) in [(2, "oldest"), (1, "older")] {
        let lines = (0..LINES).map(|n| format!("{name} {n:0200}\n")).collect::<String>();
        fs::write(archive.join(format!("public.log.{age}")), lines).unwrap();
    }
    fs::write(app.join("public.log"), "newest\n").unwrap();
    let request = ReadLinesRequest {
        path: "logs/app/public.log".into(),
        history: true,
        on_gap: OnGap::Skip.into(),
        ..Default::default()
    };
    let mut responses = Box::pin(house.client(Some("tail")).read_lines(request).responses());
    let mut found = HashMap::<String, usize>::new();
    while let Some(response) = soon("a response", responses.next()).await {
        for line in response.unwrap().lines {
            if found.is_empty() {
                // The server holds what the client has no room for, in the middle of the oldest file.
                house.write_rules(&rules(r#""logs=app/public.log""#));
                house.server.wait_for_log("the files of access are in use");
            }
            let text = format!("{:?}", line.content);
            let name = ["oldest", "older", "newest"].into_iter().find(|name| text.contains(name)).unwrap();
            *found.entry(name.to_owned()).or_default() += 1;
        }
    }
    // What was on its way comes; then the stream resumes by the new rules.
    assert!((1..LINES).contains(&found["oldest"]), "{found:?}");
    assert_eq!(found.get("older"), None, "{found:?}");
    assert_eq!(found.get("newest"), Some(&1), "{found:?}");
}
