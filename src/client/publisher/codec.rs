//! A codec for requests that are encoded before they reach tonic.

use bytes::{BufMut, Bytes};
use tonic::{
    Status,
    codec::{Codec, EncodeBuf, Encoder},
};
use tonic_prost::ProstCodec;

use crate::proto::{PublishStreamRequest, PublishStreamResponse};

/// The codec of the generated client.
type Plain = ProstCodec<PublishStreamRequest, PublishStreamResponse>;

/// Writes encoded frames unchanged; decodes answers with prost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FrameCodec;

impl Codec for FrameCodec {
    type Encode = Bytes;
    type Decode = PublishStreamResponse;
    type Encoder = Self;
    type Decoder = <Plain as Codec>::Decoder;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self::Decoder {
        Plain::default().decoder()
    }
}

impl Encoder for FrameCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, frame: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(frame.len());
        out.put(frame);
        Ok(())
    }
}
