//! Lines. A cursor names a file by its inode and its time of birth, which no copy shares. So what a copy can show is
//! this: a cursor of that commit is decoded in full, and resumes in a file that begins with the same bytes, as it does
//! after a file was copied to another machine. Resuming in the very same file is the same code, and has tests of its own.

use perennial::proto::{
    FileResumedFound, ReadLinesRequest, ReadLinesResponse, line::Content, line_stream_event::Event,
};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

use super::{Facts, Server, all, next, upgraded};
use crate::harness::append;

async fn resume(
    server: &Server,
    facts: &Facts,
    cursor: &str,
    request: ReadLinesRequest,
) -> Result<Streaming<ReadLinesResponse>, Status> {
    let cursor = facts.cursor(cursor);
    Ok(server.lines().await.read_lines(ReadLinesRequest { cursor, ..request }).await?.into_inner())
}

fn of(name: &str) -> ReadLinesRequest {
    ReadLinesRequest { path: format!("logs/{name}"), ..Default::default() }
}

fn texts(responses: &[ReadLinesResponse]) -> Vec<&str> {
    let lines = responses.iter().flat_map(|response| &response.lines);
    lines
        .map(|line| match line.content.as_ref().unwrap() {
            Content::Text(text) => text.as_str(),
            Content::Data(bytes) => panic!("not text: {bytes:?}"),
        })
        .collect()
}

fn events(response: &ReadLinesResponse) -> Vec<Event> {
    response.events.iter().map(|event| event.event.unwrap()).collect()
}

#[tokio::test]
async fn a_cursor_of_lines_resumes_exactly_in_a_copy_of_the_file() {
    let (server, facts) = upgraded();
    let responses = all(resume(&server, &facts, "lines.after-3", of("app.log")).await.unwrap()).await;
    assert_eq!(texts(&responses), ["four", "five", "six"]);
    let found = match events(&responses[0])[..] {
        [Event::Resumed(found)] => found.found(),
        ref others => panic!("{others:?}"),
    };
    assert_eq!(found, FileResumedFound::Moved);
    assert_eq!(responses[0].lines[0].number, Some(4));

    let follow = ReadLinesRequest { follow: true, ..of("app.log") };
    let mut awaiting = resume(&server, &facts, "lines.before-line-8", follow).await.unwrap();
    assert_eq!(next(&mut awaiting).await.lines.len(), 0);
    append(&server.log_file("app.log"), "seven\neight\n");
    let eight = loop {
        let response = next(&mut awaiting).await;
        if !response.lines.is_empty() {
            break response;
        }
    };
    assert_eq!((texts(std::slice::from_ref(&eight)), eight.lines[0].number), (vec!["eight"], Some(8)));
}

#[tokio::test]
async fn a_cursor_of_lines_that_were_rewritten_has_expired() {
    let (server, facts) = upgraded();
    std::fs::write(server.log_file("app.log"), "another\nfile\naltogether\n").unwrap();
    let expired = match resume(&server, &facts, "lines.after-3", of("app.log")).await {
        Err(expired) => expired,
        Ok(stream) => panic!("{:?}", all(stream).await),
    };
    let reason = expired.get_error_details().error_info().unwrap().reason.clone();
    assert_eq!((expired.code(), reason.as_str()), (Code::OutOfRange, "CURSOR_EXPIRED"));
}

#[tokio::test]
async fn a_cursor_after_a_deletion_waits_for_the_next_file() {
    let (server, facts) = upgraded();
    let follow = ReadLinesRequest { follow: true, wait_for_create: true, ..of("gone.log") };
    let mut waiting = resume(&server, &facts, "lines.deleted", follow).await.unwrap();
    assert_eq!(next(&mut waiting).await.lines.len(), 0);
    std::fs::write(server.log_file("gone.log"), "new\n").unwrap();
    let new = loop {
        let response = next(&mut waiting).await;
        if !response.lines.is_empty() {
            break response;
        }
    };
    assert_eq!((texts(std::slice::from_ref(&new)), new.lines[0].number), (vec!["new"], Some(1)));
}
