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
    check_pattern(topic)
}

fn check_pattern(text: &str) -> Result<(), Error> {
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
    Ok(())
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
        check_pattern(text)?;
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

    /// The pattern that matches the topics that both match. `None` if there is no such topic.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let (own, ours) = tokens(&self.text);
        let (other_own, theirs) = tokens(&other.text);
        if own != other_own {
            return None;
        }
        let (mut ours, mut theirs) = (ours.split('.').peekable(), theirs.split('.').peekable());
        let mut tokens = Vec::new();
        loop {
            match (ours.peek().copied(), theirs.peek().copied()) {
                (None, None) => break,
                (None, _) | (_, None) => return None,
                (Some(">"), _) => {
                    tokens.extend(theirs);
                    break;
                }
                (_, Some(">")) => {
                    tokens.extend(ours);
                    break;
                }
                (Some(our), Some(their)) if our == their || their == "*" => tokens.push(our),
                (Some("*"), Some(their)) => tokens.push(their),
                _ => return None,
            }
            ours.next();
            theirs.next();
        }
        // A text that is longer than a topic matches none.
        Self::parse(&format!("{own}{}", tokens.join("."))).ok()
    }

    /// Whether it matches every topic that the other one matches.
    pub fn covers(&self, other: &Self) -> bool {
        self.intersection(other).as_ref() == Some(other)
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
        let mut tokens = self::tokens(topic).1.split('.');
        for wanted in self::tokens(&self.text).1.split('.') {
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

/// The mark of a topic of the server's own, if it is one, and the tokens after it.
fn tokens(text: &str) -> (&str, &str) {
    text.split_at(usize::from(is_reserved(text)))
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
    use proptest::prelude::*;

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
            ("$*", &["$x"], &["x", "$x.y"]),
            ("$>", &["$x", "$x.y"], &["x"]),
        ] {
            let pattern = Pattern::parse(pattern).unwrap();
            assert!(matched.iter().all(|topic| pattern.matches(topic)), "{pattern:?}");
            assert!(!other.iter().any(|topic| pattern.matches(topic)), "{pattern:?}");
        }
    }

    fn pattern_text() -> impl Strategy<Value = String> {
        let token = proptest::sample::select(vec!["a", "b", "*"]);
        let tokens = proptest::collection::vec(token, 0..4);
        (tokens, any::<bool>(), any::<bool>()).prop_map(|(mut tokens, has_tail, is_own)| {
            if has_tail || tokens.is_empty() {
                tokens.push(">");
            }
            format!("{}{}", if is_own { "$" } else { "" }, tokens.join("."))
        })
    }

    proptest! {
        #[test]
        fn an_intersection_matches_what_both_match_and_a_pattern_covers_what_it_contains(
            first in pattern_text(), second in pattern_text(),
        ) {
            let patterns = [first, second].map(|text| Pattern::parse(&text));
            let [Ok(first), Ok(second)] = patterns else { panic!("{patterns:?}") };
            let both = first.intersection(&second);
            prop_assert_eq!(&both, &second.intersection(&first));
            let mut is_covered = true;
            let mut topics = vec![String::new()];
            for _ in 0..5 {
                topics = topics.iter().flat_map(|topic| {
                    ["a", "b", "c"].map(|token| if topic.is_empty() { token.into() } else { format!("{topic}.{token}") })
                }).collect();
                for topic in topics.iter().flat_map(|topic| [topic.clone(), format!("${topic}")]) {
                    let matched = both.as_ref().is_some_and(|both| both.matches(&topic));
                    prop_assert_eq!(matched, first.matches(&topic) && second.matches(&topic), "{}", topic);
                    is_covered &= !second.matches(&topic) || first.matches(&topic);
                }
            }
            prop_assert_eq!(first.covers(&second), is_covered);
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
