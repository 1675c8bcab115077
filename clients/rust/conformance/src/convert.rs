//! The JSON form of protobuf, and of errors.

use std::{io::Write, sync::LazyLock};

use perennial::{client::Error, proto::FILE_DESCRIPTOR_SET, reason::code_name};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::{Value, json};

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the descriptors of the contract"));

fn descriptor(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(&format!("perennial.v1.{name}")).expect("a message of the contract")
}

/// A message of the contract from its JSON form.
pub fn from_json<M: prost::Message + Default>(name: &str, value: &Value) -> M {
    let value = if value.is_null() { json!({}) } else { value.clone() };
    let message = DynamicMessage::deserialize(descriptor(name), value).expect("a request of the kit");
    message.transcode_to().expect("the same message")
}

/// The JSON form of a message of the contract.
pub fn to_json<M: prost::Message>(name: &str, message: &M) -> Value {
    let mut dynamic = DynamicMessage::new(descriptor(name));
    dynamic.transcode_from(message).expect("the same message");
    serde_json::to_value(&dynamic).expect("a JSON form")
}

/// Prints a line at once.
pub fn print(line: &Value) {
    let mut out = std::io::stdout().lock();
    // A kit that has ended does not read it.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// An error as the kit expects it.
pub fn described(error: &Error) -> Value {
    let kind = match error {
        Error::State { .. } => "state",
        Error::LineGap(_) | Error::MessageGap(_) => "gap",
        Error::OutcomeUnknown { .. } => "outcome_unknown",
        Error::Protocol { .. } => "protocol",
        _ => "",
    };
    let mut line = json!({
        "code": code_name(error.code()),
        "reason": error.reason().unwrap_or_default(),
        "field": error.field().unwrap_or_default(),
        "metadata": error.metadata(),
        "message": error.to_string(),
        "retryable": error.is_retryable(),
    });
    if !kind.is_empty() {
        line["kind"] = json!(kind);
    }
    match error {
        Error::LineGap(gap) => line["gap"] = to_json("LineGap", gap),
        Error::MessageGap(gap) => line["gap"] = to_json("MessageGap", gap),
        _ => {}
    }
    line
}
