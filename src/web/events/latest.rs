//! The text of the latest response of each thread, so that readers of the same messages share it.
//!
//! A message that is published goes to all its readers as the same bytes, one reader after the other. Making text of them
//! costs more than sending it, so each thread keeps the last text that it made, and what it made it from. A reader gets it
//! only for the same bytes, in the same form: for bytes that it has already been given.

use std::{cell::RefCell, sync::Arc};

use super::{Form, Phase, Writer};
use crate::web::json::Method;

/// The largest response that is kept, in bytes. Making text of a larger one takes long, too, but threads would keep much.
const MAX_BYTES: usize = 16 * 1024;

thread_local! {
    static LATEST: RefCell<Option<Latest>> = const { RefCell::new(None) };
}

/// A response, how it was written, and its text.
struct Latest {
    method: Arc<Method>,
    form: Form,
    items: bool,
    before: Phase,
    response: Vec<u8>,
    after: Phase,
    has_items: bool,
    text: Vec<u8>,
}

/// Writes a response if this thread has just written the same one in the same way.
pub fn put(writer: &mut Writer, response: &[u8], out: &mut Vec<u8>) -> bool {
    LATEST.with_borrow(|latest| {
        let Some(latest) = latest else { return false };
        let is_same_way = Arc::ptr_eq(&latest.method, &writer.method)
            && (latest.form, latest.items, latest.before) == (writer.form, writer.items, writer.phase);
        if !is_same_way || latest.response != response {
            return false;
        }
        out.extend_from_slice(&latest.text);
        writer.phase = latest.after;
        writer.written.has_items |= latest.has_items;
        true
    })
}

/// Keeps the text of a response. `before`: the phase of the writer before it.
pub fn keep(writer: &Writer, before: Phase, response: &[u8], has_items: bool, text: &[u8]) {
    if response.len() > MAX_BYTES {
        return;
    }
    LATEST.with_borrow_mut(|latest| {
        *latest = Some(Latest {
            method: writer.method.clone(),
            form: writer.form,
            items: writer.items,
            before,
            response: response.to_vec(),
            after: writer.phase,
            has_items,
            text: text.to_vec(),
        });
    });
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use prost::Message;

    use super::*;
    use crate::proto::{MessagesResponse, StoredMessage};

    fn response(sequence: Option<i64>, caught_up: bool) -> Vec<u8> {
        let messages = sequence.map(|sequence| StoredMessage {
            sequence: Some(sequence),
            topic: "a".into(),
            ..Default::default()
        });
        let messages = messages.into_iter().collect();
        MessagesResponse { messages, cursor: "c".into(), caught_up, ..Default::default() }.encode_to_vec()
    }

    fn written(writer: &mut Writer, response: &[u8]) -> (String, bool) {
        let mut out = Vec::new();
        writer.put(response, &mut out).unwrap();
        (String::from_utf8(out).unwrap(), writer.written.has_items)
    }

    #[test]
    fn a_shared_text_is_the_one_that_the_stream_would_have_alone() {
        let method = Arc::new(Method::find("MessageService", "Messages"));
        let responses = [(None, false), (None, false), (Some(1), true), (Some(1), true), (None, true)];
        let responses = responses.map(|(sequence, caught_up)| response(sequence, caught_up));
        // For each kind of stream two that begin together, and one that begins later.
        let kinds = [Form::Events, Form::Lines].into_iter().flat_map(|form| [(form, false), (form, true)]);
        let streams = kinds.flat_map(|(form, items)| [0, 0, 1].map(|start| (start, form, items)));
        let streams = streams.collect::<Vec<_>>();
        let writers = || streams.iter().map(|&(_, form, items)| Writer::new(method.clone(), form, items));
        let (mut alone, mut together) = (writers().collect::<Vec<_>>(), writers().collect::<Vec<_>>());
        for (number, response) in responses.iter().enumerate() {
            for ((start, form, items), (alone, together)) in
                streams.iter().zip(alone.iter_mut().zip(&mut together))
            {
                if number < *start {
                    continue;
                }
                let shared = written(together, response);
                let kept = LATEST.take();
                assert_eq!(shared, written(alone, response), "{form:?}, items: {items}, response {number}");
                LATEST.set(kept);
            }
        }
    }
}
