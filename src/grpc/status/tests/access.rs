//! The refusals of callers.

use super::*;
use crate::access::{Kind, Need, Refused as R, Verb};

#[test]
fn a_quota_that_is_used_up_says_whose_and_when_to_try_again() {
    use crate::access::quota::{Exceeded, Quota};
    for quota in Quota::ALL {
        let exceeded = Exceeded { quota, limit: 7, wait: Some(Duration::from_secs(3)) };
        let failure = quota_exceeded("token:a", exceeded);
        let reported = Reported::of(failure.clone());
        reported.check();
        assert_eq!(reported.metadata("quota"), Some(quota.key()));
        let violation = &reported.details.quota_failure().unwrap().violations[0];
        assert_eq!(
            (violation.subject.as_str(), violation.description.as_str()),
            ("token:a", reported.status.message())
        );
        let delay = reported.details.retry_info().unwrap().retry_delay;
        assert_eq!(delay, Some(Duration::from_secs(3)));
        assert_eq!(failure.into_publish_error().retry_delay.unwrap().seconds, 3);
    }
}

#[test]
fn each_refusal_of_a_caller_has_its_status() {
    let samples =
        vec![R::Malformed, R::Unknown, R::Expired, R::Revoked, R::PlainText, R::Jwt("has a wrong signature")];
    walk(samples, 6, |refused| {
        let reason = match refused {
            R::Malformed | R::Unknown | R::PlainText | R::Jwt(_) => ErrorReason::CredentialsInvalid,
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
            Reported::of(access_changed()).check();
        }
    }
}
