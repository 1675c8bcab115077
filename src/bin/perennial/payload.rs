//! The payload of a message as bytes, in whichever form it was published.

use perennial::proto::{StoredMessage, stored_message::Content};

pub fn payload(message: &StoredMessage) -> &[u8] {
    match &message.content {
        Some(Content::Text(text)) => text.as_bytes(),
        Some(Content::Data(data)) => data,
        None => &[],
    }
}
