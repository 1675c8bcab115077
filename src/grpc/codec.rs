//! A codec for responses that are encoded before they reach tonic.
//!
//! [`wire`](crate::wire) has encoded the items of a batch. This codec copies them once into the frame, followed by the
//! other fields of the response, which prost encodes.

use std::marker::PhantomData;

use bytes::{BufMut, Bytes};
use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, EncodeBuf, Encoder},
};
use tonic_prost::ProstCodec;

/// The initial buffer of a stream: enough for one or two ticks. Each open stream holds one, and tonic's default of 8 KiB
/// would be most of the memory of a waiting stream. A batch enlarges the buffer to its size.
const BUFFER_BYTES: usize = 512;

/// Responses that are ready leave together when they have this size: tonic's default.
const LEAVES_AT_BYTES: usize = 32 * 1024;

/// A response: encoded items, then the encoding of all its other fields.
#[derive(Clone, Debug, Default)]
pub struct Encoded {
    /// The items in order: together a valid encoding of the repeated field.
    pub items: Vec<Bytes>,
    /// The encoding of the response without its items.
    pub rest: Bytes,
}

impl Encoded {
    /// Adds encoded items to a response without items.
    pub fn new(items: Vec<Bytes>, rest: &impl Message) -> Self {
        Self { items, rest: rest.encode_to_vec().into() }
    }

    /// The number of bytes of the response.
    pub fn size(&self) -> usize {
        self.items.iter().map(Bytes::len).sum::<usize>() + self.rest.len()
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

/// The encoder of [`EncodedCodec`].
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
