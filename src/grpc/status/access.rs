//! Refusals of callers: they have no right, or their credentials are not accepted.

use std::fmt::Display;

use super::{ErrorReason, Failure, quoted};
use crate::access::{Need, Refused};

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
            Refused::PlainText => Self::new(
                ErrorReason::CredentialsInvalid,
                "the token came in plain text, where others could read it: connect by TLS, and replace the token",
            ),
        }
    }
}
