//! The content of a line or a message, which is text or bytes.

use std::{borrow::Cow, str};

use crate::proto::{Line, PublishRequest, StoredMessage, line, publish_request, stored_message};

macro_rules! content {
    ($item:ty, $content:path) => {
        impl $item {
            /// The content as bytes.
            pub fn bytes(&self) -> &[u8] {
                use $content as Content;
                match &self.content {
                    Some(Content::Text(text)) => text.as_bytes(),
                    Some(Content::Data(data)) => data,
                    None => &[],
                }
            }

            /// The content as text. Bytes that are not UTF-8 become `U+FFFD`.
            pub fn to_text(&self) -> Cow<'_, str> {
                use $content as Content;
                match &self.content {
                    Some(Content::Text(text)) => Cow::Borrowed(text),
                    Some(Content::Data(data)) => String::from_utf8_lossy(data),
                    None => Cow::Borrowed(""),
                }
            }
        }
    };
}

content!(Line, line::Content);
content!(StoredMessage, stored_message::Content);

impl PublishRequest {
    /// A message for a topic: text if it is UTF-8, otherwise bytes.
    pub fn new(topic: impl Into<String>, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        let content = match str::from_utf8(content) {
            Ok(text) => publish_request::Content::Text(text.to_owned()),
            Err(_) => publish_request::Content::Data(content.to_vec()),
        };
        Self { topic: topic.into(), content: Some(content), ..Self::default() }
    }
}
