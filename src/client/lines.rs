//! `LineService`: reading, listing and watching files.

use std::pin::Pin;

use futures::Stream;

use super::{Client, Error, Items, MAX_RESPONSE_BYTES, all_pages, resume, token::Authorized, waits::Limits};
use crate::proto::{
    FileInfo, ListFilesRequest, ReadLinesRequest, WatchFilesRequest, WatchFilesResponse,
    line_service_client::LineServiceClient,
};

/// The responses of [`Client::watch_files`]. Dropping it ends the call.
pub type FileChanges = Pin<Box<dyn Stream<Item = Result<WatchFilesResponse, Error>> + Send>>;

impl Client {
    /// The lines of a file: `client.read_lines("logs/app.log").follow(true)`, or of a whole [`ReadLinesRequest`].
    pub fn read_lines(&self, request: impl Into<ReadLinesRequest>) -> Items<ReadLinesRequest> {
        Items::new(self.clone(), request.into())
    }

    /// The files below a root or a directory, or of all roots if `path` is empty, from all pages.
    pub async fn list_files(&self, path: &str) -> Result<Vec<FileInfo>, Error> {
        all_pages(self, |page_token| {
            let request =
                ListFilesRequest { path: path.to_owned(), page_token, ..ListFilesRequest::default() };
            let mut client = self.line_client();
            async move {
                let page = self.unary(client.list_files(request)).await?;
                Ok((page.files, page.next_page_token))
            }
        })
        .await
    }

    /// The files that match a glob, `client.watch_files("logs/**/*.log")`, or the globs of a [`WatchFilesRequest`]: those
    /// that are there, and then those that appear and go.
    ///
    /// It continues by itself after a lost connection. Where files came or went meanwhile, an event `relisted` says that the
    /// program forgets the files that it has, and all files come again. It ends
    /// with an error that does not pass, or where the request says.
    pub fn watch_files(&self, request: impl Into<WatchFilesRequest>) -> FileChanges {
        let limits = Limits { connect: self.connect_timeout, outage: None };
        Box::pin(resume::stream(self.clone(), request.into(), limits, false))
    }

    fn line_client(&self) -> LineServiceClient<Authorized> {
        LineServiceClient::new(self.channel()).max_decoding_message_size(MAX_RESPONSE_BYTES)
    }
}

impl From<&str> for WatchFilesRequest {
    /// The files that match this glob, whose first part is the name of a root: `logs/**/*.log`.
    fn from(glob: &str) -> Self {
        Self::from_iter([glob])
    }
}

impl<T: Into<String>> FromIterator<T> for WatchFilesRequest {
    /// The files that match one of these globs.
    fn from_iter<I: IntoIterator<Item = T>>(globs: I) -> Self {
        Self { globs: globs.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}
