//! A progress line on stderr: the sequence that was read and the newest one, until they meet.

use std::io::{self, IsTerminal};

use indicatif::HumanCount;
use perennial::proto::MessagesResponse;

use crate::rate::Rate;

const TEMPLATE: &str = "{msg}  {rate}";

/// The line, or nothing if stderr is not a terminal or stdout is one.
pub struct Lag(Rate);

impl Lag {
    pub fn new() -> Self {
        Self(Rate::new(TEMPLATE, io::stderr().is_terminal() && !io::stdout().is_terminal()))
    }

    /// Shows the progress that a response makes.
    pub fn on_response(&mut self, response: &MessagesResponse) {
        if !self.0.is_on() {
            return;
        }
        if response.caught_up {
            return self.0.hide();
        }
        if let Some(text) = progress(response) {
            self.0.set_message(text);
            self.0.add(response.messages.len().try_into().unwrap_or(u64::MAX));
        }
    }

    /// Removes the line.
    pub fn hide(&mut self) {
        self.0.hide();
    }
}

/// Both sequences count the messages of all topics, so their difference would not be the number of messages to come.
fn progress(response: &MessagesResponse) -> Option<String> {
    let last = response.messages.last()?.sequence?;
    let count = |sequence: i64| HumanCount(sequence.unsigned_abs());
    Some(match response.head_sequence.filter(|newest| *newest >= last) {
        Some(newest) => format!("sequence {} of {}", count(last), count(newest)),
        None => format!("sequence {}", count(last)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use perennial::proto::StoredMessage;

    #[test]
    fn progress_is_two_sequences_and_no_difference() {
        let mut response = MessagesResponse { head_sequence: Some(12_000), ..MessagesResponse::default() };
        assert_eq!(progress(&response), None);
        response.messages.push(StoredMessage { sequence: Some(3_000), ..StoredMessage::default() });
        assert_eq!(progress(&response).as_deref(), Some("sequence 3,000 of 12,000"));
        // The server's own topics are not counted in the head.
        response.head_sequence = Some(2_999);
        assert_eq!(progress(&response).as_deref(), Some("sequence 3,000"));
    }
}
