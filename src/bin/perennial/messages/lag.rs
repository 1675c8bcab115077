//! How far behind the newest message a reader is: a line for a person who waits, until it has caught up.

use std::io::{self, IsTerminal};

use indicatif::HumanCount;
use perennial::proto::MessagesResponse;

use crate::rate::Rate;

const TEMPLATE: &str = "{msg} behind  {rate}";

/// The line, or nothing where nobody would see it.
pub struct Lag(Rate);

impl Lag {
    pub fn new() -> Self {
        Self(Rate::new(TEMPLATE, io::stderr().is_terminal() && !io::stdout().is_terminal()))
    }

    /// Takes note of a response.
    pub fn took(&mut self, response: &MessagesResponse) {
        if !self.0.is_on() {
            return;
        }
        if response.caught_up {
            return self.0.hide();
        }
        let last = response.messages.last().and_then(|message| message.sequence);
        if let Some((last, head)) = last.zip(response.head_sequence) {
            let behind = u64::try_from(head.saturating_sub(last)).unwrap_or_default();
            self.0.say(HumanCount(behind).to_string());
            self.0.took(response.messages.len().try_into().unwrap_or_default());
        }
    }

    /// Takes the line away.
    pub fn hide(&mut self) {
        self.0.hide();
    }
}
