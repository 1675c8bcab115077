//! The cursor: the text form of a position in a stream.
//!
//! `base64url(version, kind, position in postcard, crc32c of all before)`, without padding: safe in URLs and shells,
//! opaque to clients, at most [`MAX_BYTES`]. The checksum detects a truncated or mistyped cursor; it is not a
//! signature. A cursor authorises nothing: each stream checks a decoded position in full, as it does any request.
//!
//! Each kind has versions of its own. A version is one shape of a position's fields: to change the shape of one kind,
//! keep the old shape as a type, and add its decoder to [`Position::DECODERS`]. Cursors of that kind, in files of
//! clients and in the log, then continue to work, and cursors of other kinds are not affected.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Serialize, de::DeserializeOwned};

/// The longest cursor, in bytes of text. A position is far smaller; the bound limits the text that a client can send.
pub const MAX_BYTES: usize = 1024;

const CHECKSUM_BYTES: usize = 4;

/// Most positions fit in this many bytes, so that their memory does not grow byte by byte.
const USUAL_BYTES: usize = 192;

/// The stream a cursor belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Kind {
    /// `Countdown` without a name.
    Countdown = b'c',
    /// `Countdown` of a shared countdown.
    Shared = b's',
    /// `ReadLines`.
    Lines = b'l',
    /// `Messages`.
    Messages = b'm',
    /// `WatchFiles`.
    Files = b'f',
}

/// A position that a cursor can name. Its serialised fields, in their order, are the newest version.
pub trait Position: Serialize + Sized + 'static {
    /// The stream it belongs to.
    const KIND: Kind;

    /// A decoder for each version, from version 1 on; the last one is [`decode_fields`] of the type itself.
    const DECODERS: &'static [Decoder<Self>];
}

/// Decodes the fields of one version; `None` if the bytes are not in that form.
pub type Decoder<P> = fn(&[u8]) -> Option<P>;

/// The decoder of a version whose fields are those of `T`.
pub fn decode_fields<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((fields, [])) => Some(fields),
        _ => None,
    }
}

/// Why a text is not a cursor of the stream that it was given to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// Longer than any cursor.
    #[error("longer than {MAX_BYTES} bytes")]
    TooLong,
    /// Truncated, mistyped, or never a cursor.
    #[error("damaged or incomplete")]
    Malformed,
    /// A newer server made it.
    #[error("of version {version}, which a newer server made: this one knows versions up to {newest}")]
    Version {
        /// The cursor's version.
        version: u8,
        /// The newest version of this kind that this server knows.
        newest: u8,
    },
    /// It belongs to another kind of stream.
    #[error("a cursor of another method")]
    Kind,
}

/// The cursor of a position.
///
/// # Panics
/// The type of the position cannot be a cursor: postcard cannot express its fields, they do not fit [`MAX_BYTES`], or
/// it has no decoder.
#[expect(clippy::expect_used, reason = "the types of positions are part of this program, not of a request")]
pub fn encode<P: Position>(position: &P) -> String {
    let mut head = Vec::with_capacity(USUAL_BYTES);
    head.extend([newest::<P>(), P::KIND as u8]);
    let mut bytes = postcard::to_extend(position, head).expect("a position is plain data");
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    let text = URL_SAFE_NO_PAD.encode(bytes);
    assert!(text.len() <= MAX_BYTES, "a position has a bound, and takes {} bytes", text.len());
    text
}

/// The position that a cursor names.
///
/// # Errors
/// The text is not, to the last byte, a cursor that [`encode`] made for this kind, in any of its versions.
pub fn decode<P: Position>(text: &str) -> Result<P, Error> {
    if text.len() > MAX_BYTES {
        return Err(Error::TooLong);
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Error::Malformed)?;
    let split = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(Error::Malformed)?;
    let (body, checksum) = bytes.split_at(split);
    if crc32c::crc32c(body).to_le_bytes() != checksum {
        return Err(Error::Malformed);
    }
    let [version, kind, position @ ..] = body else { return Err(Error::Malformed) };
    if *kind != P::KIND as u8 {
        return Err(Error::Kind);
    }
    let index = usize::from(*version).checked_sub(1).ok_or(Error::Malformed)?;
    let decoder =
        P::DECODERS.get(index).ok_or(Error::Version { version: *version, newest: newest::<P>() })?;
    decoder(position).ok_or(Error::Malformed)
}

/// The version that [`encode`] writes.
#[expect(clippy::expect_used, reason = "the types of positions are part of this program, not of a request")]
fn newest<P: Position>() -> u8 {
    let versions = u8::try_from(P::DECODERS.len()).ok().filter(|versions| *versions > 0);
    versions.expect("a position has from 1 to 255 versions")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    /// A position of lines in its first version.
    #[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
    struct First {
        file: [u8; 16],
        offset: u64,
        name: String,
    }

    impl Position for First {
        const KIND: Kind = Kind::Lines;
        const DECODERS: &'static [Decoder<Self>] = &[decode_fields];
    }

    /// The same in a later version, which has another shape: a compressed file has an offset within its stream.
    #[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
    struct Second {
        within: Option<u64>,
        file: [u8; 16],
        offset: u64,
    }

    impl Position for Second {
        const KIND: Kind = Kind::Lines;
        const DECODERS: &'static [Decoder<Self>] =
            &[|bytes| decode_fields::<First>(bytes).map(Self::from), decode_fields];
    }

    impl From<First> for Second {
        fn from(First { file, offset, name: _ }: First) -> Self {
            Self { within: None, file, offset }
        }
    }

    #[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
    struct OfMessages(u64);

    impl Position for OfMessages {
        const KIND: Kind = Kind::Messages;
        const DECODERS: &'static [Decoder<Self>] = &[decode_fields];
    }

    fn first() -> First {
        First { file: [7; 16], offset: 300, name: "app.log".into() }
    }

    #[test]
    fn a_later_version_of_a_kind_reads_the_cursors_of_the_version_before() {
        let old = encode(&first());
        let read = decode::<Second>(&old).unwrap();
        assert_eq!(read, Second { within: None, file: [7; 16], offset: 300 });
        let new = encode(&read);
        assert_eq!(decode(&new), Ok(read));
        // An older server reports that the cursor is too new, not that it is damaged.
        assert_eq!(decode::<First>(&new), Err(Error::Version { version: 2, newest: 1 }));
        // The other kinds keep their version.
        assert_eq!(decode(&encode(&OfMessages(5))), Ok(OfMessages(5)));
    }

    #[test]
    fn a_cursor_is_of_one_kind_whatever_its_version() {
        assert_eq!(decode::<OfMessages>(&encode(&first())), Err(Error::Kind));
        let second = Second { within: Some(1), file: [7; 16], offset: 300 };
        assert_eq!(decode::<OfMessages>(&encode(&second)), Err(Error::Kind));
    }

    #[test]
    fn version_0_and_additional_bytes_are_refused() {
        let sealed = |mut bytes: Vec<u8>| {
            bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
            URL_SAFE_NO_PAD.encode(bytes)
        };
        let kind = Kind::Messages as u8;
        assert_eq!(decode::<OfMessages>(&sealed(vec![1, kind, 7])), Ok(OfMessages(7)));
        for bytes in [vec![0, kind, 7], vec![1, kind, 7, 0], vec![1, kind], vec![1], vec![]] {
            assert_eq!(decode::<OfMessages>(&sealed(bytes)), Err(Error::Malformed));
        }
    }

    #[test]
    fn text_longer_than_any_cursor_is_refused() {
        assert_eq!(decode::<OfMessages>(&"A".repeat(MAX_BYTES + 1)), Err(Error::TooLong));
    }

    #[test]
    #[should_panic(expected = "a position has a bound")]
    fn a_position_that_exceeds_the_bound_panics() {
        encode(&First { name: "x".repeat(MAX_BYTES), ..first() });
    }

    proptest! {
        #[test]
        fn every_position_survives_the_round_trip(file: [u8; 16], offset: u64, name in ".{0,40}") {
            let position = First { file, offset, name };
            let text = encode(&position);
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            prop_assert_eq!(decode(&text), Ok(position));
        }

        #[test]
        fn every_changed_character_is_detected(offset: u64, at: prop::sample::Index, to in "[A-Za-z0-9_-]") {
            let text = encode(&OfMessages(offset));
            let at = at.index(text.len());
            let mut changed = text.clone();
            changed.replace_range(at..=at, &to);
            prop_assume!(changed != text);
            prop_assert!(decode::<OfMessages>(&changed).is_err());
        }

        #[test]
        fn arbitrary_text_is_refused_without_a_panic(text in ".{0,200}") {
            prop_assert!(decode::<Second>(&text).is_err());
        }
    }
}
