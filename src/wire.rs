//! The hand-written protobuf encoder of the server. [`countdown`](crate::countdown), [`lines`](crate::lines) and
//! [`messages`](crate::messages) use it to write items straight into a batch, so that each item is encoded once, from
//! the buffer that it was read into.
//!
//! A response is the items, encoded here, followed by its other fields, encoded by prost: protobuf allows the fields of
//! a message in any order. Tests compare each function with prost's own encoding.

use bytes::BufMut;

pub mod line;
pub mod message;
pub mod tick;

/// The wire type of a number.
const VARINT: u32 = 0;
/// The wire type of a field that starts with its length.
const LENGTH_DELIMITED: u32 = 2;

/// How many bytes a varint takes: 1 to 10.
pub(crate) const fn varint_len(value: u64) -> usize {
    // Seven bits a byte; zero takes one byte too.
    (((value | 1).ilog2() / 7) + 1) as usize
}

/// Calls `put` with each byte of a varint.
pub(crate) fn varint_bytes(mut value: u64, mut put: impl FnMut(u8)) {
    while value >= 0x80 {
        put(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    put(value.to_le_bytes()[0]);
}

/// Writes a varint.
pub(crate) fn put_varint(out: &mut impl BufMut, value: u64) {
    varint_bytes(value, |byte| out.put_u8(byte));
}

/// Reads a varint of 64 bits, and moves after it.
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Writes the tag of a varint field.
pub(crate) fn put_varint_tag(out: &mut impl BufMut, field: u32) {
    put_varint(out, u64::from(field << 3 | VARINT));
}

/// Writes the tag of a field that starts with its length.
pub(crate) fn put_length_tag(out: &mut impl BufMut, field: u32) {
    put_varint(out, u64::from(field << 3 | LENGTH_DELIMITED));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_are_equal_to_those_of_prost(value: u64) {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            put_varint(&mut ours, value);
            prost::encoding::encode_varint(value, &mut theirs);
            prop_assert_eq!(varint_len(value), ours.len());
            let mut rest = ours.as_slice();
            prop_assert_eq!((take_varint(&mut rest), rest.len()), (Some(value), 0));
            prop_assert_eq!(ours, theirs);
        }
    }
}
