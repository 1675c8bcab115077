//! `CountdownService`: watching countdowns, and creating, changing and listing shared ones.

use tonic::{Response, Status};
use uuid::Uuid;

use super::{
    Client, Error, Items, MAX_RESPONSE_BYTES, all_pages, repeated,
    token::Authorized,
    waits::{Limits, Waits},
};
use crate::proto::{
    CancelCountdownRequest, Countdown, CountdownRequest, CreateCountdownRequest, CreateCountdownResponse,
    DeleteCountdownRequest, ExtendCountdownRequest, GetCountdownRequest, ListCountdownsRequest,
    PauseCountdownRequest, ResumeCountdownRequest, countdown_service_client::CountdownServiceClient,
};

/// An answer without the state that it is about.
const NO_COUNTDOWN: Error = Error::Protocol { fault: "its response has no countdown" };

impl Client {
    /// The numbers of a countdown: `client.countdown(3)`; of a shared one: `client.countdown("launch")`; or of a whole
    /// [`CountdownRequest`].
    pub fn countdown(&self, request: impl Into<CountdownRequest>) -> Items<CountdownRequest> {
        Items::new(self.clone(), request.into())
    }

    /// Creates a shared countdown; it is on disk when this returns.
    ///
    /// A request without an id gets one, so that the call can be repeated after a lost answer, by the same rule as
    /// streams.
    pub async fn create_countdown(
        &self,
        mut request: CreateCountdownRequest,
    ) -> Result<CreateCountdownResponse, Error> {
        request.request_id.get_or_insert_with(|| Uuid::now_v7().to_string());
        let mut waits =
            Waits::new(self.observer.clone(), Limits { connect: self.connect_timeout, outage: None });
        waits.begin();
        loop {
            let error = match self.unary(self.countdown_client().create_countdown(request.clone())).await {
                Ok(answer) => {
                    waits.delivered();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            if !matches!(error, Error::Unreachable { .. } | Error::Silent { .. }) {
                waits.answered();
            }
            waits.wait_out(error).await?;
        }
    }

    /// Pauses a shared countdown, if it still has `version`, and returns its new state. The call is not repeated.
    pub async fn pause_countdown(&self, name: &str, version: Option<i64>) -> Result<Countdown, Error> {
        let request = PauseCountdownRequest { name: name.to_owned(), version };
        self.state(async |mut server| Ok(server.pause_countdown(request).await?.map(|it| it.countdown))).await
    }

    /// Resumes a paused countdown, if it still has `version`, and returns its new state. The call is not repeated.
    pub async fn resume_countdown(&self, name: &str, version: Option<i64>) -> Result<Countdown, Error> {
        let request = ResumeCountdownRequest { name: name.to_owned(), version };
        self.state(async |mut server| Ok(server.resume_countdown(request).await?.map(|it| it.countdown)))
            .await
    }

    /// Moves the end of a shared countdown later by `by`, or earlier if `by` is negative, if it still has `version`, and
    /// returns its new state.
    ///
    /// The call is not repeated here; give a version to repeat it safely.
    pub async fn extend_countdown(
        &self,
        name: &str,
        by: prost_types::Duration,
        version: Option<i64>,
    ) -> Result<Countdown, Error> {
        let request = ExtendCountdownRequest { name: name.to_owned(), by: Some(by), version };
        self.state(async |mut server| Ok(server.extend_countdown(request).await?.map(|it| it.countdown)))
            .await
    }

    /// Ends a shared countdown before its time, for good, if it still has `version`, and returns its new state. The call
    /// is not repeated.
    pub async fn cancel_countdown(&self, name: &str, version: Option<i64>) -> Result<Countdown, Error> {
        let request = CancelCountdownRequest { name: name.to_owned(), version };
        self.state(async |mut server| Ok(server.cancel_countdown(request).await?.map(|it| it.countdown)))
            .await
    }

    /// The state of a shared countdown.
    pub async fn get_countdown(&self, name: &str) -> Result<Countdown, Error> {
        let request = GetCountdownRequest { name: name.to_owned() };
        let answer =
            repeated!(self, self.unary(self.countdown_client().get_countdown(request.clone()))).countdown;
        answer.ok_or(NO_COUNTDOWN)
    }

    /// All shared countdowns, ordered by name, from all pages.
    pub async fn list_countdowns(&self) -> Result<Vec<Countdown>, Error> {
        all_pages(self, |page_token| {
            let request = ListCountdownsRequest { page_token, ..ListCountdownsRequest::default() };
            let mut client = self.countdown_client();
            async move {
                let page = self.unary(client.list_countdowns(request)).await?;
                Ok((page.countdowns, page.next_page_token))
            }
        })
        .await
    }

    /// Deletes a shared countdown, for good, if it still has `version`. The call is not repeated.
    pub async fn delete_countdown(&self, name: &str, version: Option<i64>) -> Result<(), Error> {
        let request = DeleteCountdownRequest { name: name.to_owned(), version };
        self.unary(self.countdown_client().delete_countdown(request)).await.map(drop)
    }

    /// Makes a call that answers with the state of one shared countdown.
    async fn state(
        &self,
        call: impl AsyncFnOnce(CountdownServiceClient<Authorized>) -> Result<Response<Option<Countdown>>, Status>,
    ) -> Result<Countdown, Error> {
        let countdown = self.unary(call(self.countdown_client())).await?;
        countdown.ok_or(NO_COUNTDOWN)
    }

    fn countdown_client(&self) -> CountdownServiceClient<Authorized> {
        CountdownServiceClient::new(self.channel()).max_decoding_message_size(MAX_RESPONSE_BYTES)
    }
}

#[cfg(test)]
mod tests;
