//! The unanswered messages of a flow, encoded once, in the frames that are sent.
//!
//! A frame is kept until its messages are answered, and is sent again unchanged over another connection: a message is
//! encoded once and never copied, however often it is sent. A frame is a `PublishStreamRequest`, whose only field is
//! `messages`, so its encoding is that of each message with the field's tag, one after another. prost writes both; only
//! the number of the field is repeated here, and a test decodes frames as the generated type.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use crate::proto::PublishRequest;

/// The field number of `PublishStreamRequest.messages`.
const MESSAGES: u32 = 1;
/// The most unanswered bytes that a client keeps to send them again. One message may exceed it.
const WINDOW_BYTES: usize = 16 * 1024 * 1024;
/// The most messages of a frame: far below the contract's 10,000, so that the first answers need not wait for the last
/// message.
const FRAME_MESSAGES: usize = 1_024;
/// The size of a full frame. Larger frames are not faster. One message may exceed it.
const FRAME_BYTES: usize = 256 * 1024;
/// The frames in a full window: while the server syncs one, others are encoded, sent and received.
const FRAMES_A_WINDOW: usize = 4;

/// The frames in order: first those that were sent on the open connection, then the others.
pub(super) struct Frames {
    sealed: VecDeque<Frame>,
    /// The number of sealed frames that were sent on the open connection.
    sent: usize,
    /// The frame that still takes messages.
    filling: BytesMut,
    /// The size of the last frame, which is reserved for the next one at once.
    usual_bytes: usize,
    lengths: VecDeque<usize>,
    messages: usize,
    bytes: usize,
    window_messages: usize,
    frame_messages: usize,
}

/// A request of the flow, without the messages that were answered.
struct Frame {
    bytes: Bytes,
    /// The bytes of each message, with its tag.
    lengths: VecDeque<usize>,
}

impl Frames {
    /// With room for `window_messages` unanswered messages, at least one.
    pub(super) fn new(window_messages: usize) -> Self {
        let window_messages = window_messages.max(1);
        Self {
            sealed: VecDeque::new(),
            sent: 0,
            filling: BytesMut::new(),
            usual_bytes: 0,
            lengths: VecDeque::new(),
            messages: 0,
            bytes: 0,
            window_messages,
            frame_messages: (window_messages / FRAMES_A_WINDOW).clamp(1, FRAME_MESSAGES),
        }
    }

    /// Whether every message was answered.
    pub(super) fn is_empty(&self) -> bool {
        self.messages == 0
    }

    pub(super) fn has_room(&self) -> bool {
        self.messages < self.window_messages && self.bytes < WINDOW_BYTES
    }

    /// Whether a frame can be sent.
    pub(super) fn is_ready(&self) -> bool {
        self.sent < self.sealed.len() || !self.lengths.is_empty()
    }

    /// Adds a message, and returns whether its frame is full now.
    pub(super) fn push(&mut self, message: &PublishRequest) -> bool {
        let before = self.filling.len();
        if before == 0 {
            self.filling.reserve(self.usual_bytes);
        }
        prost::encoding::message::encode(MESSAGES, message, &mut self.filling);
        let length = self.filling.len() - before;
        self.messages += 1;
        self.bytes += length;
        if before > 0 && self.filling.len() > FRAME_BYTES {
            let bytes = self.filling.split_to(before).freeze();
            self.sealed.push_back(Frame { bytes, lengths: std::mem::take(&mut self.lengths) });
        }
        self.lengths.push_back(length);
        let is_full = self.lengths.len() >= self.frame_messages || self.filling.len() >= FRAME_BYTES;
        if is_full {
            self.seal();
        }
        is_full
    }

    /// The next frame to send.
    pub(super) fn send(&mut self) -> Option<Bytes> {
        if self.sent == self.sealed.len() && !self.lengths.is_empty() {
            self.seal();
        }
        let bytes = self.sealed.get(self.sent)?.bytes.clone();
        self.sent += 1;
        Some(bytes)
    }

    fn seal(&mut self) {
        let bytes = self.filling.split().freeze();
        self.usual_bytes = bytes.len();
        self.sealed.push_back(Frame { bytes, lengths: std::mem::take(&mut self.lengths) });
    }

    /// Removes the first messages that were sent, and returns whether there were as many as `results`.
    pub(super) fn answered(&mut self, results: usize) -> bool {
        for _ in 0..results {
            let Some(frame) = self.sealed.front_mut().filter(|_| self.sent > 0) else { return false };
            #[expect(clippy::expect_used, reason = "a frame is removed with its last message")]
            let length = frame.lengths.pop_front().expect("a sealed frame has a message");
            frame.bytes.advance(length);
            self.messages -= 1;
            self.bytes -= length;
            if frame.lengths.is_empty() {
                self.sealed.pop_front();
                self.sent -= 1;
            }
        }
        true
    }

    /// Marks every unanswered message as unsent, because the connection was lost.
    pub(super) fn rewind(&mut self) {
        self.sent = 0;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]

    use prost::Message as _;

    use super::*;
    use crate::proto::{PublishStreamRequest, publish_request::Content};

    fn message(text: &str) -> PublishRequest {
        let content = Some(Content::Text(text.into()));
        PublishRequest { topic: "a".into(), content, ..PublishRequest::default() }
    }

    /// The texts of the frames that are ready.
    fn sent(frames: &mut Frames) -> Vec<Vec<String>> {
        let text = |message: PublishRequest| match message.content {
            Some(Content::Text(text)) => text,
            _ => unreachable!("no text"),
        };
        std::iter::from_fn(|| frames.send())
            .map(|frame| PublishStreamRequest::decode(frame).unwrap().messages)
            .map(|messages| messages.into_iter().map(text).collect())
            .collect()
    }

    #[test]
    fn only_unanswered_messages_are_sent_again() {
        let mut frames = Frames::new(8);
        assert!(frames.is_empty() && !frames.is_ready());
        let full = ["1", "2", "3"].map(|text| frames.push(&message(text)));
        assert_eq!(full, [false, true, false]);
        assert_eq!(sent(&mut frames), [vec!["1", "2"], vec!["3"]]);
        assert!(frames.answered(1));
        frames.push(&message("4"));
        frames.rewind();
        assert_eq!(sent(&mut frames), [vec!["2"], vec!["3"], vec!["4"]]);
        assert!(frames.answered(2));
        // An answer to a message that was not sent.
        frames.rewind();
        assert!(!frames.answered(9));
        assert_eq!(sent(&mut frames), [vec!["4"]]);
        assert!(frames.answered(1));
        assert!(frames.is_empty() && !frames.is_ready() && frames.bytes == 0);
    }

    #[test]
    fn a_window_is_full_by_messages_or_by_bytes_and_a_frame_too() {
        let mut frames = Frames::new(2);
        frames.push(&message("1"));
        assert!(frames.has_room());
        frames.push(&message("2"));
        assert!(!frames.has_room());
        frames.send();
        frames.answered(1);
        assert!(frames.has_room());

        let mut frames = Frames::new(1_000);
        let large = "x".repeat(FRAME_BYTES - 100);
        for _ in 0..WINDOW_BYTES / FRAME_BYTES {
            assert!(frames.has_room());
            frames.push(&message(&large));
        }
        frames.push(&message(&large));
        assert!(!frames.has_room());
        assert!(sent(&mut frames).iter().all(|frame| frame.len() == 1));
    }
}
