//! Topics and patterns.
//!
//! A topic is tokens of `A-Z a-z 0-9 _ -` joined by dots, at most 255 bytes. In a pattern a token may be `*`, which
//! matches any one token, and the last may be `>`, which matches one token or more. A topic whose first token starts
//! with `$` is the server's own: users cannot publish there, and wildcards do not match it.

/// The longest topic or pattern, in bytes.
pub const MAX_BYTES: usize = 255;

/// Why a text is not a topic, or not a pattern.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// The text is empty.
    #[error("is empty: name a topic, as in `orders.eu.created`")]
    Empty,
    /// Longer than [`MAX_BYTES`].
    #[error("has {bytes} bytes: at most {MAX_BYTES} are allowed")]
    TooLong {
        /// The length of the text.
        bytes: usize,
    },
    /// Two dots in a row, or one at an end.
    #[error("has an empty token: put something before, between and after the dots")]
    EmptyToken,
    /// A character that is not allowed.
    #[error("contains {character:?}: tokens are of A-Z, a-z, 0-9, `_` and `-`, joined by dots")]
    Character {
        /// The first such character.
        character: char,
    },
    /// A pattern instead of a topic.
    #[error("contains the wildcard `{wildcard}`: a message has one topic, without `*` and `>`")]
    Wildcard {
        /// The first wildcard.
        wildcard: char,
    },
    /// A wildcard beside other characters.
    #[error("has `{wildcard}` within a token: a wildcard is a token of its own, as in `orders.*.created`")]
    PartOfToken {
        /// The wildcard.
        wildcard: char,
    },
    /// `>` before the end.
    #[error("has `>` before its end: only the last token may be `>`")]
    TailNotLast,
    /// A topic of the server's own.
    #[error("starts with `$`: these topics are the server's own")]
    Reserved,
}

/// Whether a topic is one of the server's own.
pub fn is_reserved(topic: &str) -> bool {
    topic.starts_with('$')
}

/// The prefix of the topics of consumers: the last message of `$consumer.NAME` is the commit of the consumer NAME.
pub const CONSUMER_PREFIX: &str = "$consumer.";

/// Whether a topic is that of a consumer.
pub fn is_of_consumer(topic: &str) -> bool {
    topic.starts_with(CONSUMER_PREFIX)
}

/// Checks the topic of a message of a user.
pub fn check(topic: &str) -> Result<(), Error> {
    if let Some(wildcard) = topic.chars().find(|c| ['*', '>'].contains(c)) {
        return Err(Error::Wildcard { wildcard });
    }
    if is_reserved(topic) {
        return Err(Error::Reserved);
    }
    Pattern::parse(topic).map(|_| ())
}

/// A pattern, which matches topics.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pattern {
    text: String,
    is_literal: bool,
}

impl Pattern {
    /// Parses a pattern.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::Empty);
        }
        if text.len() > MAX_BYTES {
            return Err(Error::TooLong { bytes: text.len() });
        }
        let mut tokens = text.strip_prefix('$').unwrap_or(text).split('.').peekable();
        while let Some(token) = tokens.next() {
            check_token(token)?;
            if token == ">" && tokens.peek().is_some() {
                return Err(Error::TailNotLast);
            }
        }
        Ok(Self { text: text.into(), is_literal: !text.contains(['*', '>']) })
    }

    /// The topic, if the pattern has no wildcard.
    pub fn literal(&self) -> Option<&str> {
        self.is_literal.then_some(self.text.as_str())
    }

    /// The text of the pattern.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Every topic that it matches begins with this: the pattern up to its first wildcard.
    pub fn prefix(&self) -> &str {
        self.text.split(['*', '>']).next().unwrap_or_default()
    }

    /// Whether it matches every topic of users.
    pub fn matches_all(&self) -> bool {
        self.text == ">"
    }

    /// Whether it matches a topic.
    pub fn matches(&self, topic: &str) -> bool {
        if self.is_literal {
            return self.text == topic;
        }
        if topic.starts_with('$') != self.text.starts_with('$') {
            return false;
        }
        // The usual patterns `>` and `a.b.>` need no comparison of tokens.
        if let Some(prefix) = self.text.strip_suffix('>').filter(|prefix| !prefix.contains('*')) {
            return topic.len() > prefix.len() && topic.starts_with(prefix);
        }
        let mut tokens = topic.split('.');
        for wanted in self.text.split('.') {
            match (wanted, tokens.next()) {
                (">", Some(_)) => return true,
                (_, None) => return false,
                (wanted, Some(token)) if wanted != "*" && wanted != token => return false,
                _ => {}
            }
        }
        tokens.next().is_none()
    }
}

fn check_token(token: &str) -> Result<(), Error> {
    if token.is_empty() {
        return Err(Error::EmptyToken);
    }
    if token == "*" || token == ">" {
        return Ok(());
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match token.chars().find(|c| !is_plain(*c)) {
        Some(wildcard @ ('*' | '>')) => Err(Error::PartOfToken { wildcard }),
        Some(character) => Err(Error::Character { character }),
        None => Ok(()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_token_by_token() {
        for (pattern, matched, other) in [
            ("a.b", &["a.b"][..], &["a", "a.b.c", "a.c"][..]),
            ("a.*.c", &["a.b.c"], &["a.c", "a.b.b.c", "b.b.c"]),
            ("a.>", &["a.b", "a.b.c"], &["a", "b.a", "ab.c"]),
            (">", &["a", "a.b"], &["$countdown.x"]),
            ("*", &["a"], &["a.b", "$x"]),
            ("*.*", &["a.b"], &["$countdown.x", "a"]),
            ("$countdown.>", &["$countdown.x"], &["countdown.x"]),
            ("$countdown.x", &["$countdown.x"], &["$countdown.y"]),
        ] {
            let pattern = Pattern::parse(pattern).unwrap();
            assert!(matched.iter().all(|topic| pattern.matches(topic)), "{pattern:?}");
            assert!(!other.iter().any(|topic| pattern.matches(topic)), "{pattern:?}");
        }
    }

    #[test]
    fn each_error_is_distinguished() {
        for (text, error) in [
            ("", Error::Empty),
            ("a..b", Error::EmptyToken),
            (".a", Error::EmptyToken),
            ("a.", Error::EmptyToken),
            ("a b", Error::Character { character: ' ' }),
            ("a.ü", Error::Character { character: 'ü' }),
            ("a*", Error::PartOfToken { wildcard: '*' }),
            ("a.>.b", Error::TailNotLast),
            ("a.$b", Error::Character { character: '$' }),
        ] {
            assert_eq!(Pattern::parse(text), Err(error), "{text:?}");
        }
        assert_eq!(check("a.*"), Err(Error::Wildcard { wildcard: '*' }));
        assert_eq!(check("$countdown.x"), Err(Error::Reserved));
        assert_eq!(check(&"a".repeat(256)), Err(Error::TooLong { bytes: 256 }));
        assert_eq!(check(&"a".repeat(255)), Ok(()));
    }
}
