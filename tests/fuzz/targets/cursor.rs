//! Cursors: an input is the text of a cursor, or what a cursor has before its checksum. What the server takes, it gives
//! again as the same position, and a stream begins there or is refused with a reason.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use perennial::{
    countdown, cursor, lines, messages,
    proto::{
        CountdownRequest, MessagesRequest, ReadLinesRequest, WatchFilesRequest, countdown_request::Target,
    },
};
use prost::Message;

use super::request;

pub fn run(bytes: &[u8]) {
    // A request is text, so no other bytes come as a cursor.
    if let Ok(text) = std::str::from_utf8(bytes) {
        decode(text);
    }
    let sealed = [bytes, &crc32c::crc32c(bytes).to_le_bytes()].concat();
    decode(&URL_SAFE_NO_PAD.encode(sealed));
}

fn decode(text: &str) {
    let countdown = round_trip::<countdown::Position>(text);
    let shared = round_trip::<countdown::shared::Position>(text);
    let lines = round_trip::<lines::Position>(text);
    let messages = round_trip::<messages::Position>(text);
    let files = round_trip::<lines::FilePosition>(text);
    let kinds = [countdown, shared, lines, messages, files];
    assert!(kinds.into_iter().filter(|is_of_kind| *is_of_kind).count() <= 1);
    let cursor = Some(text.to_owned());
    if countdown || shared {
        let own =
            CountdownRequest { target: Some(Target::Start(3)), cursor: cursor.clone(), ..Default::default() };
        call("CountdownService/Countdown", &own);
        for name in ["launch", "ended", "over", "paused", "running"] {
            let target = Some(Target::Name(name.into()));
            call(
                "CountdownService/Countdown",
                &CountdownRequest { target, cursor: cursor.clone(), ..Default::default() },
            );
        }
    }
    if lines {
        for (follow, history) in [(false, false), (true, false), (false, true), (true, true)] {
            let (path, cursor) = ("logs/app.log".into(), cursor.clone());
            let request = ReadLinesRequest { path, follow, history, cursor, ..Default::default() };
            call("LineService/ReadLines", &request);
        }
    }
    if files {
        for glob in ["logs/**/*.log", "logs/*"] {
            let (globs, cursor) = (vec![glob.into()], cursor.clone());
            let request = WatchFilesRequest { globs, cursor, until_caught_up: true, ..Default::default() };
            call("LineService/WatchFiles", &request);
        }
    }
    if messages {
        for until_caught_up in [false, true] {
            let topics = vec![">".into()];
            let request =
                MessagesRequest { topics, until_caught_up, cursor: cursor.clone(), ..Default::default() };
            call("MessageService/Messages", &request);
        }
    }
}

/// Whether the text is a cursor of this kind.
fn round_trip<P: cursor::Position + PartialEq + std::fmt::Debug>(text: &str) -> bool {
    let Ok(position) = cursor::decode::<P>(text) else { return false };
    let again = cursor::encode(&position);
    assert_eq!(cursor::decode::<P>(&again), Ok(position));
    true
}

fn call(method: &str, message: &impl Message) {
    let body = request::framed(&message.encode_to_vec());
    request::check(&format!("/perennial.v1.{method}"), vec![Bytes::from(body)]);
}
