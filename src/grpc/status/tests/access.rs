//! The refusals of callers.

use super::*;
use crate::access::{Kind, Need, Refused as R, Verb};

#[test]
fn each_refusal_of_a_caller_has_its_status() {
    let samples = vec![R::Malformed, R::Unknown, R::Expired, R::Revoked, R::PlainText];
    walk(samples, 5, |refused| {
        let reason = match refused {
            R::Malformed | R::Unknown | R::PlainText => ErrorReason::CredentialsInvalid,
            R::Expired => ErrorReason::CredentialsExpired,
            R::Revoked => ErrorReason::CredentialsRevoked,
        };
        (reason, None)
    });
    let one = Need::one(Verb::Publish, Kind::Topic, "a", "messages[1].topic");
    for (need, field) in [(one, Some("messages[1].topic")), (Need::list(Kind::File), None)] {
        for (is_known, reason) in
            [(true, ErrorReason::AccessDenied), (false, ErrorReason::CredentialsMissing)]
        {
            let reported = Reported::of(denied("token:a", is_known, &need, field.map(|_| "a")));
            reported.check();
            assert_eq!((reported.reason(), reported.field()), (reason.as_str_name(), field));
            assert_eq!(reported.metadata("verb"), Some(need.verb.name()));
            Reported::of(stranger("token:a", is_known)).check();
        }
    }
}
