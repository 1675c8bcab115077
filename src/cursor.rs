//! The cursor: the text form of a position in a stream.
//!
//! `base64url(version, kind, position in postcard, crc32c of all before)`, without padding: safe in URLs and shells,
//! opaque to clients, at most [`MAX_BYTES`]. The checksum tells a cut or mistyped cursor from a good one; it is no
//! signature. A cursor authorises nothing: each stream checks a decoded position in full, as it does any request.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Serialize, de::DeserializeOwned};

/// The longest cursor, in bytes of text. A position is far smaller; the bound is for what strangers send.
pub const MAX_BYTES: usize = 1024;

/// The version of the encoding. A position that changes its shape gets a new one.
const VERSION: u8 = 1;

const CHECKSUM_BYTES: usize = 4;

/// The stream a cursor belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Kind {
    /// Of `Countdown`.
    Countdown = b'c',
    /// Of `Countdown`, of a shared one.
    Shared = b's',
    /// Of `ReadLines`.
    Lines = b'l',
    /// Of `Messages`.
    Messages = b'm',
}

/// Why a text is not a cursor of the stream it was given to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// Longer than any cursor.
    #[error("longer than {MAX_BYTES} bytes")]
    TooLong,
    /// Cut, mistyped, or never a cursor.
    #[error("damaged or incomplete")]
    Malformed,
    /// From a newer server.
    #[error("of version {0}, where this server knows version {VERSION}")]
    Version(u8),
    /// A cursor of another method.
    #[error("a cursor of another method")]
    Kind,
}

/// The cursor of a position.
pub fn encode<P: Serialize>(kind: Kind, position: &P) -> String {
    let head = vec![VERSION, kind as u8];
    // Serialising into memory fails only for types that postcard cannot express; positions are plain data, and an
    // empty body would be refused by `decode`, never misread.
    let mut bytes = postcard::to_extend(position, head).unwrap_or_default();
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The position that a cursor of this kind names.
///
/// # Errors
/// Whatever is not, to the last byte, a cursor that [`encode`] made for this kind.
pub fn decode<P: DeserializeOwned>(kind: Kind, text: &str) -> Result<P, Error> {
    if text.len() > MAX_BYTES {
        return Err(Error::TooLong);
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Error::Malformed)?;
    let split = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(Error::Malformed)?;
    let (body, checksum) = bytes.split_at(split);
    if crc32c::crc32c(body).to_le_bytes() != checksum {
        return Err(Error::Malformed);
    }
    match body {
        [version, ..] if *version != VERSION => Err(Error::Version(*version)),
        [_, tag, ..] if *tag != kind as u8 => Err(Error::Kind),
        [_, _, position @ ..] => match postcard::take_from_bytes(position) {
            Ok((position, [])) => Ok(position),
            _ => Err(Error::Malformed),
        },
        _ => Err(Error::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cursor_is_of_one_kind() {
        let text = encode(Kind::Lines, &7u64);
        assert_eq!(decode::<u64>(Kind::Lines, &text), Ok(7));
        assert_eq!(decode::<u64>(Kind::Messages, &text), Err(Error::Kind));
    }

    #[test]
    fn a_newer_version_is_told_apart_from_damage() {
        let mut bytes = vec![VERSION + 1, Kind::Lines as u8, 7];
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        let text = URL_SAFE_NO_PAD.encode(bytes);
        assert_eq!(decode::<u64>(Kind::Lines, &text), Err(Error::Version(VERSION + 1)));
    }

    #[test]
    fn text_longer_than_any_cursor_is_refused_unread() {
        assert_eq!(decode::<u64>(Kind::Lines, &"A".repeat(MAX_BYTES + 1)), Err(Error::TooLong));
    }

    proptest! {
        #[test]
        fn every_position_survives_the_round_trip(position: (u64, Option<i64>, [u8; 16], String)) {
            let text = encode(Kind::Countdown, &position);
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            prop_assert_eq!(decode(Kind::Countdown, &text), Ok(position));
        }

        #[test]
        fn every_changed_character_is_noticed(position: (u64, u64), at: prop::sample::Index, to in "[A-Za-z0-9_-]") {
            let text = encode(Kind::Lines, &position);
            let at = at.index(text.len());
            let mut changed = text.clone();
            changed.replace_range(at..=at, &to);
            prop_assume!(changed != text);
            prop_assert!(decode::<(u64, u64)>(Kind::Lines, &changed).is_err());
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            prop_assert!(decode::<(u64, String)>(Kind::Messages, &text).is_err());
        }
    }
}
