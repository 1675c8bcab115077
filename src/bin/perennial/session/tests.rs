#![expect(clippy::unwrap_used, reason = "a test")]

use futures::stream;

use super::*;

/// Records what the loop calls.
#[derive(Default)]
struct Record {
    calls: Vec<String>,
    idle_again: Option<Duration>,
    background: Option<&'static str>,
}

impl Session for Record {
    type Item = u8;

    async fn received(&mut self, item: u8) -> Result<ControlFlow<u8>, Failure> {
        self.calls.push(item.to_string());
        Ok(if item == u8::MAX { ControlFlow::Break(7) } else { ControlFlow::Continue(()) })
    }

    fn idle(&mut self) -> Result<Option<Duration>, Failure> {
        self.calls.push("idle".into());
        Ok(self.idle_again.take())
    }

    async fn background(&mut self) -> Result<(), Failure> {
        match self.background.take() {
            Some(done) => self.calls.push(done.into()),
            None => std::future::pending().await,
        }
        Ok(())
    }

    async fn ended(&mut self) -> Result<u8, Failure> {
        self.calls.push("ended".into());
        Ok(0)
    }

    async fn interrupted(&mut self) -> Result<u8, Failure> {
        self.calls.push("interrupted".into());
        Ok(130)
    }
}

/// Items that are ready at once, a pause for each `None`, and then the end.
fn items(items: &[Option<u8>]) -> impl Stream<Item = u8> {
    stream::iter(items.to_vec()).filter_map(|item| async move {
        if item.is_none() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        item
    })
}

async fn run_with(mut record: Record, given: &[Option<u8>]) -> (u8, String) {
    let code = run(&mut record, items(given), &CancellationToken::new()).await.unwrap();
    (code, record.calls.join(" "))
}

#[tokio::test(start_paused = true)]
async fn a_session_is_idle_only_when_no_item_is_ready() {
    let (code, calls) = run_with(Record::default(), &[Some(1), Some(2), None, Some(3)]).await;
    assert_eq!((code, calls.as_str()), (0, "1 2 idle 3 ended"));
}

#[tokio::test(start_paused = true)]
async fn a_quiet_session_is_idle_again_when_it_asked_to_be() {
    let record = Record { idle_again: Some(Duration::from_millis(1)), ..Record::default() };
    assert_eq!(run_with(record, &[None, Some(1)]).await.1, "idle idle 1 ended");
}

#[tokio::test(start_paused = true)]
async fn background_work_continues_while_the_stream_is_quiet() {
    let record = Record { background: Some("committed"), ..Record::default() };
    assert_eq!(run_with(record, &[None, Some(1)]).await.1, "idle committed idle 1 ended");
}

#[tokio::test(start_paused = true)]
async fn an_item_can_end_the_run_with_a_code() {
    assert_eq!(run_with(Record::default(), &[Some(u8::MAX), Some(1)]).await, (7, "255".into()));
}

#[tokio::test(start_paused = true)]
async fn an_interruption_is_seen_between_two_ready_items() {
    let stop = CancellationToken::new();
    let endless = stream::iter(0..=u8::MAX).map(|item| {
        if item == 2 {
            stop.cancel();
        }
        item
    });
    let mut record = Record::default();
    assert_eq!(run(&mut record, endless, &stop).await.unwrap(), 130);
    assert_eq!(record.calls.join(" "), "0 1 interrupted");
}

#[tokio::test(start_paused = true)]
async fn an_interruption_is_seen_while_the_stream_is_quiet() {
    let stop = CancellationToken::new();
    let mut record = Record::default();
    let (code, ()) = tokio::join!(run(&mut record, stream::pending(), &stop), async { stop.cancel() });
    assert_eq!((code.unwrap(), record.calls.join(" ").as_str()), (130, "idle interrupted"));
}
