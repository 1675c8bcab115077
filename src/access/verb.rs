//! Verbs: what a rule can allow.

use std::fmt;

/// What a caller does.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Verb {
    /// Run countdowns of its own, and watch shared ones.
    Count,
    /// Create, change and delete shared countdowns.
    Manage,
    /// Read lines.
    Read,
    /// Get in lists.
    List,
    /// Read messages.
    Subscribe,
    /// Publish messages.
    Publish,
    /// Read as a consumer, and commit, set and delete its position.
    Commit,
    /// Remove messages for good.
    Purge,
    /// All of these, for everything.
    Administer,
}

impl Verb {
    /// All verbs.
    pub const ALL: [Self; 9] = [
        Self::Count,
        Self::Manage,
        Self::Read,
        Self::List,
        Self::Subscribe,
        Self::Publish,
        Self::Commit,
        Self::Purge,
        Self::Administer,
    ];

    /// As rules write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Manage => "manage",
            Self::Read => "read",
            Self::List => "list",
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Commit => "commit",
            Self::Purge => "purge",
            Self::Administer => "administer",
        }
    }

    /// The verb of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.name() == name)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of verbs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Verbs(u16);

impl Verbs {
    /// Whether it has a verb.
    pub fn has(self, verb: Verb) -> bool {
        self.0 & (1 << verb as u16) != 0
    }

    /// Adds a verb.
    pub fn add(&mut self, verb: Verb) {
        self.0 |= 1 << verb as u16;
    }

    /// The verbs in it.
    pub fn iter(self) -> impl Iterator<Item = Verb> {
        Verb::ALL.into_iter().filter(move |verb| self.has(*verb))
    }
}

impl FromIterator<Verb> for Verbs {
    fn from_iter<I: IntoIterator<Item = Verb>>(verbs: I) -> Self {
        verbs.into_iter().fold(Self::default(), |mut set, verb| {
            set.add(verb);
            set
        })
    }
}
