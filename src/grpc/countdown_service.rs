//! `CountdownService`.

use std::{sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{
    App,
    access::shows,
    body::Served,
    call::Outgoing,
    codec::Encoded,
    field::{self, Fields},
    status::Failure,
};
use crate::{
    access::{Kind, Rights},
    countdown::{
        self, Batch, Event, OnLag, Progress, Query, Start, Target,
        shared::{Countdowns, Snapshot},
    },
    cursor,
    proto::{self, countdown_request as asked, countdown_service_server::CountdownService},
    stream::Batching,
};

mod shared;

#[tonic::async_trait]
impl CountdownService for App {
    type CountdownStream = Served;

    async fn create_countdown(
        &self,
        request: Request<proto::CreateCountdownRequest>,
    ) -> Result<Response<proto::CreateCountdownResponse>, Status> {
        let rights = self.calls.rights(&request);
        let answer = async |request: proto::CreateCountdownRequest| {
            let (name, spec) = shared::spec(request)?;
            let (snapshot, already_existed) = self.countdowns.create(&name, spec).await?;
            Ok(proto::CreateCountdownResponse {
                countdown: Some(self.shown(&snapshot, &rights)),
                already_existed,
            })
        };
        self.calls.unary("CreateCountdown", request, answer).await
    }

    async fn pause_countdown(
        &self,
        request: Request<proto::PauseCountdownRequest>,
    ) -> Result<Response<proto::PauseCountdownResponse>, Status> {
        let rights = self.calls.rights(&request);
        let answer = async |request: proto::PauseCountdownRequest| {
            let version = shared::version(request.version)?;
            let snapshot = self.countdowns.pause(&request.name, version).await?;
            Ok(proto::PauseCountdownResponse { countdown: Some(self.shown(&snapshot, &rights)) })
        };
        self.calls.unary("PauseCountdown", request, answer).await
    }

    async fn resume_countdown(
        &self,
        request: Request<proto::ResumeCountdownRequest>,
    ) -> Result<Response<proto::ResumeCountdownResponse>, Status> {
        let rights = self.calls.rights(&request);
        let answer = async |request: proto::ResumeCountdownRequest| {
            let version = shared::version(request.version)?;
            let snapshot = self.countdowns.resume(&request.name, version).await?;
            Ok(proto::ResumeCountdownResponse { countdown: Some(self.shown(&snapshot, &rights)) })
        };
        self.calls.unary("ResumeCountdown", request, answer).await
    }

    async fn cancel_countdown(
        &self,
        request: Request<proto::CancelCountdownRequest>,
    ) -> Result<Response<proto::CancelCountdownResponse>, Status> {
        let rights = self.calls.rights(&request);
        let answer = async |request: proto::CancelCountdownRequest| {
            let version = shared::version(request.version)?;
            let snapshot = self.countdowns.cancel(&request.name, version).await?;
            Ok(proto::CancelCountdownResponse { countdown: Some(self.shown(&snapshot, &rights)) })
        };
        self.calls.unary("CancelCountdown", request, answer).await
    }

    async fn extend_countdown(
        &self,
        request: Request<proto::ExtendCountdownRequest>,
    ) -> Result<Response<proto::ExtendCountdownResponse>, Status> {
        let rights = self.calls.rights(&request);
        let answer = async |request: proto::ExtendCountdownRequest| {
            let (by, version) = (shared::by(request.by)?, shared::version(request.version)?);
            let snapshot = self.countdowns.extend(&request.name, version, by).await?;
            Ok(proto::ExtendCountdownResponse { countdown: Some(self.shown(&snapshot, &rights)) })
        };
        self.calls.unary("ExtendCountdown", request, answer).await
    }

    async fn get_countdown(
        &self,
        request: Request<proto::GetCountdownRequest>,
    ) -> Result<Response<proto::GetCountdownResponse>, Status> {
        let rights = self.calls.rights(&request);
        let answer = async |request: proto::GetCountdownRequest| {
            let snapshot = self.countdowns.get(&request.name).await?;
            Ok(proto::GetCountdownResponse { countdown: Some(self.shown(&snapshot, &rights)) })
        };
        self.calls.unary("GetCountdown", request, answer).await
    }

    async fn list_countdowns(
        &self,
        request: Request<proto::ListCountdownsRequest>,
    ) -> Result<Response<proto::ListCountdownsResponse>, Status> {
        let rights = self.calls.rights(&request);
        let answer = async |request: proto::ListCountdownsRequest| {
            let page_size = field::page_size(request.page_size)?;
            let after = field::page_after(&request.page_token)?;
            let shows = shows(rights.clone(), Kind::Countdown);
            let page = self.countdowns.list_if(page_size, after.as_deref(), shows).await?;
            let now = self.countdowns.now();
            let shown = |snapshot: &Arc<Snapshot>| shared::countdown(snapshot, now, &rights);
            let countdowns = page.countdowns.iter().map(shown).collect();
            let (countdowns, next) = field::page(countdowns, page.next, |countdown| &countdown.name);
            Ok(proto::ListCountdownsResponse { countdowns, next_page_token: field::page_token(next) })
        };
        self.calls.unary("ListCountdowns", request, answer).await
    }

    async fn delete_countdown(
        &self,
        request: Request<proto::DeleteCountdownRequest>,
    ) -> Result<Response<proto::DeleteCountdownResponse>, Status> {
        let answer = async |request: proto::DeleteCountdownRequest| {
            self.countdowns.delete(&request.name, shared::version(request.version)?).await?;
            Ok(proto::DeleteCountdownResponse {})
        };
        self.calls.unary("DeleteCountdown", request, answer).await
    }

    async fn countdown(
        &self,
        request: Request<proto::CountdownRequest>,
    ) -> Result<Response<Self::CountdownStream>, Status> {
        let call = self.calls.begin("Countdown", &request, subject(request.get_ref()))?;
        let defaults = Batching { max_items: countdown::MAX_BATCH, ..call.batching(self.config.batch_bytes) };
        let rights = call.rights().clone();
        let open = async {
            let request = request.get_ref();
            let (on_lag, batching) = (on_lag(request)?, batching(request, defaults)?);
            let Some(asked::Target::Name(name)) = &request.target else {
                let query = Query { start: start(request)?, on_lag, batching };
                let batches = countdown::open(query, &self.clock, &self.countdown)?;
                return Ok(self.responses(batches, &rights).left_stream());
            };
            described(request)?.check_with_name()?;
            let resume = request.cursor.as_deref().map(field::position);
            let query = countdown::shared::Query {
                name: name.clone(),
                resume: resume.transpose()?,
                on_lag,
                batching,
            };
            let batches = self.countdowns.watch(query).await?;
            Ok::<_, Failure>(self.responses(batches, &rights).right_stream())
        };
        let (call, responses) = call.open(open).await?;
        Ok(Served::response(call.serve(responses)))
    }
}

impl App {
    /// Batches as responses.
    fn responses<P: cursor::Position, E: Into<Failure>, S: Stream<Item = Result<Batch<P>, E>>>(
        &self,
        batches: S,
        rights: &Arc<Rights>,
    ) -> impl Stream<Item = Result<Outgoing<Encoded>, Failure>> + use<P, E, S> {
        let (metrics, countdowns) = (self.calls.metrics().clone(), self.countdowns.clone());
        let rights = rights.clone();
        batches.map(move |batch| {
            let batch = batch.map_err(Into::into)?;
            if let Some(late) = batch.progress.late {
                metrics.ticked(late);
            }
            metrics.skipped(batch.progress.skipped);
            Ok(response(batch, &countdowns, &rights))
        })
    }

    /// The state of a shared countdown now.
    fn shown(&self, snapshot: &Snapshot, rights: &Rights) -> proto::Countdown {
        shared::countdown(snapshot, self.countdowns.now(), rights)
    }
}

fn subject(request: &proto::CountdownRequest) -> String {
    match (&request.cursor, &request.target) {
        (_, Some(asked::Target::Name(name))) => name.clone(),
        (Some(_), _) => "resumed".into(),
        (None, Some(asked::Target::Start(from))) => format!("from {from}"),
        (None, Some(asked::Target::UntilTime(until))) => format!("until {until}"),
        (None, None) => String::new(),
    }
}

fn on_lag(request: &proto::CountdownRequest) -> Result<OnLag, Failure> {
    match proto::OnLag::try_from(request.on_lag) {
        Ok(proto::OnLag::Unspecified | proto::OnLag::Skip) => Ok(OnLag::Skip),
        Ok(proto::OnLag::Burst) => Ok(OnLag::Burst),
        Err(_) => {
            let text = format!("is {}: ON_LAG_SKIP and ON_LAG_BURST are possible", request.on_lag);
            Err(Failure::field("on_lag", text))
        }
    }
}

fn batching(request: &proto::CountdownRequest, defaults: Batching) -> Result<Batching, Failure> {
    let proto::CountdownRequest { limit, heartbeat, max_batch, .. } = *request;
    field::batching(Fields { limit, heartbeat, max_batch }, defaults)
}

fn start(request: &proto::CountdownRequest) -> Result<Start, Failure> {
    Ok(match &request.cursor {
        Some(cursor) => Start::Resume(field::position(cursor)?),
        None => Start::New(described(request)?.spec()?),
    })
}

/// The countdown that a request describes. The name of a shared countdown is not part of it.
fn described(request: &proto::CountdownRequest) -> Result<countdown::Request, Failure> {
    let target = match &request.target {
        Some(asked::Target::Start(from)) => Some(Target::From(*from)),
        Some(asked::Target::UntilTime(until)) => Some(Target::Until(field::time(*until, "until_time")?)),
        Some(asked::Target::Name(_)) | None => None,
    };
    let proto::CountdownRequest { to, step, wait_first, align, .. } = *request;
    let interval = interval(request.interval)?;
    Ok(countdown::Request { target, to, step, interval, wait_first, align })
}

fn interval(interval: Option<prost_types::Duration>) -> Result<Option<Duration>, Failure> {
    let range = "it must be 1 ms or more, and up to 10 years by default";
    interval.map(|interval| field::duration(interval, "interval", range)).transpose()
}

fn response<P: cursor::Position>(
    batch: Batch<P>,
    countdowns: &Countdowns,
    rights: &Rights,
) -> Outgoing<Encoded> {
    let Batch { items, count, events, position, progress } = batch;
    let Progress { late: _, skipped, snapshot, sent } = progress;
    let rest = proto::CountdownResponse {
        ticks: Vec::new(),
        events: events.into_iter().map(event).collect(),
        countdown: snapshot.map(|snapshot| shared::countdown(&snapshot, countdowns.now(), rights)),
        cursor: cursor::encode(&position),
        sent_time: Some(sent.into()),
        skipped_ticks: shared::signed(skipped),
    };
    Outgoing::batch(items, count, rest.encode_to_vec().into())
}

fn event(event: Event) -> proto::CountdownStreamEvent {
    use proto::countdown_stream_event::Event as E;
    let event = match event {
        Event::ClockStepped { by } => {
            E::ClockStepped(proto::CountdownClockStepped { by: Some(field::signed_duration(by)) })
        }
        Event::Changed { change, by, previous_version, version } => {
            let by = by.map(field::signed_duration);
            E::Changed(proto::CountdownChanged { by, ..shared::changed(change, previous_version, version) })
        }
    };
    proto::CountdownStreamEvent { event: Some(event) }
}
