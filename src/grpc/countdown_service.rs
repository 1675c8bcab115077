//! `CountdownService`.

use futures::StreamExt;
use tonic::{Request, Response, Status};

use super::{
    App,
    call::{Responses, Served},
    codec::Encoded,
    field::{self, Fields},
    status::Failure,
};
use crate::{
    countdown::{self, Batch, Event, OnLag, Query, Spec, Start, Target},
    cursor::{self, Kind},
    proto::{self, countdown_service_server::CountdownService},
};

/// The default of `interval`.
const INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);

/// The default of `max_batch`.
const MAX_BATCH: usize = 1_000;

#[tonic::async_trait]
impl CountdownService for App {
    type CountdownStream = Responses<Encoded>;

    async fn create_countdown(
        &self,
        _: Request<proto::CreateCountdownRequest>,
    ) -> Result<Response<proto::CreateCountdownResponse>, Status> {
        Err(Failure::field("name", "not yet").into())
    }

    async fn pause_countdown(
        &self,
        _: Request<proto::PauseCountdownRequest>,
    ) -> Result<Response<proto::PauseCountdownResponse>, Status> {
        Err(Failure::field("name", "not yet").into())
    }

    async fn resume_countdown(
        &self,
        _: Request<proto::ResumeCountdownRequest>,
    ) -> Result<Response<proto::ResumeCountdownResponse>, Status> {
        Err(Failure::field("name", "not yet").into())
    }

    async fn extend_countdown(
        &self,
        _: Request<proto::ExtendCountdownRequest>,
    ) -> Result<Response<proto::ExtendCountdownResponse>, Status> {
        Err(Failure::field("name", "not yet").into())
    }

    async fn cancel_countdown(
        &self,
        _: Request<proto::CancelCountdownRequest>,
    ) -> Result<Response<proto::CancelCountdownResponse>, Status> {
        Err(Failure::field("name", "not yet").into())
    }

    async fn get_countdown(
        &self,
        _: Request<proto::GetCountdownRequest>,
    ) -> Result<Response<proto::GetCountdownResponse>, Status> {
        Err(Failure::field("name", "not yet").into())
    }

    async fn delete_countdown(
        &self,
        _: Request<proto::DeleteCountdownRequest>,
    ) -> Result<Response<proto::DeleteCountdownResponse>, Status> {
        Err(Failure::field("name", "not yet").into())
    }

    async fn list_countdowns(
        &self,
        _: Request<proto::ListCountdownsRequest>,
    ) -> Result<Response<proto::ListCountdownsResponse>, Status> {
        Err(Failure::field("name", "not yet").into())
    }

    async fn countdown(
        &self,
        request: Request<proto::CountdownRequest>,
    ) -> Result<Response<Self::CountdownStream>, Status> {
        let call = self.calls.begin("Countdown", &request, subject(request.get_ref()))?;
        let open = async {
            let query = query(request.get_ref(), self.limits.batch_bytes)?;
            countdown::open(query, &self.clock, &self.countdown).map_err(Failure::from)
        };
        let (call, batches) = call.open(open).await?;
        let metrics = self.calls.metrics().clone();
        let responses = batches.map(move |batch| {
            let batch = batch?;
            if let Some(late) = batch.late {
                metrics.ticked(late);
            }
            let (items, bytes) = (batch.count, batch.items.len());
            Ok(Served { response: response(batch), items, bytes })
        });
        Ok(Response::new(call.serve(responses)))
    }
}

fn subject(request: &proto::CountdownRequest) -> String {
    use proto::countdown_request::Target;
    match (&request.cursor, &request.target) {
        (Some(_), _) => "resumed".into(),
        (None, Some(Target::From(from))) => format!("from {from}"),
        (None, Some(Target::Until(until))) => format!("until {until}"),
        (None, Some(Target::Name(name))) => name.clone(),
        (None, None) => String::new(),
    }
}

fn query(request: &proto::CountdownRequest, max_bytes: usize) -> Result<Query, Failure> {
    let on_lag = match proto::OnLag::try_from(request.on_lag) {
        Ok(proto::OnLag::Unspecified | proto::OnLag::Skip) => OnLag::Skip,
        Ok(proto::OnLag::Burst) => OnLag::Burst,
        Err(_) => {
            let text = format!("is {}: ON_LAG_SKIP and ON_LAG_BURST are possible", request.on_lag);
            return Err(Failure::field("on_lag", text));
        }
    };
    let proto::CountdownRequest { limit, heartbeat, max_batch, .. } = *request;
    let batching = field::batching(Fields { limit, heartbeat, max_batch }, max_bytes, MAX_BATCH)?;
    let start = match &request.cursor {
        Some(cursor) => Start::Resume(field::position(Kind::Countdown, cursor)?),
        None => Start::New(spec(request)?),
    };
    Ok(Query { start, on_lag, batching })
}

fn spec(request: &proto::CountdownRequest) -> Result<Spec, Failure> {
    let target = match &request.target {
        Some(proto::countdown_request::Target::From(from)) => Target::From(*from),
        Some(proto::countdown_request::Target::Until(until)) => Target::Until(field::time(*until, "until")?),
        Some(proto::countdown_request::Target::Name(_)) => {
            return Err(Failure::field("name", "not yet"));
        }
        None => {
            let text =
                "is not set: set `from`, a number, `until`, a moment, or `name`, of a shared countdown";
            return Err(Failure::field("target", text));
        }
    };
    let interval = match request.interval {
        None => INTERVAL,
        Some(interval) => field::duration(interval).ok_or_else(|| {
            let text = format!("is {}: it must be 1 ms or more", field::show(&interval));
            Failure::field("interval", text)
        })?,
    };
    let (to, step) = (request.to.unwrap_or(0), request.step.unwrap_or(1));
    Ok(Spec { target, to, step, interval, wait_first: request.wait_first, align: request.align })
}

fn response(batch: Batch) -> Encoded {
    let Batch { items, count: _, late: _, skipped, events, position, sent } = batch;
    let rest = proto::CountdownResponse {
        ticks: Vec::new(),
        events: events.into_iter().map(event).collect(),
        countdown: None,
        cursor: cursor::encode(Kind::Countdown, &position),
        sent_time: Some(sent.into()),
        skipped: i64::try_from(skipped).unwrap_or(i64::MAX),
    };
    Encoded::new(vec![items], &rest)
}

fn event(event: Event) -> proto::CountdownEvent {
    use proto::countdown_event::Event as Told;
    let told = match event {
        Event::ClockStepped { by_nanos } => {
            Told::ClockStepped(proto::CountdownClockStepped { by: Some(signed_duration(by_nanos)) })
        }
    };
    proto::CountdownEvent { event: Some(told) }
}

/// Seconds and nanoseconds have one sign.
fn signed_duration(nanos: i128) -> prost_types::Duration {
    const SECOND: i128 = 1_000_000_000;
    let seconds = i64::try_from(nanos / SECOND).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX });
    prost_types::Duration { seconds, nanos: i32::try_from(nanos % SECOND).unwrap_or(0) }
}
