//! `CountdownService`: watching countdowns, and looking after the shared ones.

use futures::Stream;
use tonic::{Response, Status, transport::Channel};
use uuid::Uuid;

use super::{
    Client, Error, MAX_RESPONSE_BYTES,
    resume::{self, Waits},
};
use crate::proto::{
    CancelCountdownRequest, Countdown, CountdownRequest, CountdownResponse, CreateCountdownRequest,
    CreateCountdownResponse, DeleteCountdownRequest, ExtendCountdownRequest, GetCountdownRequest,
    ListCountdownsRequest, PauseCountdownRequest, ResumeCountdownRequest,
    countdown_service_client::CountdownServiceClient,
};

impl Client {
    /// The numbers of a countdown, one's own or a shared one, and what happens to it.
    pub fn countdown(
        &self,
        request: CountdownRequest,
    ) -> impl Stream<Item = Result<CountdownResponse, Error>> + Send + use<> {
        resume::stream(self.clone(), request)
    }

    /// Creates a shared countdown; it is on disk when this returns.
    ///
    /// A request without an id is given one, so that it can be repeated where an answer was lost: as long as the
    /// failure may pass, as streams are. The first connection fails at once if nothing answers.
    pub async fn create_countdown(
        &self,
        mut request: CreateCountdownRequest,
    ) -> Result<CreateCountdownResponse, Error> {
        request.request_id.get_or_insert_with(|| Uuid::now_v7().to_string());
        let mut waits = Waits::new(self.observer.clone());
        loop {
            let error = match self.countdown_client().create_countdown(request.clone()).await {
                Ok(answer) => {
                    waits.delivered();
                    return Ok(answer.into_inner());
                }
                Err(status) => self.error(&status),
            };
            if !matches!(error, Error::Unreachable { .. }) {
                waits.answered();
            }
            waits.wait_out(error).await?;
        }
    }

    /// Stops a shared countdown for a while, if it has this version: how it stands now. It is not repeated here.
    pub async fn pause_countdown(&self, name: &str, version: Option<i64>) -> Result<Countdown, Error> {
        let request = PauseCountdownRequest { name: name.to_owned(), version };
        let answer = self.countdown_client().pause_countdown(request).await;
        self.countdown_in(answer, |answer| answer.countdown)
    }

    /// Lets a paused countdown go on, if it has this version: how it stands now. It is not repeated here.
    pub async fn resume_countdown(&self, name: &str, version: Option<i64>) -> Result<Countdown, Error> {
        let request = ResumeCountdownRequest { name: name.to_owned(), version };
        let answer = self.countdown_client().resume_countdown(request).await;
        self.countdown_in(answer, |answer| answer.countdown)
    }

    /// Puts off the end of a shared countdown, or, below zero, brings it forward, if it has this version: how it
    /// stands now.
    ///
    /// It is not repeated here: name a version to repeat it safely.
    pub async fn extend_countdown(
        &self,
        name: &str,
        by: prost_types::Duration,
        version: Option<i64>,
    ) -> Result<Countdown, Error> {
        let request = ExtendCountdownRequest { name: name.to_owned(), by: Some(by), version };
        let answer = self.countdown_client().extend_countdown(request).await;
        self.countdown_in(answer, |answer| answer.countdown)
    }

    /// Ends a shared countdown before its time, for good, if it has this version: how it stands now. It is not
    /// repeated here.
    pub async fn cancel_countdown(&self, name: &str, version: Option<i64>) -> Result<Countdown, Error> {
        let request = CancelCountdownRequest { name: name.to_owned(), version };
        let answer = self.countdown_client().cancel_countdown(request).await;
        self.countdown_in(answer, |answer| answer.countdown)
    }

    /// How a shared countdown stands.
    pub async fn get_countdown(&self, name: &str) -> Result<Countdown, Error> {
        let request = GetCountdownRequest { name: name.to_owned() };
        let answer = self.countdown_client().get_countdown(request).await;
        self.countdown_in(answer, |answer| answer.countdown)
    }

    /// All shared countdowns, by name: all pages.
    pub async fn list_countdowns(&self) -> Result<Vec<Countdown>, Error> {
        let mut client = self.countdown_client();
        let mut request = ListCountdownsRequest::default();
        let mut countdowns = Vec::new();
        loop {
            let answer = client.list_countdowns(request.clone()).await;
            let page = answer.map_err(|status| self.error(&status))?.into_inner();
            countdowns.extend(page.countdowns);
            if page.next_page_token.is_empty() {
                return Ok(countdowns);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Forgets a shared countdown, for good, if it has this version. It is not repeated here.
    pub async fn delete_countdown(&self, name: &str, version: Option<i64>) -> Result<(), Error> {
        let request = DeleteCountdownRequest { name: name.to_owned(), version };
        let answer = self.countdown_client().delete_countdown(request).await;
        answer.map(drop).map_err(|status| self.error(&status))
    }

    /// A server always tells how it stands.
    fn countdown_in<A>(
        &self,
        answer: Result<Response<A>, Status>,
        countdown: impl FnOnce(A) -> Option<Countdown>,
    ) -> Result<Countdown, Error> {
        let answer = answer.map_err(|status| self.error(&status))?.into_inner();
        Ok(countdown(answer).unwrap_or_default())
    }

    fn countdown_client(&self) -> CountdownServiceClient<Channel> {
        CountdownServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE_BYTES)
    }
}

#[cfg(test)]
mod tests;
