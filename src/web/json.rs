//! The contract in JSON: methods by name, requests from JSON, responses to JSON, by the mapping of protobuf.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, FieldDescriptor, MessageDescriptor};

use crate::{
    grpc::status::{self, Failure},
    proto,
};

/// The types of `proto/`.
static TYPES: LazyLock<DescriptorPool> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the build script wrote these bytes, and each start reads them")]
    DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET).expect("the descriptors of the contract are complete")
});

/// A method of the contract.
#[derive(Clone, Debug)]
pub struct Method {
    /// The path of its calls.
    pub path: String,
    pub request: MessageDescriptor,
    pub response: MessageDescriptor,
    /// The items of its responses, if it streams.
    pub items: Option<FieldDescriptor>,
}

impl Method {
    /// The method of a service of this package.
    ///
    /// # Panics
    /// The contract has no such method. The table of doors is read at each start.
    #[expect(
        clippy::expect_used,
        reason = "the table of doors names methods of the contract, and each start reads it"
    )]
    pub fn find(service: &str, method: &str) -> Self {
        let name = format!("perennial.v1.{service}");
        let found = TYPES.get_service_by_name(&name).expect("a service of the contract");
        let found = found.methods().find(|known| known.name() == method).expect("a method of the contract");
        let items =
            found.output().fields().next().filter(|first| found.is_server_streaming() && first.is_list());
        Self { path: format!("/{name}/{method}"), request: found.input(), response: found.output(), items }
    }
}

/// A request from its JSON.
///
/// # Errors
/// `REQUEST_MALFORMED` says what is wrong, and where.
pub fn request(text: &[u8], kind: &MessageDescriptor) -> Result<DynamicMessage, Failure> {
    let fault = |error: &serde_json::Error| {
        status::malformed(&format!("is not the JSON of a {}: {error}", kind.name()))
    };
    let mut json = serde_json::Deserializer::from_slice(text);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let message = DynamicMessage::deserialize_with_options(kind.clone(), &mut json, &options);
    let message = message.map_err(|error| fault(&error))?;
    json.end().map_err(|error| fault(&error))?;
    Ok(message)
}

/// A response that a method gave.
///
/// # Errors
/// The bytes are no response. That is a fault of this program.
pub fn response(bytes: &[u8], kind: &MessageDescriptor) -> Result<DynamicMessage, Failure> {
    DynamicMessage::decode(kind.clone(), bytes).map_err(|error| status::not_json(&error))
}

/// The JSON of a message or of a value in it, at the end of `out`.
pub fn put(value: &impl serde::Serialize, out: &mut Vec<u8>) -> Result<(), Failure> {
    serde_json::to_writer(out, value).map_err(|error| status::not_json(&error))
}

/// A message with the prefix of gRPC.
pub fn framed(message: &DynamicMessage) -> Vec<u8> {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(5 + length);
    bytes.push(0);
    bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    // A vector grows, so encoding does not fail.
    let _ = message.encode(&mut bytes);
    bytes
}
