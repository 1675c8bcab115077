//! `LineService`: reading and listing files.

use super::{Client, Error, Items, MAX_RESPONSE_BYTES, all_pages, token::Authorized};
use crate::proto::{FileInfo, ListFilesRequest, ReadLinesRequest, line_service_client::LineServiceClient};

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

    fn line_client(&self) -> LineServiceClient<Authorized> {
        LineServiceClient::new(self.channel()).max_decoding_message_size(MAX_RESPONSE_BYTES)
    }
}
