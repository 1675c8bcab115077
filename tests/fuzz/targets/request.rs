//! Requests: a byte that chooses the method, a byte of flags, and the body, or the message in it.

use bytes::Bytes;
use tonic::Code;
use tonic_types::StatusExt;

use super::house;

/// The methods, in the order of their numbers in the corpus: add new ones at the end.
pub const METHODS: [&str; 25] = [
    "/perennial.v1.CountdownService/Countdown",
    "/perennial.v1.CountdownService/CreateCountdown",
    "/perennial.v1.CountdownService/PauseCountdown",
    "/perennial.v1.CountdownService/ResumeCountdown",
    "/perennial.v1.CountdownService/ExtendCountdown",
    "/perennial.v1.CountdownService/CancelCountdown",
    "/perennial.v1.CountdownService/GetCountdown",
    "/perennial.v1.CountdownService/ListCountdowns",
    "/perennial.v1.CountdownService/DeleteCountdown",
    "/perennial.v1.LineService/ReadLines",
    "/perennial.v1.LineService/ListFiles",
    "/perennial.v1.MessageService/Messages",
    "/perennial.v1.MessageService/Publish",
    "/perennial.v1.MessageService/PublishBatch",
    "/perennial.v1.MessageService/PublishStream",
    "/perennial.v1.MessageService/ListTopics",
    "/perennial.v1.MessageService/PurgeTopic",
    "/perennial.v1.MessageService/CommitCursor",
    "/perennial.v1.MessageService/SetConsumer",
    "/perennial.v1.MessageService/ListConsumers",
    "/perennial.v1.MessageService/DeleteConsumer",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/perennial.v1.MessageService/Nothing",
    "/perennial.v1.LineService/WatchFiles",
];

/// The body is not a message, but frames.
const IS_RAW: u8 = 1;

/// The body comes in parts of a few bytes.
const IS_DIVIDED: u8 = 2;

/// The message comes twice.
const IS_TWICE: u8 = 4;

pub fn run(bytes: &[u8]) {
    let [method, flags, body @ ..] = bytes else { return };
    let path = METHODS[usize::from(*method) % METHODS.len()];
    let mut body = if flags & IS_RAW == 0 { framed(body) } else { body.to_vec() };
    if flags & IS_TWICE != 0 {
        body.extend_from_within(..);
    }
    let length = if flags & IS_DIVIDED == 0 { body.len().max(1) } else { 3 };
    let parts = body.chunks(length).map(Bytes::copy_from_slice).collect();
    check(path, parts);
}

/// A message with its prefix.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, message].concat()
}

/// Calls a method: the answer has a status that a client can use.
pub fn check(path: &str, parts: Vec<Bytes>) {
    let (status, first) = house::call(path, parts);
    let is_fault = matches!(status.code(), Code::Internal | Code::Unknown | Code::DataLoss);
    assert!(!is_fault, "{path}: {status:?}");
    if status.code() == Code::Ok {
        if let Some(first) = first {
            let [flag, length @ ..] = *first.first_chunk::<5>().expect("a frame has a prefix");
            assert_eq!(flag, 0, "{path}: the answer is compressed");
            assert!(usize::try_from(u32::from_be_bytes(length)).unwrap() < 16 * 1024 * 1024);
        }
        return;
    }
    let reason = status.get_details_error_info().map(|info| info.reason);
    let is_own = path.starts_with("/perennial.v1.");
    assert!(!is_own || reason.is_some_and(|reason| !reason.is_empty()), "{path}: no reason: {status:?}");
    assert!(!status.message().is_empty() && !status.message().contains("panicked"), "{path}: {status:?}");
}
