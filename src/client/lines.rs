//! `LineService`: reading and listing files.

use futures::Stream;

use super::{Client, Error, MAX_RESPONSE_BYTES, all_pages, resume, token::Authorized};
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
        all_pages(|page_token| {
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
        LineServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE_BYTES)
    }
}
