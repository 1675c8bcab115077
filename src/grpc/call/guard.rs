//! The rules of access for a call: it is checked when it begins, and a stream while it is open.
//!
//! A call that did not pass the gate has no caller, and may do nothing where there are rules.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::Request;

use super::{
    Calls, Connection, Ends, Permit,
    audit::{About, RefusedMessages},
    permit::Permitted,
};
use crate::{
    access::{Access, Caller, Kind, Need, Rights, Verb},
    grpc::{
        access::{self, Asks},
        status::{self, Failure},
    },
};

/// A call whose caller may have what its request asks for.
#[derive(Debug)]
pub(super) struct Allowed<'a> {
    /// With the rights by which it was decided.
    pub caller: Caller,
    pub needs: Vec<Need<'a>>,
    pub about: About,
}

/// The caller of a method that publishes, whose messages are counted when the call has begun.
#[derive(Debug)]
pub struct Publisher {
    caller: Caller,
    about: About,
}

impl Calls {
    /// What the caller of a request may do.
    pub fn rights<T>(&self, request: &Request<T>) -> Arc<Rights> {
        match (&self.0.access, request.extensions().get::<Caller>()) {
            (None, _) => Rights::all().into(),
            // The rules may have changed since its headers came: its request may take long to arrive.
            (Some(access), Some(caller)) => {
                access.again(caller).map(|caller| caller.rights().clone()).unwrap_or_default()
            }
            // It did not pass the gate.
            (Some(_), None) => Rights::default().into(),
        }
    }

    /// Decides whether the caller of a request may do what it asks for. `None` without rules.
    pub(super) fn decide<'a, T: Asks>(
        &self,
        method: &'static str,
        request: &'a Request<T>,
    ) -> Result<Option<Allowed<'a>>, Failure> {
        let Some(access) = &self.0.access else { return Ok(None) };
        let caller = request.extensions().get::<Caller>();
        let caller = caller.ok_or_else(|| status::stranger("this caller", false))?;
        let needs = request.get_ref().needs();
        let about = About::new(method, request.extensions().get());
        // Its token may have been revoked, or have expired, since its headers came.
        let caller = access
            .again(caller)
            .map_err(|refused| Failure::from(access.refuse(refused)))
            .inspect_err(|failure| about.refused(caller, &needs, failure))?;
        access::check(access, &caller, &needs).map_err(|denied| about.denied(&caller, &denied))?;
        about.allowed(&caller, &needs);
        Ok(Some(Allowed { caller, needs, about }))
    }

    /// When a stream must end: with its connection, and when its caller may no longer have it.
    pub(super) fn permit(
        &self,
        allowed: Option<Allowed<'_>>,
        connection: &CancellationToken,
    ) -> Result<Option<(Permitted, Ends)>, Failure> {
        let (Some(access), Some(allowed)) = (&self.0.access, allowed) else { return Ok(None) };
        Permitted::new(&self.0, access, allowed, connection).map(Some)
    }

    /// The caller of a method that publishes, if there are rules and the call has passed the gate.
    pub fn publisher<T>(&self, method: &'static str, request: &Request<T>) -> Option<Publisher> {
        // A caller whose credential is no longer accepted is refused before anything is counted.
        let caller = self.access()?.again(request.extensions().get::<Caller>()?).ok()?;
        Some(Publisher { caller, about: About::new(method, request.extensions().get::<Connection>()) })
    }

    /// Counts messages that a caller publishes, and their bytes, among its quotas.
    pub fn count_publish(
        &self,
        publisher: Option<&Publisher>,
        messages: usize,
        bytes: usize,
    ) -> Result<(), Failure> {
        let (Some(access), Some(Publisher { caller, about })) = (&self.0.access, publisher) else {
            return Ok(());
        };
        let needs = [Need::some(Verb::Publish, Kind::Topic)];
        let counted = access::count_publish(access, caller, messages, bytes);
        counted.inspect_err(|failure| about.refused(caller, &needs, failure))
    }

    /// Records in the audit log that messages were not published, if a quota of topics refused them.
    pub fn not_published(publisher: Option<&Publisher>, failure: &Failure) {
        if let Some(Publisher { caller, about }) = publisher {
            let mut refused = RefusedMessages::default();
            refused.add_if_quota(failure);
            about.refused_messages(caller, &refused);
        }
    }

    /// Checks that a message of a stream may be published, by the rights that its caller has now, and counts it. The
    /// caller of this function records a refusal.
    pub fn check_message(
        &self,
        permit: Option<&Permit>,
        topic: &str,
        bytes: impl FnOnce() -> usize,
    ) -> Result<(), Failure> {
        let Some(access) = &self.0.access else { return Ok(()) };
        let Some(permit) = permit else { return Err(status::stranger("this caller", false)) };
        let (needs, caller) = ([Need::one(Verb::Publish, Kind::Topic, topic, "topic")], permit.caller());
        access::check(access, &caller, &needs).map_err(|denied| denied.failure(&caller))?;
        access::count_publish(access, &caller, 1, bytes())
    }

    /// Who may do what, if there are rules.
    pub fn access(&self) -> Option<&Arc<Access>> {
        self.0.access.as_ref()
    }
}
