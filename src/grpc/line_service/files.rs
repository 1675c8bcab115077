//! Requests and responses of `WatchFiles`.

use std::sync::Arc;

use prost::Message as _;

use super::file;
use crate::{
    access::Rights,
    cursor,
    grpc::{
        access::shows_files,
        call::Outgoing,
        codec::Encoded,
        field::{self, Fields},
        status::Failure,
    },
    lines::{Change, FileBatch, FileQuery},
    proto::{self, file_change, file_stream_event::Event},
    stream::Batching,
};

/// The query of a caller with these rights.
pub fn query(
    request: proto::WatchFilesRequest,
    rights: &Arc<Rights>,
    defaults: Batching,
) -> Result<FileQuery, Failure> {
    let proto::WatchFilesRequest { globs, include_rotated, until_caught_up, cursor, .. } = request;
    let proto::WatchFilesRequest { limit, heartbeat, max_batch, .. } = request;
    let batching = field::batching(Fields { limit, heartbeat, max_batch }, defaults)?;
    // Otherwise a caller would learn which roots exist beside those that it may see.
    let root = |glob: &String| glob.split('/').next().map(str::to_owned);
    let hides_roots = globs.iter().any(|glob| !rights.show_all_files(root(glob).as_deref()));
    Ok(FileQuery {
        globs,
        shows: shows_files(rights),
        hides_roots,
        shows_rotated: include_rotated,
        until_caught_up,
        position: cursor.as_deref().map(field::position).transpose()?,
        batching,
    })
}

/// The response of a batch.
pub fn response(batch: FileBatch) -> Outgoing<Encoded> {
    let FileBatch { is_relisted, changes, position, caught_up } = batch;
    let count = changes.len();
    let changes = changes.into_iter().map(change).collect();
    let items = proto::WatchFilesResponse { changes, ..proto::WatchFilesResponse::default() };
    let relisted = || proto::FileStreamEvent { event: Some(Event::Relisted(proto::FilesRelisted {})) };
    let rest = proto::WatchFilesResponse {
        changes: Vec::new(),
        events: is_relisted.then(relisted).into_iter().collect(),
        cursor: cursor::encode(&position),
        caught_up,
    };
    Outgoing::batch(vec![items.encode_to_vec().into()], count, rest.encode_to_vec().into())
}

fn change(change: Change) -> proto::FileChange {
    let change = match change {
        Change::Added(info) => file_change::Change::Added(file(info)),
        Change::Removed(path) => file_change::Change::Removed(proto::RemovedFile { path }),
    };
    proto::FileChange { change: Some(change) }
}
