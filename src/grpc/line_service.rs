//! `LineService`.

use futures::StreamExt;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{
    App,
    access::shows_files,
    body::Served,
    call::Outgoing,
    codec::Encoded,
    field::{self, Fields},
    status::{Failure, PARTIAL_FLUSH},
};
use crate::{
    access::{Kind, Verb},
    cursor,
    lines::{
        self, Batch, Delimiter, Event, Fault, FileInfo, Found, GapReason, LongLine, MayRead, OnGap, Patterns,
        Progress, Query, Rules, Start,
    },
    proto::{self, line_service_server::LineService, read_lines_request},
    stream::Batching,
};

mod files;

#[tonic::async_trait]
impl LineService for App {
    type ReadLinesStream = Served;
    type WatchFilesStream = Served;

    async fn read_lines(
        &self,
        request: Request<proto::ReadLinesRequest>,
    ) -> Result<Response<Self::ReadLinesStream>, Status> {
        let call = self.calls.begin("ReadLines", &request, &request.get_ref().path)?;
        let defaults = call.batching(self.config.batch_bytes);
        // The path of the request was checked. A cursor names a file by its inode, and grants nothing.
        let rights = call.rights().clone();
        let may_read = MayRead::only(move |path| rights.allow_one(Verb::Read, Kind::File, path));
        let open = async {
            let query = Query { may_read, ..query(request.into_inner(), defaults)? };
            self.files.open(query).await.map_err(Failure::from)
        };
        let (call, batches) = call.open(open).await?;
        let metrics = self.calls.metrics().clone();
        let responses = batches.map(move |batch| {
            let batch = batch?;
            for event in &batch.events {
                if let Event::Gap { reason, .. } = event {
                    metrics.gap("ReadLines", gap_reason(reason).as_str_name());
                }
            }
            Ok(response(batch))
        });
        Ok(Served::response(call.serve(responses)))
    }

    async fn watch_files(
        &self,
        request: Request<proto::WatchFilesRequest>,
    ) -> Result<Response<Self::WatchFilesStream>, Status> {
        let call = self.calls.begin("WatchFiles", &request, request.get_ref().globs.join(" "))?;
        let defaults = call.batching(self.config.batch_bytes);
        let rights = call.rights().clone();
        let open = async { Ok(self.files.watch(files::query(request.into_inner(), &rights, defaults)?)?) };
        let (call, batches) = call.open::<_, Failure>(open).await?;
        Ok(Served::response(call.serve(batches.map(|batch| Ok(files::response(batch?))))))
    }

    async fn list_files(
        &self,
        request: Request<proto::ListFilesRequest>,
    ) -> Result<Response<proto::ListFilesResponse>, Status> {
        let rights = self.calls.rights(&request);
        let answer = async |request: proto::ListFilesRequest| {
            let page_size = field::page_size(request.page_size)?;
            let after = field::page_after(&request.page_token)?;
            let path = Some(request.path.as_str()).filter(|path| !path.is_empty());
            let (now, shows_all) = (self.clock.wall(), rights.show_all_files(path));
            let shows = shows_files(&rights);
            let page = self.files.list_if(path, page_size, after.as_deref(), now, shows).await;
            let page = match page {
                // Otherwise a caller would learn which directories exist beside those that it may see.
                Err(lines::Error::NotFound { .. }) if !shows_all => {
                    lines::Page { files: Vec::new(), next: None }
                }
                page => page?,
            };
            let files = page.files.into_iter().map(file).collect();
            let (files, next) = field::page(files, page.next, |file| &file.path);
            Ok(proto::ListFilesResponse { files, next_page_token: field::page_token(next) })
        };
        self.calls.unary("ListFiles", request, answer).await
    }
}

fn query(request: proto::ReadLinesRequest, defaults: Batching) -> Result<Query, Failure> {
    let rules = rules(&request)?;
    let proto::ReadLinesRequest { path, start, follow, on_gap, cursor, limit, heartbeat, max_batch, .. } =
        request;
    let proto::ReadLinesRequest { wait_for_create, partial_flush, history, .. } = request;
    let proto::ReadLinesRequest { include, exclude, literal_patterns, ignore_case, .. } = request;
    let on_gap = if field::skips_gaps(on_gap)? { OnGap::Skip } else { OnGap::Fail };
    let partial_flush = partial_flush.map(|pause| field::duration(pause, "partial_flush", PARTIAL_FLUSH));
    let partial_flush = partial_flush.transpose()?;
    let batching = field::batching(Fields { limit, heartbeat, max_batch }, defaults)?;
    let start = match cursor {
        Some(cursor) => Start::Resume(field::position(&cursor)?),
        None => self::start(start)?,
    };
    let may_read = MayRead::default();
    let patterns = Patterns { include, exclude, are_literal: literal_patterns, ignore_case };
    Ok(Query {
        path,
        may_read,
        start,
        history,
        follow,
        wait_for_create,
        on_gap,
        rules,
        patterns,
        partial_flush,
        batching,
    })
}

fn rules(request: &proto::ReadLinesRequest) -> Result<Rules, Failure> {
    let long_line = match proto::LongLine::try_from(request.long_line) {
        Ok(proto::LongLine::Unspecified | proto::LongLine::Split) => LongLine::Split,
        Ok(proto::LongLine::Truncate) => LongLine::Truncate,
        Ok(proto::LongLine::Skip) => LongLine::Skip,
        Err(unknown) => {
            let values = "LONG_LINE_SPLIT, LONG_LINE_TRUNCATE or LONG_LINE_SKIP";
            return Err(Failure::field("long_line", format!("is {}: it must be {values}", unknown.0)));
        }
    };
    let delimiter = Delimiter::parse(request.delimiter.as_deref())?;
    let max_line_bytes =
        request.max_line_bytes.map(|bytes| field::number(bytes, "max_line_bytes")).transpose()?;
    let until_line = request.until_line.map(|line| field::number(line, "until_line")).transpose()?;
    let until_offset =
        request.until_offset.map(|offset| field::number(offset, "until_offset")).transpose()?;
    Ok(Rules { delimiter, long_line, max_line_bytes, until_line, until_offset, filter: None })
}

fn start(start: Option<read_lines_request::Start>) -> Result<Start, Failure> {
    use read_lines_request::Start as Asked;
    Ok(match start {
        None => Start::Head,
        Some(Asked::Last(last)) => Start::Last(field::number(last, "last")?),
        Some(Asked::FromLine(line)) => Start::Line(field::number(line, "from_line")?),
        Some(Asked::FromOffset(offset)) => Start::Offset(field::number(offset, "from_offset")?),
    })
}

fn response(batch: Batch) -> Outgoing<Encoded> {
    let Batch { items, count, events, position, progress } = batch;
    let Progress { caught_up, next_offset, size } = progress;
    let rest = proto::ReadLinesResponse {
        lines: Vec::new(),
        events: events.iter().map(event).collect(),
        cursor: cursor::encode(&position),
        caught_up,
        next_offset: Some(next_offset.cast_signed()),
        size: Some(size.cast_signed()),
    };
    Outgoing::batch(items, count, rest.encode_to_vec().into())
}

fn event(event: &Event) -> proto::LineStreamEvent {
    use proto::line_stream_event::Event as E;
    let event = match event.clone() {
        Event::Rotated { next_offset } => {
            E::Rotated(proto::FileRotated { next_offset: Some(next_offset.cast_signed()) })
        }
        Event::Truncated { read_offset, size } => E::Truncated(proto::FileTruncated {
            read_offset: Some(read_offset.cast_signed()),
            size: Some(size.cast_signed()),
        }),
        Event::Deleted => E::Deleted(proto::FileDeleted {}),
        Event::Gap { reason, bytes } => E::Gap(proto::LineGap {
            reason: gap_reason(&reason).into(),
            byte_count: bytes.map(u64::cast_signed),
            ..unreadable(reason)
        }),
        Event::Opened { size } => E::Opened(proto::FileOpened { size: Some(size.cast_signed()) }),
        Event::Hole { offset, bytes } => E::Hole(proto::FileHole {
            offset: Some(offset.cast_signed()),
            byte_count: Some(bytes.cast_signed()),
        }),
        Event::Late { offset } => E::Late(proto::LateLines { offset: Some(offset.cast_signed()) }),
        Event::Resumed(found) => E::Resumed(proto::FileResumed { found: self::found(found).into() }),
    };
    proto::LineStreamEvent { event: Some(event) }
}

/// The file that cannot be read, and why.
fn unreadable(reason: GapReason) -> proto::LineGap {
    let GapReason::Unreadable { name, fault, unconfirmed } = reason else {
        return proto::LineGap::default();
    };
    let unconfirmed_offset = unconfirmed.map(u64::cast_signed);
    let fault = match fault {
        Fault::Format(format) => format!("has the format of {format}: only gzip and zstd are read"),
        Fault::Corrupt => "is damaged".into(),
        Fault::Incomplete => "ends too early".into(),
        Fault::Memory => "needs a window of more than 8 MiB: compress it without --ultra and --long".into(),
        Fault::Ratio => "holds more than 1,000 times its size".into(),
    };
    proto::LineGap { file: name.to_string(), fault, unconfirmed_offset, ..proto::LineGap::default() }
}

fn gap_reason(reason: &GapReason) -> proto::LineGapReason {
    match reason {
        GapReason::Truncated => proto::LineGapReason::Truncated,
        GapReason::Deleted => proto::LineGapReason::Deleted,
        GapReason::Expired => proto::LineGapReason::Expired,
        GapReason::Filled => proto::LineGapReason::Filled,
        GapReason::Unreadable { .. } => proto::LineGapReason::Unreadable,
    }
}

fn found(found: Found) -> proto::FileResumedFound {
    match found {
        Found::Exact => proto::FileResumedFound::Exact,
        Found::Moved => proto::FileResumedFound::Moved,
        Found::Truncated => proto::FileResumedFound::Truncated,
        Found::Lost => proto::FileResumedFound::Lost,
    }
}

fn file(file: FileInfo) -> proto::FileInfo {
    let FileInfo { path, size, modified, created, growing } = file;
    proto::FileInfo {
        path,
        size: Some(size.cast_signed()),
        modify_time: Some(modified.into()),
        create_time: created.map(Into::into),
        growing,
    }
}
