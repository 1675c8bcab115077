//! Which right each method needs: the table that no method can pass by.
//!
//! [`Calls`](super::call::Calls) begins a call only for a request that [`Asks`] for something, and checks that first. A test
//! calls every method of the contract without a right.

use std::sync::Arc;

use tonic::Streaming;

use super::status::{self, Failure};
use crate::{
    access::{Access, Caller, Kind, Need, Rights, Target, Verb},
    lines,
    proto::{self, countdown_request},
};

/// A request of a method.
pub trait Asks {
    /// The rights that the call needs, before anything is looked up.
    fn needs(&self) -> Vec<Need<'_>>;

    /// The number of messages that it would publish. Those of a stream count when they arrive.
    fn messages(&self) -> usize {
        0
    }
}

/// Declares the needs of requests, and for those that publish the number of their messages.
macro_rules! asks {
    ($($request:ty: |$it:pat_param| $needs:expr $(, publishes |$of:pat_param| $messages:expr)?;)*) => {$(
        impl Asks for $request {
            fn needs(&self) -> Vec<Need<'_>> {
                let $it = self;
                $needs.into()
            }

            $(fn messages(&self) -> usize {
                let $of = self;
                $messages
            })?
        }
    )*};
}

fn manage(name: &str) -> Need<'_> {
    Need::one(Verb::Manage, Kind::Countdown, name, "name")
}

fn commit(consumer: &str) -> Need<'_> {
    Need::one(Verb::Commit, Kind::Consumer, consumer, "consumer")
}

asks! {
    // CountdownService
    proto::CountdownRequest: |it| match &it.target {
        Some(countdown_request::Target::Name(name)) => [Need::one(Verb::Count, Kind::Countdown, name, "name")],
        _ => [Need::own_countdown()],
    };
    proto::CreateCountdownRequest: |it| {
        let on_end = it.on_end.iter();
        let on_end = on_end.map(|end| Need::one(Verb::Publish, Kind::Topic, &end.topic, "on_end.topic"));
        std::iter::once(manage(&it.name)).chain(on_end).collect::<Vec<_>>()
    };
    proto::PauseCountdownRequest: |it| [manage(&it.name)];
    proto::ResumeCountdownRequest: |it| [manage(&it.name)];
    proto::CancelCountdownRequest: |it| [manage(&it.name)];
    proto::ExtendCountdownRequest: |it| [manage(&it.name)];
    proto::DeleteCountdownRequest: |it| [manage(&it.name)];
    proto::GetCountdownRequest: |it| [Need::one(Verb::Count, Kind::Countdown, &it.name, "name")];
    proto::ListCountdownsRequest: |_| [Need::list(Kind::Countdown)];
    // LineService
    proto::ReadLinesRequest: |it| [Need::one(Verb::Read, Kind::File, &it.path, "path")];
    proto::ListFilesRequest: |_| [Need::list(Kind::File)];
    proto::WatchFilesRequest: |_| [Need::list(Kind::File)];
    // MessageService
    proto::MessagesRequest: |it| {
        let part = |(index, pattern)| Need::part(pattern, format!("topics[{index}]"));
        let parts = it.topics.iter().enumerate().map(part);
        // A subscription to nothing is refused as a wrong field, but only to a caller who may have some.
        let some = it.topics.is_empty().then(|| Need::some(Verb::Subscribe, Kind::Topic));
        parts.chain(some).chain(it.consumer.as_deref().map(commit)).collect::<Vec<_>>()
    };
    proto::PublishRequest: |it| [Need::one(Verb::Publish, Kind::Topic, &it.topic, "topic")], publishes |_| 1;
    proto::PublishBatchRequest: |it| {
        let topic = |(index, message): (usize, &'_ proto::PublishRequest)| (index, message.topic.clone());
        let need = |(index, topic)| Need::one(Verb::Publish, Kind::Topic, topic, format!("messages[{index}].topic"));
        let some = it.messages.is_empty().then(|| Need::some(Verb::Publish, Kind::Topic));
        it.messages.iter().enumerate().map(topic).map(need).chain(some).collect::<Vec<_>>()
    }, publishes |it| it.messages.len();
    // Each message is checked when it arrives.
    Streaming<proto::PublishStreamRequest>: |_| [Need::some(Verb::Publish, Kind::Topic)];
    proto::ListTopicsRequest: |_| [Need::list(Kind::Topic)];
    proto::PurgeTopicRequest: |it| [Need::one(Verb::Purge, Kind::Topic, &it.topic, "topic")];
    proto::CommitCursorRequest: |it| [commit(&it.consumer)];
    proto::SetConsumerRequest: |it| [commit(&it.consumer)];
    proto::DeleteConsumerRequest: |it| [commit(&it.consumer)];
    proto::ListConsumersRequest: |it| match &it.consumer {
        Some(only) => [Need::one(Verb::List, Kind::Consumer, only, "consumer")],
        None => [Need::list(Kind::Consumer)],
    };
}

/// A call of a test.
#[cfg(test)]
impl Asks for () {
    fn needs(&self) -> Vec<Need<'_>> {
        Vec::new()
    }
}

/// The right to call a service of another crate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Foreign {
    /// Every caller may: a probe has no token.
    Open,
    /// A caller to which a rule allows something may.
    Known,
}

/// The right to call a method that is not of this package; `None` for one that is.
pub fn foreign(path: &str) -> Option<Foreign> {
    if path.starts_with("/perennial.v1.") {
        None
    } else if path.starts_with("/grpc.health.v1.Health/") {
        Some(Foreign::Open)
    } else {
        // Reflection, and paths of no service.
        Some(Foreign::Known)
    }
}

/// What a caller may not do.
#[derive(Debug)]
pub struct Denied<'a> {
    /// The first need that no rule allows.
    pub need: &'a Need<'a>,
    /// How many needs of this verb no rule allows.
    pub count: usize,
}

impl Denied<'_> {
    /// As the caller is told.
    pub fn failure(&self, caller: &Caller) -> Failure {
        failure(caller, self.need)
    }
}

/// Checks that the rules allow the caller all of this.
pub fn check<'a>(access: &Access, caller: &Caller, needs: &'a [Need<'a>]) -> Result<(), Denied<'a>> {
    let mut denied = needs.iter().filter(|need| !caller.rights().allow(need));
    let Some(need) = denied.next() else { return Ok(()) };
    access.deny(need);
    let count = 1 + denied.filter(|other| other.verb == need.verb).count();
    Err(Denied { need, count })
}

/// Counts messages that a caller publishes among its quotas.
pub fn count_publish(access: &Access, caller: &Caller, messages: usize, bytes: usize) -> Result<(), Failure> {
    let taken = caller.quotas().take_publish(messages as u64, bytes as u64);
    taken.map_err(|exceeded| status::quota_exceeded(caller, access.exceed(exceeded)))
}

/// The failure of a call that needs a right that the caller does not have.
fn failure(caller: &Caller, need: &Need<'_>) -> Failure {
    let name = match &need.target {
        Target::Whole(_, name) | Target::Part(name) => Some(name.as_ref()),
        Target::Own | Target::Some(_) => None,
    };
    status::denied(caller, caller.is_known(), need, name)
}

/// Whether a list shows a name to a caller.
pub fn shows(rights: Arc<Rights>, kind: Kind) -> impl Fn(&str) -> bool + Send + 'static {
    move |name| rights.allow_one(Verb::List, kind, name)
}

/// What a list of files shows to a caller.
pub fn shows_files(rights: &Arc<Rights>) -> lines::Shows {
    let below = rights.clone();
    lines::Shows {
        file: Box::new(shows(rights.clone(), Kind::File)),
        below: Box::new(move |directory| below.may_show_below(directory)),
    }
}
