//! The audit log: who was allowed and who was refused what. Its lines have the target `audit`.
//!
//! Refusals are logged at the level `info`, up to a limit for each connection and for the server, and those left out are
//! counted. Calls that are allowed are logged at `debug` (`--log info,audit=debug`), and none is left out. No line has a
//! token or a payload.

use super::Connection;
use crate::{
    access::{Caller, Need, Target},
    grpc::status::Failure,
    reason::code_name,
};

/// Up to this many needs of a call are logged.
const MAX_NEEDS: usize = 5;

/// Up to this many characters of a name are logged.
const MAX_NAME: usize = 200;

/// A call was allowed, or denied with this failure.
pub fn decided(
    caller: &Caller,
    connection: Option<&Connection>,
    method: &'static str,
    needs: &[Need<'_>],
    denied: Option<&Failure>,
) {
    let peer = || connection.map(|connection| connection.peer.to_string()).unwrap_or_default();
    match denied {
        None if tracing::enabled!(target: "audit", tracing::Level::DEBUG) => {
            tracing::debug!(target: "audit", %caller, peer = peer(), method, needs = ?texts(needs), "allowed");
        }
        None => {}
        Some(failure) => refused(caller, connection, method, needs, failure),
    }
}

/// A call was denied.
fn refused(
    caller: &Caller,
    connection: Option<&Connection>,
    method: &str,
    needs: &[Need<'_>],
    failure: &Failure,
) {
    let Some(left_out) = connection.map_or(Some(0), |connection| connection.audit.admit()) else { return };
    let left_out = (left_out > 0).then_some(left_out);
    let peer = connection.map(|connection| connection.peer.to_string()).unwrap_or_default();
    let (reason, needs) = (failure.reason().as_str_name(), texts(needs));
    tracing::info!(target: "audit", %caller, peer, method, ?needs, reason, left_out, "denied");
}

/// A call was refused before its request was read: its credentials are not accepted, or its caller is not known.
pub fn turned_away(connection: &Connection, path: &str, failure: &Failure) {
    let Some(left_out) = connection.audit.admit() else { return };
    let (left_out, peer) = ((left_out > 0).then_some(left_out), connection.peer);
    let (reason, code) = (failure.reason().as_str_name(), code_name(failure.reason().code()));
    let path = path.chars().take(MAX_NAME).collect::<String>();
    tracing::info!(target: "audit", %peer, ?path, reason, code, left_out, "refused");
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
