//! Refusals of callers: they have no right, or their credentials are not accepted.

use std::{fmt::Display, time::Duration};

use super::{ErrorReason, Failure, RETRY_DELAY, quoted};
use crate::access::{Need, Refused, quota};

/// The delay in RetryInfo if stored messages must be removed first: retention runs more rarely than that.
const STORAGE_WAIT: Duration = Duration::from_secs(5);

/// The quota of a failure, for its details.
#[derive(Clone, Debug)]
pub struct Quota {
    /// Whose.
    pub subject: String,
    /// When it allows more.
    pub wait: Duration,
}

/// A quota of the caller is used up.
pub fn quota_exceeded(caller: impl Display, exceeded: quota::Exceeded) -> Failure {
    let quota::Exceeded { quota, limit, wait } = exceeded;
    let what = match quota {
        quota::Quota::Streams => "open streams",
        quota::Quota::Calls => "calls a second",
        quota::Quota::Publishes => "published messages a second",
        quota::Quota::Bytes => "published bytes a second",
    };
    let text = format!("{caller} may have {limit} {what}: try again later");
    let wait = wait.unwrap_or_default().max(RETRY_DELAY);
    let failure =
        Failure::new(ErrorReason::QuotaExceeded, text).with("limit", limit).with("quota", quota.key());
    Failure { quota: Some(Box::new(Quota { subject: caller.to_string(), wait })), ..failure }
}

/// A quota of topics has no room for a message. Subjects of details name the quota by its patterns.
pub fn no_topic_left(quota: &str, limit: u64) -> Failure {
    // A quota may be lower than what the log already has.
    let text = format!(
        "the operator's limit of {limit} for the number of topics that match {quota} is reached: use an existing topic"
    );
    let failure = Failure::new(ErrorReason::TooManyTopics, text).with("limit", limit);
    of_topics(failure, quota, "topic_count")
}

/// The same of its bytes.
pub fn no_storage_left(quota: &str, limit: u64, used: u64) -> Failure {
    let text = format!(
        "the messages of the topics that match {quota} take {used} of {limit} bytes, and there is no room for this one: \
         try again when retention or a purge has removed some"
    );
    let failure = Failure::new(ErrorReason::QuotaExceeded, text).with("limit", limit).with("used", used);
    of_topics(failure, quota, "stored_bytes")
}

/// The patterns of the topics whose quota refused a message, if it was one.
pub fn topics_of_quota(failure: &Failure) -> Option<&str> {
    failure.quota.as_ref().and_then(|_| failure.metadata.get("topics")).map(String::as_str)
}

fn of_topics(failure: Failure, quota: &str, key: &str) -> Failure {
    let subject = format!("topics {quota}");
    let failure = failure.with("quota", key).with("topics", quota);
    Failure { quota: Some(Box::new(Quota { subject, wait: STORAGE_WAIT })), ..failure }
}

/// The caller has no right to do this. `name` is what the request asked for.
pub fn denied(caller: impl Display, is_known: bool, need: &Need<'_>, name: Option<&str>) -> Failure {
    let (reason, remedy) = if is_known {
        (ErrorReason::AccessDenied, "ask the operator of the server for a rule that allows it")
    } else {
        (ErrorReason::CredentialsMissing, "show a token, as `authorization: Bearer …`, or a certificate")
    };
    let failure = match name.filter(|_| !need.field.is_empty()) {
        Some(name) => {
            let text = format!("is {}: {caller} has no right to {need}: {remedy}", quoted(name));
            Failure::field(&need.field, text).with_reason(reason)
        }
        None => Failure::new(reason, format!("{caller} has no right to {need}: {remedy}")),
    };
    failure.with("verb", need.verb)
}

/// The caller has no right to use a service of another crate.
pub fn stranger(caller: impl Display, is_known: bool) -> Failure {
    if is_known {
        let text =
            format!("{caller} has no right to anything here: ask the operator of the server for a rule");
        return Failure::new(ErrorReason::AccessDenied, text);
    }
    let text = "the server answers only callers that it knows: show a token, as `authorization: Bearer …`, or a \
                certificate";
    Failure::new(ErrorReason::CredentialsMissing, text)
}

/// The caller of a subscription may read another part of it than before.
pub fn access_changed() -> Failure {
    Failure::new(
        ErrorReason::AccessChanged,
        "the rules of the server were changed, and you may read other topics or files than before: resume with the last \
         cursor",
    )
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Malformed => Self::new(
                ErrorReason::CredentialsInvalid,
                "the header `authorization` is malformed: send it once, as `authorization: Bearer TOKEN`",
            ),
            Refused::Unknown => Self::new(
                ErrorReason::CredentialsInvalid,
                "the server does not know the token: use one that `perenniald token new` has made for this server",
            ),
            Refused::Expired => Self::new(
                ErrorReason::CredentialsExpired,
                "the token has expired: get a new one, and resume with the last cursor",
            ),
            Refused::Revoked => Self::new(
                ErrorReason::CredentialsRevoked,
                "the token was revoked: ask the operator of the server for a new one",
            ),
            Refused::Jwt(fault) => {
                let text = format!("the token {fault}: get another one from its issuer, for this server");
                Self::new(ErrorReason::CredentialsInvalid, text)
            }
            Refused::PlainText => Self::new(
                ErrorReason::CredentialsInvalid,
                "the token came in plain text, where others could read it: connect by TLS, and replace the token",
            ),
        }
    }
}
