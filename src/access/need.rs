//! Needs: what a call asks for, before it is known whether that exists.

use std::{borrow::Cow, fmt};

use super::Verb;

/// What kind of thing a right is about.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// Topics.
    Topic,
    /// Files below roots.
    File,
    /// Shared countdowns.
    Countdown,
    /// Consumers.
    Consumer,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Topic, Self::File, Self::Countdown, Self::Consumer];

    /// The key of a rule that lists them.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Topic => "topics",
            Self::File => "files",
            Self::Countdown => "countdowns",
            Self::Consumer => "consumers",
        }
    }

    /// Their name in texts.
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::File => "file",
            Self::Countdown => "shared countdown",
            Self::Consumer => "consumer",
        }
    }

    /// The verbs that need a target of this kind.
    pub const fn verbs(self) -> &'static [Verb] {
        match self {
            Self::Topic => &[Verb::List, Verb::Subscribe, Verb::Publish, Verb::Purge],
            Self::File => &[Verb::List, Verb::Read],
            Self::Countdown => &[Verb::List, Verb::Count, Verb::Manage],
            Self::Consumer => &[Verb::List, Verb::Commit],
        }
    }
}

/// What a call acts on.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Target<'a> {
    /// A countdown that belongs to the call.
    Own,
    /// One thing, or for a pattern of topics everything that it matches.
    Whole(Kind, Cow<'a, str>),
    /// A pattern of topics, of which the call gets what the caller may have: at least one topic can match.
    Part(Cow<'a, str>),
    /// A list, which shows what the caller may see: at least one thing of this kind can be in it.
    Some(Kind),
}

/// The right that a call needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Need<'a> {
    /// What the call does.
    pub verb: Verb,
    /// What it acts on.
    pub target: Target<'a>,
    /// The field of the request that names the target; empty if no field does.
    pub field: Cow<'static, str>,
}

impl<'a> Need<'a> {
    /// To do something with one thing, which this field of the request names.
    pub fn one(
        verb: Verb,
        kind: Kind,
        name: impl Into<Cow<'a, str>>,
        field: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { verb, target: Target::Whole(kind, name.into()), field: field.into() }
    }

    /// To read what the caller may read of a pattern.
    pub fn part(pattern: impl Into<Cow<'a, str>>, field: impl Into<Cow<'static, str>>) -> Self {
        Self { verb: Verb::Subscribe, target: Target::Part(pattern.into()), field: field.into() }
    }

    /// To get a list of a kind of things.
    pub fn list(kind: Kind) -> Self {
        Self::some(Verb::List, kind)
    }

    /// To do something with at least one thing of a kind.
    pub fn some(verb: Verb, kind: Kind) -> Self {
        Self { verb, target: Target::Some(kind), field: "".into() }
    }

    /// To run a countdown of the call's own.
    pub fn own_countdown() -> Self {
        Self { verb: Verb::Count, target: Target::Own, field: "".into() }
    }

    /// The same, without the request.
    pub fn into_owned(self) -> Need<'static> {
        let target = match self.target {
            Target::Own => Target::Own,
            Target::Whole(kind, name) => Target::Whole(kind, name.into_owned().into()),
            Target::Part(pattern) => Target::Part(pattern.into_owned().into()),
            Target::Some(kind) => Target::Some(kind),
        };
        Need { verb: self.verb, target, field: self.field }
    }
}

/// What the caller must have a right to do, without the names of things.
impl fmt::Display for Need<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Own => f.write_str("count"),
            Target::Whole(kind, _) => write!(f, "{} this {}", self.verb, kind.noun()),
            Target::Part(_) => write!(f, "{} any topic that this matches", self.verb),
            Target::Some(kind) => write!(f, "{} any {}", self.verb, kind.noun()),
        }
    }
}
