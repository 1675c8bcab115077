//! The audit log: a line for each decision about a caller, with the target `audit`.
//!
//! Refusals, and streams that end because a right has ended, are logged at the level `info`, up to a limit for each
//! connection and for the server, and those left out are counted. Calls that are allowed are logged at `debug`
//! (`--log info,audit=debug`), and so are the topics to which a stream publishes, once each. No such line is left out, but
//! those about the topics of a stream above a number of them. No line has a token or a payload.

use std::{collections::HashSet, sync::Arc};

use tracing::Level;

use super::{Connection, ConnectionLog, Peer};
use crate::{
    access::{Caller, Kind, Need, Target, Verb},
    grpc::{
        access::Denied,
        status::{self, Failure},
    },
    reason::code_name,
};

/// Up to this many different needs of a call are logged.
const MAX_NEEDS: usize = 20;

/// Up to this many topics to which a stream publishes are logged.
const MAX_TOPICS: usize = 1_000;

/// Up to this many characters of a name are logged.
const MAX_NAME: usize = 200;

/// The call that lines are about.
#[derive(Clone, Debug)]
pub struct About {
    method: &'static str,
    peer: Option<Peer>,
    /// The limit on the lines of its connection.
    limit: Option<Arc<ConnectionLog>>,
}

impl About {
    /// A call of a method by this connection.
    pub fn new(method: &'static str, connection: Option<&Connection>) -> Self {
        let peer = connection.map(|connection| connection.peer);
        Self { method, peer, limit: connection.map(|connection| connection.audit.clone()) }
    }

    fn peer(&self) -> String {
        self.peer.map(|peer| peer.to_string()).unwrap_or_default()
    }

    /// Counts a line. If it may be logged, returns how many were left out before it.
    fn admit(&self) -> Option<u64> {
        self.limit.as_ref().map_or(Some(0), |limit| limit.admit())
    }

    /// The call was allowed.
    pub fn allowed(&self, caller: &Caller, needs: &[Need<'_>]) {
        if !tracing::enabled!(target: "audit", Level::DEBUG) {
            return;
        }
        let (method, (needs, more)) = (self.method, texts(needs));
        let more_needs = known(more as u64);
        tracing::debug!(target: "audit", %caller, peer = self.peer(), method, ?needs, more_needs, "allowed");
    }

    /// The stream publishes to this topic.
    pub fn allowed_topic(&self, caller: &Caller, known: &mut AllowedTopics, topic: &str) {
        let is_full = known.0.len() > MAX_TOPICS;
        if is_full
            || !tracing::enabled!(target: "audit", Level::DEBUG)
            || !known.0.insert(blake3::hash(topic.as_bytes()))
        {
            return;
        }
        if known.0.len() <= MAX_TOPICS {
            return self.allowed(caller, &[Need::one(Verb::Publish, Kind::Topic, topic, "topic")]);
        }
        // Once: with it, the set is full.
        let (method, peer) = (self.method, self.peer());
        let fault = "the stream publishes to more topics, which are not logged";
        tracing::debug!(target: "audit", %caller, peer, method, topics = MAX_TOPICS, fault, "allowed");
    }

    /// The caller has no right to a part of what it asked for: the line names the first need that no rule allows, and how
    /// many of this verb there are.
    pub fn denied(&self, caller: &Caller, denied: &Denied<'_>) -> Failure {
        let failure = denied.failure(caller);
        let Denied { need, count } = *denied;
        let count = (count > 1).then_some(count);
        let (messages, patterns) = match need.verb {
            Verb::Publish => (count, None),
            _ => (None, count),
        };
        self.refusal(caller, std::slice::from_ref(need), &failure, messages, patterns);
        failure
    }

    /// The call was refused.
    pub fn refused(&self, caller: &Caller, needs: &[Need<'_>], failure: &Failure) {
        self.refusal(caller, needs, failure, None, None);
    }

    /// Messages of the call were refused.
    pub fn refused_messages(&self, caller: &Caller, refused: &RefusedMessages) {
        for (failure, need, count) in &refused.0 {
            let count = Some(*count).filter(|count| *count > 1);
            self.refusal(caller, std::slice::from_ref(need), failure, count, None);
        }
    }

    fn refusal(
        &self,
        caller: &Caller,
        needs: &[Need<'_>],
        failure: &Failure,
        messages: Option<usize>,
        patterns: Option<usize>,
    ) {
        let Some(left_out) = self.admit().map(known) else { return };
        let (method, (needs, more), reason) = (self.method, texts(needs), failure.reason().as_str_name());
        let (peer, more_needs) = (self.peer(), known(more as u64));
        tracing::info!(
            target: "audit",
            %caller, peer, method, ?needs, more_needs, reason, messages, patterns, left_out, "denied"
        );
    }

    /// The stream ended, because its caller may no longer have it.
    pub fn ended(&self, caller: &Caller, needs: &[Need<'_>], failure: &Failure) {
        let Some(left_out) = self.admit().map(known) else { return };
        let (method, (needs, more), reason) = (self.method, texts(needs), failure.reason().as_str_name());
        let (peer, more_needs) = (self.peer(), known(more as u64));
        tracing::info!(
            target: "audit",
            %caller, peer, method, ?needs, more_needs, reason, left_out, "ended"
        );
    }
}

/// The topics to which a stream has published: hashes, up to one more than are logged.
#[derive(Debug, Default)]
pub struct AllowedTopics(HashSet<blake3::Hash>);

/// Messages of one request that were refused: the first one of each reason, and how many there are.
#[derive(Debug, Default)]
pub struct RefusedMessages(Vec<(Failure, Need<'static>, usize)>);

impl RefusedMessages {
    /// A message whose caller has no right to publish it, or a quota of its own that is used up.
    pub fn add(&mut self, failure: &Failure, topic: String) {
        self.count(failure, || Need::one(Verb::Publish, Kind::Topic, topic, "topic"));
    }

    /// A message that was not published, which counts if a quota of topics refused it.
    pub fn add_if_quota(&mut self, failure: &Failure) {
        if let Some(topics) = status::topics_of_quota(failure) {
            let need = || Need { verb: Verb::Publish, ..Need::part(topics.to_owned(), "topic") };
            self.count(failure, need);
        }
    }

    fn count(&mut self, failure: &Failure, need: impl FnOnce() -> Need<'static>) {
        match self.0.iter_mut().find(|(known, ..)| known.reason() == failure.reason()) {
            Some((.., count)) => *count += 1,
            None => self.0.push((failure.clone(), need(), 1)),
        }
    }
}

/// A call was refused before its request was read: its credentials are not accepted, no rule allows its caller anything,
/// or its caller makes too many calls.
pub fn turned_away(connection: &Connection, caller: Option<&Caller>, path: &str, failure: &Failure) {
    let Some(left_out) = connection.audit.admit().map(known) else { return };
    let (caller, peer) = (caller.map(tracing::field::display), connection.peer);
    let (reason, code) = (failure.reason().as_str_name(), code_name(failure.reason().code()));
    let path = path.chars().take(MAX_NAME).collect::<String>();
    tracing::info!(target: "audit", %peer, caller, ?path, reason, code, left_out, "refused");
}

/// A call of a service of another crate was allowed.
pub fn let_in(connection: &Connection, caller: &Caller, path: &str) {
    if tracing::enabled!(target: "audit", Level::DEBUG) {
        let (peer, path) = (connection.peer, path.chars().take(MAX_NAME).collect::<String>());
        tracing::debug!(target: "audit", %caller, %peer, ?path, "allowed");
    }
}

/// The number of what was left out, if there is some.
fn known(left_out: u64) -> Option<u64> {
    (left_out > 0).then_some(left_out)
}

/// What a call needs: the verb, and the name of its target; each once. And how many of them there are beside these.
fn texts(needs: &[Need<'_>]) -> (Vec<String>, usize) {
    let text = |need: &Need<'_>| {
        let name = match &need.target {
            Target::Whole(kind, name) => format!("{} {name}", kind.noun()),
            Target::Part(pattern) => format!("topic {pattern}"),
            Target::Some(kind) => kind.key().to_owned(),
            Target::Own => "own".into(),
        };
        format!("{} {}", need.verb, name.chars().take(MAX_NAME).collect::<String>())
    };
    let mut seen = HashSet::new();
    let mut different = needs.iter().filter(|need| seen.insert((need.verb, &need.target)));
    let texts = different.by_ref().take(MAX_NEEDS).map(text).collect();
    (texts, different.count())
}
