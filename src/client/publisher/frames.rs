//! The unanswered messages of a flow, encoded once, in the frames in which they go out.
//!
//! What was sent is kept until it is answered, and goes out again as it is over another connection: neither a copy nor
//! a second encoding is made of a message, however often it is sent.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use crate::proto::PublishRequest;

/// The field number of `PublishStreamRequest.messages`.
const MESSAGES: u32 = 1;
/// Unanswered bytes, but for one message: what a client may hold for the sake of sending it again.
const WINDOW_BYTES: usize = 16 * 1024 * 1024;
/// Of a frame: far under the contract's 10,000, so that the first answers are not held up by the last message.
const FRAME_MESSAGES: usize = 1_024;
/// Of a frame, but for one message: larger ones gain nothing.
const FRAME_BYTES: usize = 256 * 1024;
/// So many frames fill a window: while one is synced, others are encoded, on their way, and taken in.
const FRAMES_A_WINDOW: usize = 4;

/// In order; those that were sent, and then those that were not.
pub(super) struct Frames {
    sealed: VecDeque<Frame>,
    /// How many of the sealed ones went out on the connection that is open.
    sent: usize,
    /// The frame that still takes messages.
    filling: BytesMut,
    /// How large the last frame was: so much room is made for the next one at once.
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
    /// Of each message, in bytes, with its tag.
    lengths: VecDeque<usize>,
}

impl Frames {
    /// With room for so many unanswered messages.
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

    /// All were answered.
    pub(super) fn is_empty(&self) -> bool {
        self.messages == 0
    }

    pub(super) fn has_room(&self) -> bool {
        self.messages < self.window_messages && self.bytes < WINDOW_BYTES
    }

    /// There is something to send.
    pub(super) fn is_ready(&self) -> bool {
        self.sent < self.sealed.len() || !self.lengths.is_empty()
    }

    /// Takes a message in, and tells whether it was the last that its frame takes.
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

    /// Lets go of the first so many messages that were sent.
    pub(super) fn answered(&mut self, results: usize) {
        for _ in 0..results {
            let Some(frame) = self.sealed.front_mut().filter(|_| self.sent > 0) else { return };
            let length = frame.lengths.pop_front().unwrap_or_default();
            frame.bytes.advance(length.min(frame.bytes.len()));
            self.messages = self.messages.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(length);
            if frame.lengths.is_empty() {
                self.sealed.pop_front();
                self.sent -= 1;
            }
        }
    }

    /// The connection is lost: all that is unanswered is to be sent again.
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
    fn what_is_unanswered_is_sent_again_and_nothing_else() {
        let mut frames = Frames::new(8);
        assert!(frames.is_empty() && !frames.is_ready());
        let full = ["1", "2", "3"].map(|text| frames.push(&message(text)));
        assert_eq!(full, [false, true, false]);
        assert_eq!(sent(&mut frames), [vec!["1", "2"], vec!["3"]]);
        frames.answered(1);
        frames.push(&message("4"));
        frames.rewind();
        assert_eq!(sent(&mut frames), [vec!["2"], vec!["3"], vec!["4"]]);
        frames.answered(2);
        // An answer to what was never asked.
        frames.rewind();
        frames.answered(9);
        assert_eq!(sent(&mut frames), [vec!["4"]]);
        frames.answered(1);
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
