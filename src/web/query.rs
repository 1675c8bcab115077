//! The parameters of a URL as the fields of a request.
//!
//! A parameter has the name of a field in `proto/` or in its JSON, and a value in the grammar of the command line:
//! `interval=1s`, `last=10`, `follow`, `from_time=2026-01-02T03:04:05Z`, `on_gap=skip`. A field that is a list can be
//! repeated, and has also the name of one of its elements: `topic=a&topic=b`.

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use prost_reflect::{DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, Value};

use crate::{grpc::status::Failure, units};

/// Parameters that would be credentials: a URL ends up in logs, histories and bookmarks.
const CREDENTIALS: [&str; 5] = ["token", "access_token", "authorization", "api_key", "password"];

/// The parameters of a URL that are not fields.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// Each item is an event of its own.
    pub items: bool,
}

/// A request with the fields that a URL names. `bound` are fields that have their value from the path.
///
/// # Errors
/// `INVALID_FIELD` names the parameter.
pub fn read(
    query: &str,
    request: &MessageDescriptor,
    bound: &[(&'static str, String)],
) -> Result<(DynamicMessage, Options), Failure> {
    let mut message = DynamicMessage::new(request.clone());
    let mut options = Options::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if CREDENTIALS.contains(&name.to_ascii_lowercase().as_str()) {
            let text = "is a credential, which has no place in a URL: send the header `authorization: Bearer TOKEN`, or \
                        sign in with POST /v1/session";
            return Err(Failure::field(&name, text));
        }
        if name == "items" {
            options.items = switch("items", &value)?;
            continue;
        }
        let field = find(request, &name, bound)?;
        set(&mut message, &field, &name, &value)?;
    }
    for (name, value) in bound {
        if let Some(field) = request.get_field_by_name(name) {
            if let Some(other) = other_choice(&message, &field) {
                let text = format!("cannot be set together with {name}, which is in the path: leave it out");
                return Err(Failure::field(other.name(), text));
            }
            message.set_field(&field, Value::String(value.clone()));
        }
    }
    Ok((message, options))
}

/// The field that a parameter names.
fn find(
    request: &MessageDescriptor,
    name: &str,
    bound: &[(&'static str, String)],
) -> Result<FieldDescriptor, Failure> {
    let field = request
        .get_field_by_name(name)
        .or_else(|| request.get_field_by_json_name(name))
        .or_else(|| request.get_field_by_name(&format!("{name}s")).filter(FieldDescriptor::is_list));
    let is_bound = |field: &FieldDescriptor| bound.iter().any(|(bound, _)| *bound == field.name());
    match field {
        Some(field) if is_bound(&field) => {
            Err(Failure::field(name, "is in the path: leave it out of the query"))
        }
        Some(field) => Ok(field),
        None => {
            let names =
                request.fields().filter(|field| !is_bound(field)).map(|field| field.name().to_owned());
            let mut names = names.collect::<Vec<_>>();
            names.push("items".into());
            let nearest = names
                .iter()
                .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
            let guess = nearest.filter(|nearest| strsim::jaro_winkler(nearest, name) > 0.8);
            let guess = guess.map(|guess| format!("did you mean {guess}? ")).unwrap_or_default();
            Err(Failure::field(name, format!("is not a parameter: {guess}there are {}", names.join(", "))))
        }
    }
}

fn set(message: &mut DynamicMessage, field: &FieldDescriptor, name: &str, text: &str) -> Result<(), Failure> {
    let value = value(&field.kind(), field.name(), name, text)?;
    if field.is_list() {
        if let Value::List(list) = message.get_field_mut(field) {
            list.push(value);
        }
        return Ok(());
    }
    if message.has_field(field) {
        return Err(Failure::field(name, "is set twice: send it once"));
    }
    if let Some(other) = other_choice(message, field) {
        return Err(Failure::field(
            name,
            format!("cannot be set together with {}: send one of them", other.name()),
        ));
    }
    message.set_field(field, value);
    Ok(())
}

/// A field that excludes this one and is set.
fn other_choice(message: &DynamicMessage, field: &FieldDescriptor) -> Option<FieldDescriptor> {
    let choice = field.containing_oneof()?;
    choice.fields().find(|other| other.number() != field.number() && message.has_field(other))
}

fn value(kind: &Kind, field: &str, name: &str, text: &str) -> Result<Value, Failure> {
    let fault = |fault: &dyn std::fmt::Display| Failure::field(name, fault_text(text, fault));
    Ok(match kind {
        Kind::Bool => Value::Bool(switch(name, text)?),
        Kind::String => Value::String(text.into()),
        Kind::Int32 => {
            let number = number(field, text).map_err(|error| fault(&error))?;
            let out_of_range = || units::Error::NumberOutOfRange {
                text: text.into(),
                min: i32::MIN.into(),
                max: i32::MAX.into(),
            };
            Value::I32(i32::try_from(number).map_err(|_| fault(&out_of_range()))?)
        }
        Kind::Int64 => Value::I64(number(field, text).map_err(|error| fault(&error))?),
        Kind::Bytes => {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
            Value::Bytes(bytes.map_err(|_| fault(&"is not base64 for URLs"))?.into())
        }
        Kind::Enum(kind) => Value::EnumNumber(choice(kind, name, text)?),
        Kind::Message(kind) => {
            let (seconds, nanos) = match kind.full_name() {
                "google.protobuf.Duration" => {
                    let duration = units::parse_signed_duration(text).map_err(|error| fault(&error))?;
                    (duration.as_secs(), duration.subsec_nanos())
                }
                "google.protobuf.Timestamp" => {
                    let time = text.parse::<jiff::Timestamp>();
                    let remedy = "is not a time: write 2026-01-02T03:04:05Z (and %2B for a + in a URL)";
                    let time = time.map_err(|_| fault(&remedy))?;
                    (time.as_second(), time.subsec_nanosecond())
                }
                _ => return Err(fault(&"cannot be set in a URL: send the request by gRPC or gRPC-Web")),
            };
            let mut message = DynamicMessage::new(kind.clone());
            message.set_field_by_name("seconds", Value::I64(seconds));
            message.set_field_by_name("nanos", Value::I32(nanos));
            Value::Message(message)
        }
        _ => return Err(fault(&"cannot be set in a URL: send the request by gRPC or gRPC-Web")),
    })
}

/// The fault of a value, after the name of its parameter. The errors of [`units`] repeat the value.
fn fault_text(text: &str, fault: &dyn std::fmt::Display) -> String {
    let fault = fault.to_string();
    let short: Cow<'_, str> = if text.chars().count() > 60 {
        text.chars().take(60).collect::<String>().into()
    } else {
        text.into()
    };
    match fault.strip_prefix(&format!("`{text}` ")) {
        Some(rest) => format!("is `{short}`, which {rest}"),
        None => format!("is `{short}`, which {fault}"),
    }
}

/// A number, or a size where the field counts bytes.
fn number(field: &str, text: &str) -> Result<i64, units::Error> {
    let counts_bytes = field.ends_with("_bytes") || field.ends_with("_offset");
    if counts_bytes {
        let bytes = units::parse_size(text)?;
        return i64::try_from(bytes).map_err(|_| units::Error::SizeOutOfRange(text.into()));
    }
    let is_number =
        !text.is_empty() && text.trim_start_matches(['-', '+']).bytes().all(|byte| byte.is_ascii_digit());
    let out_of_range = || units::Error::NumberOutOfRange { text: text.into(), min: i64::MIN, max: i64::MAX };
    let not_a_number = || units::Error::NotANumber(text.into());
    text.parse().map_err(|_| if is_number { out_of_range() } else { not_a_number() })
}

/// A switch, which is on without a value.
fn switch(name: &str, text: &str) -> Result<bool, Failure> {
    match text {
        "" | "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(Failure::field(name, fault_text(text, &"is neither true nor false"))),
    }
}

/// A value of an enum by its name, or by the part of it that differs from the other values: `ON_GAP_SKIP` or `skip`.
fn choice(kind: &EnumDescriptor, name: &str, text: &str) -> Result<i32, Failure> {
    let common = kind.values().next().map(|first| first.name().trim_end_matches("UNSPECIFIED").to_owned());
    let common = common.unwrap_or_default();
    let wanted = text.to_ascii_uppercase().replace('-', "_");
    let found = kind
        .values()
        .find(|value| value.name() == wanted || value.name().strip_prefix(&common) == Some(&wanted));
    if let Some(value) = found.filter(|value| value.number() != 0) {
        return Ok(value.number());
    }
    let values = kind.values().filter(|value| value.number() != 0);
    let values =
        values.map(|value| value.name().trim_start_matches(&common).to_ascii_lowercase()).collect::<Vec<_>>();
    Err(Failure::field(name, fault_text(text, &format!("is not one of {}", values.join(", ")))))
}

#[cfg(test)]
mod tests;
