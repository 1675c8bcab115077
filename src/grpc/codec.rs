//! A codec for responses that are encoded before they reach tonic.
//!
//! The items of a batch were written by [`wire`](crate::wire); here they are followed by the response's other fields,
//! as prost encodes them, and copied once into the frame.

use std::marker::PhantomData;

use bytes::{BufMut, Bytes};
use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, EncodeBuf, Encoder},
};
use tonic_prost::ProstCodec;

/// What a stream's buffer begins with: room for a tick or two. Each stream holds one for as long as it is open, and
/// tonic's 8 KiB are most of what a waiting stream takes; a batch makes its own room, as large as it is.
const BUFFER_BYTES: usize = 512;

/// What ready responses may add up to before they leave: as tonic has it.
const LEAVES_AT_BYTES: usize = 32 * 1024;

/// A response: encoded items, then the encoding of all its other fields.
#[derive(Clone, Debug, Default)]
pub struct Encoded {
    /// In order; together a valid encoding of the repeated field.
    pub items: Vec<Bytes>,
    /// The response without its items.
    pub rest: Vec<u8>,
}

impl Encoded {
    /// Joins items to a response whose own items are empty.
    pub fn new(items: Vec<Bytes>, rest: &impl Message) -> Self {
        Self { items, rest: rest.encode_to_vec() }
    }
}

/// Writes [`Encoded`] responses; decodes requests as prost does.
#[derive(Clone, Copy, Debug)]
pub struct EncodedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for EncodedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<U: Message + Default + Send + 'static> Codec for EncodedCodec<Encoded, U> {
    type Encode = Encoded;
    type Decode = U;
    type Encoder = EncodedEncoder;
    type Decoder = <ProstCodec<U, U> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        EncodedEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<U, U>::default().decoder()
    }
}

/// See [`EncodedCodec`].
#[derive(Clone, Copy, Debug)]
pub struct EncodedEncoder;

impl Encoder for EncodedEncoder {
    type Item = Encoded;
    type Error = Status;

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, LEAVES_AT_BYTES)
    }

    fn encode(&mut self, item: Encoded, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let Encoded { items, rest } = item;
        out.reserve(items.iter().map(Bytes::len).sum::<usize>() + rest.len());
        for item in items {
            out.put(item);
        }
        out.put_slice(&rest);
        Ok(())
    }
}
