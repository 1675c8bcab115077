//! Whether the streams of a run are connected, as it is reported on stderr.
//!
//! Several streams share a connection. Its loss is reported once, when the first stream notices; its return is reported
//! once, when every stream that was lost has resumed, failed or ended.

use std::sync::{Arc, Mutex, PoisonError};

use perennial::client::Notice;

use super::note;

/// The streams of a run.
#[derive(Clone, Debug, Default)]
pub struct Connection(Arc<Mutex<Streams>>);

#[derive(Debug, Default)]
struct Streams {
    /// The numbers of the streams that are lost.
    lost: Vec<usize>,
    /// A stream has resumed since the first one was lost.
    has_resumed: bool,
}

impl Connection {
    /// Observes the stream with this number.
    pub fn observer(&self, stream: usize) -> impl Fn(&Notice<'_>) + Send + Sync + 'static {
        let this = self.clone();
        move |notice| {
            let text = match notice {
                Notice::Interrupted { error, .. } => {
                    this.change(|it| it.lost(stream)).then(|| format!("connection lost ({error}): resuming"))
                }
                Notice::Resumed => this.change(|it| it.resumed(stream)).then(|| "resumed".into()),
            };
            if let Some(text) = text {
                note(&text);
            }
        }
    }

    /// A stream has failed or ended, and will not resume.
    pub fn closed(&self, stream: usize) {
        if self.change(|it| it.closed(stream)) {
            note("resumed");
        }
    }

    fn change(&self, change: impl FnOnce(&mut Streams) -> bool) -> bool {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Each method returns whether to report the change.
impl Streams {
    fn lost(&mut self, stream: usize) -> bool {
        let is_first = self.lost.is_empty();
        if !self.lost.contains(&stream) {
            self.lost.push(stream);
        }
        is_first
    }

    fn resumed(&mut self, stream: usize) -> bool {
        self.has_resumed |= self.lost.contains(&stream);
        self.closed(stream)
    }

    fn closed(&mut self, stream: usize) -> bool {
        let was_lost = !self.lost.is_empty();
        self.lost.retain(|it| *it != stream);
        was_lost && self.lost.is_empty() && std::mem::take(&mut self.has_resumed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_is_reported_once_and_back_when_every_stream_is() {
        let mut streams = Streams::default();
        assert!(streams.lost(0) && !streams.lost(1) && !streams.lost(0) && !streams.lost(2));
        assert!(!streams.resumed(1) && !streams.resumed(1) && !streams.resumed(0));
        // It is lost again before it was ever reported back.
        assert!(!streams.lost(1));
        assert!(!streams.resumed(2) && streams.resumed(1));
        assert!(!streams.resumed(1) && !streams.closed(0));
        assert!(streams.lost(2) && streams.resumed(2));
    }

    #[test]
    fn a_stream_that_failed_is_not_waited_for_and_has_not_resumed() {
        let mut streams = Streams::default();
        assert!(streams.lost(0) && !streams.lost(1));
        assert!(!streams.resumed(0) && streams.closed(1));
        assert!(streams.lost(0) && !streams.closed(0));
        assert!(streams.lost(1) && streams.resumed(1));
    }
}
