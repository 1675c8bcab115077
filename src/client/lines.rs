//! `LineService`: reading and listing files.

use futures::Stream;

use super::{Client, Error, MAX_RESPONSE_BYTES, resume};
use crate::proto::{
    FileInfo, ListFilesRequest, ReadLinesRequest, ReadLinesResponse, line_service_client::LineServiceClient,
};

impl Client {
    /// The lines of a file.
    pub fn lines(
        &self,
        request: ReadLinesRequest,
    ) -> impl Stream<Item = Result<ReadLinesResponse, Error>> + Send + use<> {
        resume::stream(self.clone(), request)
    }

    /// The files below a root or a directory, or of all roots if `path` is empty, from all pages.
    pub async fn list_files(&self, path: &str) -> Result<Vec<FileInfo>, Error> {
        let mut client =
            LineServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE_BYTES);
        let mut request = ListFilesRequest { path: path.to_owned(), ..ListFilesRequest::default() };
        let mut files = Vec::new();
        loop {
            let answer = client.list_files(request.clone()).await;
            let page = answer.map_err(|status| self.error(&status))?.into_inner();
            files.extend(page.files);
            if page.next_page_token.is_empty() {
                return Ok(files);
            }
            request.page_token = page.next_page_token;
        }
    }
}
