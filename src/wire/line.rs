//! `perennial.v1.Line`, as an item of `ReadLinesResponse.lines`.

use bytes::BufMut;

use super::{LENGTH_DELIMITED, put_length_tag, put_varint, put_varint_tag, take_varint, varint_len};

/// `ReadLinesResponse.lines`.
const LINES: u32 = 1;

const OFFSET: u32 = 1;
const NUMBER: u32 = 2;
const TEXT: u32 = 3;
const DATA: u32 = 4;
const NO_NEWLINE: u32 = 5;
const CONTINUED: u32 = 6;
const HAS_MORE: u32 = 7;
const TRUNCATED: u32 = 8;
const SKIPPED: u32 = 9;
const PARTIAL: u32 = 10;

/// Every field above has a tag of one byte.
const TAG_BYTES: usize = 1;

/// The most bytes that [`put`] adds to a line's content.
pub const OVERHEAD_BYTES: usize = 48;

/// A line, or a piece of one.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are fields of the message")]
pub struct Line<'a> {
    /// The offset of its first byte.
    pub offset: u64,
    /// Its number in the file, from 1, if it is known.
    pub number: Option<u64>,
    /// Its bytes without the delimiter.
    pub content: &'a [u8],
    /// Whether `content` is valid UTF-8.
    pub is_text: bool,
    /// The file ends here without a newline.
    pub no_newline: bool,
    /// This is not the first piece of a line.
    pub continued: bool,
    /// More pieces of the line follow.
    pub has_more: bool,
    /// The rest of the line is not delivered.
    pub truncated: bool,
    /// The content of the line is not delivered.
    pub skipped: bool,
    /// The line has no newline yet.
    pub partial: bool,
}

/// Appends a line as an item of `ReadLinesResponse.lines`.
pub fn put(out: &mut impl BufMut, line: &Line<'_>) {
    let flags = [
        (NO_NEWLINE, line.no_newline),
        (CONTINUED, line.continued),
        (HAS_MORE, line.has_more),
        (TRUNCATED, line.truncated),
        (SKIPPED, line.skipped),
        (PARTIAL, line.partial),
    ];
    let content_bytes = line.content.len() as u64;
    let length = TAG_BYTES
        + varint_len(line.offset)
        + line.number.map_or(0, |number| TAG_BYTES + varint_len(number))
        + TAG_BYTES
        + varint_len(content_bytes)
        + line.content.len()
        + flags.iter().filter(|(_, set)| *set).count() * (TAG_BYTES + 1);
    put_length_tag(out, LINES);
    put_varint(out, length as u64);
    put_varint_tag(out, OFFSET);
    put_varint(out, line.offset);
    if let Some(number) = line.number {
        put_varint_tag(out, NUMBER);
        put_varint(out, number);
    }
    put_length_tag(out, if line.is_text { TEXT } else { DATA });
    put_varint(out, content_bytes);
    out.put_slice(line.content);
    for (field, set) in flags {
        if set {
            put_varint_tag(out, field);
            put_varint(out, 1);
        }
    }
}

/// The offsets of the lines that [`put`] encoded, without those that continue a line.
pub fn starts(mut items: &[u8]) -> impl Iterator<Item = u64> {
    std::iter::from_fn(move || {
        loop {
            // The tag of `lines`, the length of the line, the tag of its offset.
            items = items.get(TAG_BYTES..)?;
            let length = usize::try_from(take_varint(&mut items)?).ok()?;
            let (mut line, rest) = items.split_at_checked(length)?;
            items = rest;
            line = line.get(TAG_BYTES..)?;
            let offset = take_varint(&mut line)?;
            if !is_continued(line)? {
                return Some(offset);
            }
        }
    })
}

/// Whether the fields after the offset of a line have [`Line::continued`].
fn is_continued(mut fields: &[u8]) -> Option<bool> {
    while let Some((tag, rest)) = fields.split_first() {
        fields = rest;
        let value = take_varint(&mut fields)?;
        // The type of a field is in the last three bits of its tag.
        if u32::from(tag & 7) == LENGTH_DELIMITED {
            fields = fields.get(usize::try_from(value).ok()?..)?;
        }
        if u32::from(tag >> 3) == CONTINUED {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::proto;

    proptest! {
        #[test]
        fn an_encoded_line_is_equal_to_that_of_prost(
            offset in 0..i64::MAX as u64,
            number in proptest::option::of(0..i64::MAX as u64),
            content in proptest::collection::vec(any::<u8>(), 0..300),
            flags: [bool; 6],
        ) {
            let text = String::from_utf8(content.clone());
            let [no_newline, continued, has_more, truncated, skipped, partial] = flags;
            let line = Line {
                offset, number, content: &content, is_text: text.is_ok(), no_newline, continued, has_more,
                truncated, skipped, partial,
            };
            let mut ours = Vec::new();
            put(&mut ours, &line);
            let content_field = match text {
                Ok(text) => proto::line::Content::Text(text),
                Err(_) => proto::line::Content::Data(content.clone()),
            };
            let theirs = proto::ReadLinesResponse {
                lines: vec![proto::Line {
                    offset: Some(offset.cast_signed()),
                    number: number.map(u64::cast_signed),
                    content: Some(content_field),
                    no_newline,
                    continued,
                    has_more,
                    truncated,
                    skipped,
                    partial,
                }],
                ..Default::default()
            };
            prop_assert!(ours.len() <= content.len() + OVERHEAD_BYTES);
            let found = starts(&[&ours[..], &ours].concat()).collect::<Vec<_>>();
            prop_assert_eq!(found, vec![offset; if continued { 0 } else { 2 }]);
            prop_assert_eq!(ours, theirs.encode_to_vec());
        }
    }
}
