//! What is not as in the embedded log: each is weaker in a way that is named, or refused. Everything else is the same.

use std::fmt;

/// A difference from the embedded log.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    /// What differs.
    pub what: &'static str,
    /// Whether it is refused.
    pub verdict: Verdict,
    /// How it differs, or what to do instead.
    pub how: &'static str,
}

/// Whether a difference is a weaker promise or a refusal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It works, with a weaker promise.
    Weaker,
    /// It fails with UNIMPLEMENTED.
    Refused,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Weaker => "weaker",
            Self::Refused => "refused",
        })
    }
}

const fn weaker(what: &'static str, how: &'static str) -> Difference {
    Difference { what, verdict: Verdict::Weaker, how }
}

const fn refused(what: &'static str, how: &'static str) -> Difference {
    Difference { what, verdict: Verdict::Refused, how }
}

/// The differences, in the order of `docs/cluster.md`.
pub const DIFFERENCES: &[Difference] = &[
    refused(
        "`PurgeTopic`",
        "publish with a `ttl`, or purge the subject with NATS's tools, which no reader sees as a gap",
    ),
    refused(
        "Retention and quotas of topics",
        "`--retain` and such quotas are refused at the start; `ttl` works",
    ),
    refused("A `PublishBatch` of more than 1,000 messages", "publish several batches"),
    refused(
        "`expected_sequence` on a message of a batch after another one of its topic",
        "set it on the first one",
    ),
    refused("Two messages with one `message_id` in a batch", "send one of them"),
    refused("Headers of more than 64,000 bytes", "put them into the content"),
    weaker("Durability", "REPLICATED, or BUFFERED in a stream of one replica; never FSYNCED"),
    weaker(
        "Order of one publisher",
        "messages that are in flight while another leader is chosen may change places",
    ),
    weaker("Sequences", "have more gaps: the log's own marks have some"),
    weaker(
        "A restored stream",
        "a cursor ahead of it is LOG_DIVERGED; one that it has since passed is not noticed",
    ),
    weaker(
        "Shared countdowns",
        "a list at one server shows a change of another one a moment later; a countdown with its `on_end` has at most `max_payload` less 64 KiB",
    ),
    weaker(
        "Limits of consumers and countdowns",
        "`--max-consumers` and `--max-countdowns` are checked by each server: several at once may exceed them by a few",
    ),
    weaker(
        "The reader of a consumer",
        "shows as connected for up to 60 s after its server was killed; another reader takes the consumer over at once",
    ),
    weaker(
        "`last_per_topic` that is resumed",
        "is taken again while its first messages are not all delivered: a message that its topic has replaced meanwhile is left out",
    ),
    weaker(
        "Times",
        "of the leader; a start or an end at a time allows for clocks that differ by up to 60 s and 1 s",
    ),
    weaker("`last` of a rare topic", "the history is read backwards until enough messages are found"),
    weaker("One topic of many", "all topics are read from the stream, and selected by the server"),
    weaker(
        "Expired messages",
        "count for up to 3 s: in `expected_sequence`, and in `last_per_topic` as the last one of their topic",
    ),
    weaker(
        "Limits of topics and of ids",
        "`--max-topics`, `--dedupe-window` and `--max-dedupe-ids` have no effect: the stream's `duplicate_window` is the window",
    ),
    weaker("`ListTopics`", "as the leader knows the stream; without `byte_count`"),
    weaker(
        "The size of a message",
        "at most the `max_payload` of nats-server less 64 KiB, if `--max-message` is larger",
    ),
    weaker("Metrics of the log", "the sizes and times of a local disk are 0"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_each_difference() {
        let documentation = include_str!("../../../docs/cluster.md");
        for Difference { what, verdict, how } in DIFFERENCES {
            let row = format!("| {what} | {verdict} | {how} |");
            assert!(documentation.contains(&row), "docs/cluster.md has no row {row}");
        }
        let rows =
            documentation.lines().filter(|line| line.contains("| refused |") || line.contains("| weaker |"));
        assert_eq!(rows.count(), DIFFERENCES.len());
    }
}
