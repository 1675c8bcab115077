//! The values of settings as people write them, on the command line and in the file.

use std::{str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de};

use super::roots::{Root, Rule};
use crate::{messages::retention, units};

/// Yes or no, as variables of the environment write it too.
pub fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

/// A duration, in the grammar of [`units`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span(Duration);

impl FromStr for Span {
    type Err = units::Error;

    fn from_str(text: &str) -> Result<Self, units::Error> {
        units::parse_duration(text).map(Self)
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

/// A number of bytes that fits in memory, in the grammar of [`units`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Size(usize);

impl FromStr for Size {
    type Err = units::Error;

    fn from_str(text: &str) -> Result<Self, units::Error> {
        let bytes = usize::try_from(units::parse_size(text)?);
        bytes.map(Self).map_err(|_| units::Error::SizeOutOfRange(text.into()))
    }
}

impl From<Size> for usize {
    fn from(size: Size) -> Self {
        size.0
    }
}

/// In the file these are written as on the command line; a number alone does as well.
macro_rules! deserialize_from_text {
    ($($name:ty),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = match toml::Value::deserialize(deserializer)? {
                    toml::Value::String(text) => text,
                    toml::Value::Integer(number) => number.to_string(),
                    _ => return Err(de::Error::custom("a text is wanted, in quotes")),
                };
                text.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

deserialize_from_text!(Root, Rule, retention::Rule, Span, Size);
