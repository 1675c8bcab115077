//! The values of settings as people write them, on the command line and in the file.

use std::{str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de};

use super::roots::{Root, Rule};
use crate::messages::retention;

/// The longest duration that can be set, in hours: a hundred years. Far longer ones overflow the clock.
const MAX_HOURS: u64 = 100 * 8766;

/// Yes or no, as variables of the environment write it too.
pub fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

/// A duration as people write it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span(Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("`{text}` is no duration: write 500ms, 20s, 5m or 1h");
        let signed = text.parse::<jiff::SignedDuration>().map_err(|_| fault())?;
        let duration = Duration::try_from(signed).map_err(|_| fault())?;
        if duration > Duration::from_secs(MAX_HOURS * 3600) {
            return Err(format!("`{text}` is too long: {MAX_HOURS}h, a hundred years, at most"));
        }
        Ok(Self(duration))
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

/// A number of bytes as people write it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Size(usize);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [("KiB", 1024), ("MiB", 1024 * 1024), ("GiB", 1024 * 1024 * 1024), ("", 1)];
        let in_unit = |(unit, bytes): (&str, usize)| {
            text.strip_suffix(unit)?.trim_end().parse::<usize>().ok()?.checked_mul(bytes)
        };
        let fault = || format!("`{text}` is no size: write 64KiB, 1MiB or a number of bytes");
        units.into_iter().find_map(in_unit).map(Self).ok_or_else(fault)
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
