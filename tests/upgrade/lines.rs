//! Lines. A cursor names a file by its inode and its birth, which no copy shares, and a cursor of that commit does not hold
//! enough of the content to resume without them. So [`of_this_copy`] gives it those of the copy that a test reads, and
//! changes nothing else.

use std::{os::unix::fs::MetadataExt, time::UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use perennial::proto::{
    FileResumedFound, ReadLinesRequest, ReadLinesResponse, line::Content, line_stream_event::Event,
};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

use super::{Server, all, next, upgraded};
use crate::harness::append;

/// A cursor, as the server of that commit would have made it for the file that is read now.
fn of_this_copy(cursor: &str, file: &std::fs::Metadata) -> String {
    const HEAD_BYTES: usize = 2;
    let bytes = URL_SAFE_NO_PAD.decode(cursor).unwrap();
    let (body, _) = bytes.split_at(bytes.len() - 4);
    assert_eq!(body[..HEAD_BYTES], [1, b'l'], "the cursors of that commit are of version 1");
    // A checksum of the path, then the device, the inode and the birth: numbers of 7 bits a byte, the last below 128.
    let mut ends = (HEAD_BYTES..body.len()).filter(|at| body[*at] < 128).map(|at| at + 1);
    let (path, identity) = (ends.next().unwrap(), ends.nth(2).unwrap());
    let birth = file.created().unwrap().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let mut made = body[..path].to_vec();
    for mut number in [file.dev(), file.ino(), u64::try_from(birth).unwrap()] {
        while number >= 128 {
            made.push(u8::try_from(number & 127).unwrap() | 128);
            number >>= 7;
        }
        made.push(u8::try_from(number).unwrap());
    }
    made.extend_from_slice(&body[identity..]);
    let checksum = crc32c::crc32c(&made);
    made.extend_from_slice(&checksum.to_le_bytes());
    URL_SAFE_NO_PAD.encode(made)
}

async fn resume(
    server: &Server,
    cursor: String,
    request: ReadLinesRequest,
) -> Result<Streaming<ReadLinesResponse>, Status> {
    let cursor = Some(cursor);
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
    response.events.iter().map(|event| event.event.clone().unwrap()).collect()
}

fn found(response: &ReadLinesResponse) -> FileResumedFound {
    match events(response)[..] {
        [Event::Resumed(found)] => found.found(),
        ref others => panic!("{others:?}"),
    }
}

#[tokio::test]
async fn a_cursor_of_lines_resumes_exactly_in_its_file_also_if_that_was_rotated() {
    for rotated in [false, true] {
        let (server, facts) = upgraded();
        let file = server.log_file("app.log").metadata().unwrap();
        if rotated {
            std::fs::rename(server.log_file("app.log"), server.log_file("app.log.1")).unwrap();
            append(&server.log_file("app.log"), "");
        }
        let cursor = of_this_copy(&facts.cursor("lines.after-3").unwrap(), &file);
        let responses = all(resume(&server, cursor, of("app.log")).await.unwrap()).await;
        assert_eq!(texts(&responses), ["four", "five", "six"]);
        let expected = if rotated { FileResumedFound::Moved } else { FileResumedFound::Exact };
        assert_eq!(found(&responses[0]), expected);
        assert_eq!(responses[0].lines[0].number, Some(4));
    }
}

#[tokio::test]
async fn a_cursor_of_lines_before_a_line_waits_for_that_line() {
    let (server, facts) = upgraded();
    let file = server.log_file("app.log").metadata().unwrap();
    let follow = ReadLinesRequest { follow: true, ..of("app.log") };
    let cursor = of_this_copy(&facts.cursor("lines.before-line-8").unwrap(), &file);
    let mut awaiting = resume(&server, cursor, follow).await.unwrap();
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

async fn has_expired(server: &Server, cursor: String) {
    let expired = match resume(server, cursor, of("app.log")).await {
        Err(expired) => expired,
        Ok(stream) => panic!("{:?}", all(stream).await),
    };
    let reason = expired.get_error_details().error_info().unwrap().reason.clone();
    assert_eq!((expired.code(), reason.as_str()), (Code::OutOfRange, "CURSOR_EXPIRED"));
}

/// The 64 bytes that such a cursor knows are no proof without the inode and the birth of the file.
#[tokio::test]
async fn a_cursor_of_lines_in_a_copy_or_of_lines_that_were_rewritten_has_expired() {
    let (server, facts) = upgraded();
    let cursor = facts.cursor("lines.after-3").unwrap();
    has_expired(&server, cursor.clone()).await;
    std::fs::write(server.log_file("app.log"), "another\nfile\naltogether\n").unwrap();
    has_expired(&server, cursor).await;
}

#[tokio::test]
async fn a_cursor_after_a_deletion_waits_for_the_next_file() {
    let (server, facts) = upgraded();
    let follow = ReadLinesRequest { follow: true, wait_for_create: true, ..of("gone.log") };
    let mut waiting = resume(&server, facts.cursor("lines.deleted").unwrap(), follow).await.unwrap();
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
