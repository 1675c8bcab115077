//! What the rules of access mean for a call: it is checked when it begins, and a stream as long as it is open.
//!
//! A call that did not pass the gate has no caller, and may do nothing where there are rules.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::Request;

use super::{Calls, Connection, Ends, Permit, audit, permit::Permitted};
use crate::{
    access::{Access, Caller, Kind, Need, Rights, Verb},
    grpc::{
        access::{self, Asks},
        status::{self, Failure},
    },
};

impl Calls {
    /// What the caller of a request may do.
    pub fn rights<T>(&self, request: &Request<T>) -> Arc<Rights> {
        match (&self.0.access, request.extensions().get::<Caller>()) {
            (None, _) => Rights::all().into(),
            (Some(_), Some(caller)) => caller.rights().clone(),
            // It did not pass the gate.
            (Some(_), None) => Rights::default().into(),
        }
    }

    /// Checks that the caller of a request may do what it asks for.
    pub(super) fn check<T: Asks>(
        &self,
        method: &'static str,
        request: &Request<T>,
        rights: &Rights,
    ) -> Result<(), Failure> {
        match (&self.0.access, request.extensions().get::<Caller>()) {
            (None, _) => Ok(()),
            (Some(access), Some(caller)) => {
                let needs = request.get_ref().needs();
                let checked = access::check(access, caller, rights, &needs);
                let peer = request.extensions().get::<Connection>();
                audit::decided(caller, peer, method, &needs, checked.as_ref().err());
                checked?;
                let counted = caller.quotas().take_call();
                counted.map_err(|exceeded| status::quota_exceeded(caller, access.exceed(exceeded)))
            }
            (Some(_), None) => Err(status::stranger("this caller", false)),
        }
    }

    /// When a stream must end: with its connection, and when its caller may no longer have it.
    pub(super) fn permit<T: Asks>(
        &self,
        request: &Request<T>,
        connection: &CancellationToken,
    ) -> Result<Option<(Permitted, Ends)>, Failure> {
        match (&self.0.access, request.extensions().get::<Caller>()) {
            (Some(access), Some(caller)) => {
                let needs = request.get_ref().needs();
                Permitted::new(&self.0, access, caller.clone(), needs, connection).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Who makes a call, if there are rules and it has passed the gate.
    pub fn caller<T>(&self, request: &Request<T>) -> Option<Caller> {
        request.extensions().get::<Caller>().cloned()
    }

    /// Counts messages that a caller publishes, and their bytes, among its quotas.
    pub fn count_publish(
        &self,
        caller: Option<&Caller>,
        messages: usize,
        bytes: usize,
    ) -> Result<(), Failure> {
        match (&self.0.access, caller) {
            (Some(access), Some(caller)) => access::count_publish(access, caller, messages, bytes),
            _ => Ok(()),
        }
    }

    /// Checks that a message of a stream may be published, by the rights that its caller has now, and counts it.
    pub fn check_message(&self, permit: Option<&Permit>, topic: &str, bytes: usize) -> Result<(), Failure> {
        let Some(access) = &self.0.access else { return Ok(()) };
        let Some(permit) = permit else { return Err(status::stranger("this caller", false)) };
        let (need, caller) = (Need::one(Verb::Publish, Kind::Topic, topic, "topic"), permit.caller());
        access::check(access, &caller, caller.rights(), &[need])?;
        access::count_publish(access, &caller, 1, bytes)
    }

    /// Who may do what, if there are rules.
    pub fn access(&self) -> Option<&Arc<Access>> {
        self.0.access.as_ref()
    }
}
