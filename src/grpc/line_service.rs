//! `LineService`.

use futures::StreamExt;
use tonic::{Request, Response, Status};

use super::{
    App,
    call::{self, Responses, Served},
    codec::Encoded,
    field::{self, Fields},
    status::Failure,
};
use crate::{
    cursor::{self, Kind},
    lines::{Batch, Event, FileInfo, OnGap, Query, Start},
    proto::{self, line_service_server::LineService, read_lines_request},
};

#[tonic::async_trait]
impl LineService for App {
    type ReadLinesStream = Responses<Encoded>;

    async fn read_lines(
        &self,
        request: Request<proto::ReadLinesRequest>,
    ) -> Result<Response<Self::ReadLinesStream>, Status> {
        let call = self.calls.begin("ReadLines", &request, &request.get_ref().path)?;
        let open = async {
            let query = query(request.into_inner(), self.limits.batch_bytes)?;
            self.files.open(query).await.map_err(Failure::from)
        };
        let (call, batches) = call.open(open).await?;
        let responses = batches.map(|batch| {
            let batch = batch?;
            let (items, bytes) = (batch.count, batch.items.len());
            Ok(Served { response: response(batch), items, bytes })
        });
        Ok(Response::new(call.serve(responses)))
    }

    async fn list_files(
        &self,
        request: Request<proto::ListFilesRequest>,
    ) -> Result<Response<proto::ListFilesResponse>, Status> {
        let timeout = call::timeout(request.metadata());
        let proto::ListFilesRequest { path, page_size, page_token } = request.into_inner();
        let answer = async {
            let page_size = field::page_size(page_size)?;
            let after = field::page_after(&page_token)?;
            let path = Some(path.as_str()).filter(|path| !path.is_empty());
            let page = self.files.list(path, page_size, after.as_deref(), self.clock.wall()).await?;
            let next_page_token = field::page_token(page.next);
            Ok(proto::ListFilesResponse {
                files: page.files.into_iter().map(file).collect(),
                next_page_token,
            })
        };
        self.calls.unary("ListFiles", timeout, answer).await
    }
}

fn query(request: proto::ReadLinesRequest, max_bytes: usize) -> Result<Query, Failure> {
    let proto::ReadLinesRequest { path, start, follow, on_gap, cursor, limit, heartbeat, max_batch, .. } =
        request;
    let on_gap = match proto::OnGap::try_from(on_gap) {
        Ok(proto::OnGap::Unspecified | proto::OnGap::Fail) => OnGap::Fail,
        Ok(proto::OnGap::Skip) => OnGap::Skip,
        Err(_) => {
            let text = format!("is {on_gap}: ON_GAP_FAIL and ON_GAP_SKIP are possible");
            return Err(Failure::field("on_gap", text));
        }
    };
    let batching = field::batching(Fields { limit, heartbeat, max_batch }, max_bytes, usize::MAX)?;
    let start = match cursor {
        Some(cursor) => Start::Resume(field::position(Kind::Lines, &cursor)?),
        None => self::start(start)?,
    };
    Ok(Query { path, start, follow, on_gap, batching })
}

fn start(start: Option<read_lines_request::Start>) -> Result<Start, Failure> {
    use read_lines_request::Start as Asked;
    Ok(match start {
        None => Start::Head,
        Some(Asked::Last(last)) => Start::Last(field::at_least(last, 0, "last")?),
        Some(Asked::FromLine(line)) => Start::Line(field::at_least(line, 1, "from_line")?),
        Some(Asked::FromOffset(offset)) => Start::Offset(field::at_least(offset, 0, "from_offset")?),
    })
}

fn response(batch: Batch) -> Encoded {
    let Batch { items, count: _, events, position, caught_up, next_offset, size } = batch;
    let rest = proto::ReadLinesResponse {
        lines: Vec::new(),
        events: events.iter().map(event).collect(),
        cursor: cursor::encode(Kind::Lines, &position),
        caught_up,
        next_offset: Some(next_offset.cast_signed()),
        size: Some(size.cast_signed()),
    };
    Encoded::new(vec![items], &rest)
}

fn event(event: &Event) -> proto::LineEvent {
    use proto::line_event::Event as Told;
    let told = match *event {
        Event::Rotated { next_offset } => {
            Told::Rotated(proto::LineRotated { next_offset: Some(next_offset.cast_signed()) })
        }
        Event::Truncated { read_offset, size } => Told::Truncated(proto::LineTruncated {
            read_offset: Some(read_offset.cast_signed()),
            size: Some(size.cast_signed()),
        }),
        Event::Deleted => Told::Deleted(proto::LineDeleted {}),
        Event::Gap { reason: _, bytes } => Told::Gap(proto::LineGap {
            reason: proto::LineGapReason::Expired.into(),
            bytes: bytes.map(u64::cast_signed),
        }),
    };
    proto::LineEvent { event: Some(told) }
}

fn file(file: FileInfo) -> proto::File {
    let FileInfo { path, size, modified, created, growing } = file;
    proto::File {
        path,
        size: Some(size.cast_signed()),
        modify_time: Some(modified.into()),
        create_time: created.map(Into::into),
        growing,
    }
}
