//! What is kept for how long: rules by topic pattern.
//!
//! A rule is written `PATTERN=LIMIT …`: `orders.>=age:7d bytes:1GiB count:1000 total:20GiB` or `state.>=last`. Every
//! limit holds for each topic by itself, but `total`, which all topics of the rule share.

use std::time::Duration;

use super::topic::{self, Pattern};

/// How much of the topics that a pattern matches is kept. A message is removed as soon as any limit says so.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// The topics it is for.
    pub pattern: Pattern,
    /// Messages that are older are removed.
    pub age: Option<Duration>,
    /// The most bytes a topic.
    pub bytes: Option<u64>,
    /// The most messages a topic.
    pub count: Option<u64>,
    /// The most bytes of all topics of the rule together.
    pub total: Option<u64>,
    /// Only the last message of a topic is kept; what it supersedes is no gap.
    pub is_last_only: bool,
}

/// Why a text is no rule.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// The pattern.
    #[error("the pattern {0}")]
    Pattern(#[from] topic::Error),
    /// Something else.
    #[error("{0}")]
    Syntax(String),
}

impl std::str::FromStr for Rule {
    type Err = Error;

    fn from_str(_text: &str) -> Result<Self, Error> {
        Err(Error::Syntax(String::new()))
    }
}
