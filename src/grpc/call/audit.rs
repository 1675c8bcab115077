//! The audit log: a line for each decision about a caller, with the target `audit`.
//!
//! Refusals, and streams that end because a right has ended, are logged at the level `info`, up to a limit for each
//! connection and for the server, and those left out are counted. Calls that are allowed are logged at `debug`
//! (`--log info,audit=debug`), and no such line is left out. No line has a token or a payload.

use std::sync::Arc;

use super::{Connection, ConnectionLog, Peer};
use crate::{
    access::{Caller, Kind, Need, Target, Verb},
    grpc::status::{self, Failure},
    reason::code_name,
};

/// Up to this many needs of a call are logged.
const MAX_NEEDS: usize = 5;

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

    /// The call was allowed, or denied with this failure.
    pub fn decided(&self, caller: &Caller, needs: &[Need<'_>], denied: Option<&Failure>) {
        match denied {
            None if tracing::enabled!(target: "audit", tracing::Level::DEBUG) => {
                let (method, needs) = (self.method, texts(needs));
                tracing::debug!(target: "audit", %caller, peer = self.peer(), method, ?needs, "allowed");
            }
            None => {}
            Some(failure) => self.refused(caller, needs, failure),
        }
    }

    /// The call was refused.
    pub fn refused(&self, caller: &Caller, needs: &[Need<'_>], failure: &Failure) {
        self.denied(caller, needs, failure, None);
    }

    /// Messages of the call were refused.
    pub fn refused_messages(&self, caller: &Caller, refused: &RefusedMessages) {
        for (failure, need, count) in &refused.0 {
            self.denied(caller, std::slice::from_ref(need), failure, Some(*count).filter(|count| *count > 1));
        }
    }

    fn denied(&self, caller: &Caller, needs: &[Need<'_>], failure: &Failure, messages: Option<usize>) {
        let Some(left_out) = self.admit().map(known) else { return };
        let (method, needs, reason) = (self.method, texts(needs), failure.reason().as_str_name());
        tracing::info!(
            target: "audit", %caller, peer = self.peer(), method, ?needs, reason, messages, left_out, "denied"
        );
    }

    /// The stream ended, because its caller may no longer have it.
    pub fn ended(&self, caller: &Caller, needs: &[Need<'_>], failure: &Failure) {
        let Some(left_out) = self.admit().map(known) else { return };
        let (method, needs, reason) = (self.method, texts(needs), failure.reason().as_str_name());
        tracing::info!(target: "audit", %caller, peer = self.peer(), method, ?needs, reason, left_out, "ended");
    }
}

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

/// The lines that were left out, if there are some.
fn known(left_out: u64) -> Option<u64> {
    (left_out > 0).then_some(left_out)
}

/// What a call needs: the verb, and the name of its target.
fn texts(needs: &[Need<'_>]) -> Vec<String> {
    let text = |need: &Need<'_>| {
        let name = match &need.target {
            Target::Whole(kind, name) => format!("{} {name}", kind.noun()),
            Target::Part(pattern) => format!("topic {pattern}"),
            Target::Some(kind) => kind.key().to_owned(),
            Target::Own => "own".into(),
        };
        format!("{} {}", need.verb, name.chars().take(MAX_NAME).collect::<String>())
    };
    needs.iter().take(MAX_NEEDS).map(text).collect()
}
