//! The values of settings, read from the command line, the environment and the file by one grammar.

use std::{fmt, num::ParseIntError, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de};

use super::roots::{Root, Rule};
use crate::{
    countdown::Rates,
    messages::retention,
    server::{listen::Listen, tls},
    units,
    web::origin::{Host, Origin},
};

/// Reads true or false; environment variables also use 1 and 0.
pub fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

/// A duration, in the grammar of [`units`].
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
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

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&units::duration_text(self.0))
    }
}

/// A number of bytes that fits in memory, in the grammar of [`units`].
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
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

impl From<usize> for Size {
    fn from(bytes: usize) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&units::size_text(self.0 as u64))
    }
}

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug)]
pub struct ClientAuth(pub tls::ClientAuth);

impl FromStr for ClientAuth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "required" => Ok(Self(tls::ClientAuth::Required)),
            "optional" => Ok(Self(tls::ClientAuth::Optional)),
            _ => Err(format!("`{text}` is neither required nor optional")),
        }
    }
}

/// The form of the log on stderr.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
    /// Text on a terminal, or else JSON.
    #[default]
    Auto,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "auto" => Ok(Self::Auto),
            _ => Err(format!("`{text}` is neither text, json nor auto")),
        }
    }
}

/// The permissions of a file, in octal digits.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Mode(u32);

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_octal = text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() <= 4;
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777 && is_octal);
        mode.map(Self).ok_or_else(|| format!("`{text}` is not a mode: write 600, 660 or 666"))
    }
}

impl From<Mode> for u32 {
    fn from(mode: Mode) -> Self {
        mode.0
    }
}

impl From<u32> for Mode {
    fn from(mode: u32) -> Self {
        Self(mode)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03o}", self.0)
    }
}

/// The most ticks a second of all countdowns.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(transparent)]
pub struct TickRate(u64);

impl FromStr for TickRate {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        text.parse().map(Self)
    }
}

impl From<TickRate> for Rates {
    fn from(rate: TickRate) -> Self {
        rate.0.into()
    }
}

impl From<Rates> for TickRate {
    fn from(rates: Rates) -> Self {
        Self(rates.limit())
    }
}

impl fmt::Display for TickRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The file has the texts of the command line, or a plain number.
macro_rules! deserialize_from_text {
    ($($name:ty),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = match toml::Value::deserialize(deserializer)? {
                    toml::Value::String(text) => text,
                    toml::Value::Integer(number) => number.to_string(),
                    _ => return Err(de::Error::custom("write a text in quotes")),
                };
                text.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

deserialize_from_text!(Root, Rule, retention::Rule, ClientAuth, Host, Listen, LogFormat, Origin, Span, Size);

/// Only a text: of the number 0o660 the digits 432 would be read, which are another mode.
impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => text.parse().map_err(de::Error::custom),
            _ => Err(de::Error::custom("write a mode in quotes, as \"660\"")),
        }
    }
}
