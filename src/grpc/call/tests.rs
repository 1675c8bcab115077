//! The wrapper over hand-made streams, in virtual time.

#![expect(clippy::unwrap_used, reason = "a test")]

use futures::{StreamExt, stream};
use prometheus_client::encoding::text::encode;
use tonic_types::StatusExt;

use super::*;

/// Drops are seen from outside.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Server {
    calls: Calls,
    shutdown: CancellationToken,
    registry: Registry,
}

impl Server {
    fn new(max_streams: usize) -> Self {
        let (mut registry, shutdown) = (Registry::default(), CancellationToken::new());
        let settings = Settings { max_streams, stall: Duration::from_secs(60) };
        let calls = Calls::new(settings, shutdown.clone(), &mut registry);
        Self { calls, shutdown, registry }
    }

    fn call(&self, timeout: Option<&'static str>) -> Result<Call, Status> {
        let mut request = Request::new(());
        if let Some(timeout) = timeout {
            request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
        }
        self.calls.begin("Test", &request, "a test")
    }

    /// An endless stream, an item a second.
    fn serve(&self, timeout: Option<&'static str>) -> (Responses<u32>, Arc<AtomicUsize>) {
        let dropped = Arc::new(AtomicUsize::new(0));
        let guard = Dropped(dropped.clone());
        let stream = stream::unfold((0, guard), |(n, guard)| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok(Served { response: n, items: 1, bytes: 8 }), (n + 1, guard)))
        });
        (self.call(timeout).unwrap().serve(stream), dropped)
    }

    fn metric(&self, start: &str) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text.lines().filter(|line| line.starts_with(start)).collect::<Vec<_>>().join("\n")
    }
}

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().unwrap().reason.clone()
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_at_its_deadline_and_is_dropped_there() {
    let server = Server::new(9);
    let (mut responses, dropped) = server.serve(Some("2500m"));
    assert_eq!(responses.next().await.unwrap().unwrap(), 0);
    assert_eq!(responses.next().await.unwrap().unwrap(), 1);
    let status = responses.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
    assert!(responses.next().await.is_none());
    drop(responses);
    assert_eq!(
        server.metric("streams_ended_total"),
        "streams_ended_total{method=\"Test\",code=\"DEADLINE_EXCEEDED\"} 1"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_is_cancelled_once_and_frees_its_place() {
    let server = Server::new(1);
    let (mut responses, dropped) = server.serve(None);
    responses.next().await.unwrap().unwrap();
    let status = server.call(None).unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "TOO_MANY_STREAMS"));
    assert!(status.get_error_details().retry_info().is_some());
    drop(responses);
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
    assert!(server.call(None).is_ok());
    let ended = server.metric("streams_ended_total");
    assert!(
        ended.contains("code=\"CANCELLED\"} 2") && ended.contains("code=\"RESOURCE_EXHAUSTED\"} 1"),
        "{ended}"
    );
    assert_eq!(server.metric("streams_open"), "streams_open{method=\"Test\"} 0");
    assert_eq!(server.metric("items_total"), "items_total{method=\"Test\"} 1");
}

#[tokio::test(start_paused = true)]
async fn a_draining_server_ends_streams_and_opens_none() {
    let server = Server::new(9);
    let (mut responses, dropped) = server.serve(None);
    responses.next().await.unwrap().unwrap();
    server.shutdown.cancel();
    let status = responses.next().await.unwrap().unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "DRAINING"));
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
    assert_eq!(server.call(None).unwrap_err().code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_is_ended_from_beside_and_one_that_waits_is_not() {
    let server = Server::new(9);
    let (mut stalled, dropped) = server.serve(None);
    stalled.next().await.unwrap().unwrap();
    let mut waiting = server.call(None).unwrap().serve(stream::pending::<Result<Served<u32>, Failure>>());
    assert!(futures::poll!(waiting.next()).is_pending());
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert_eq!(dropped.load(Ordering::Relaxed), 1, "its generator is freed though nobody polled");
    let status = stalled.next().await.unwrap().unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "STALLED"));
    assert!(stalled.next().await.is_none());
    assert!(futures::poll!(waiting.next()).is_pending());
}

#[tokio::test(start_paused = true)]
async fn opening_a_stream_takes_no_longer_than_the_deadline() {
    let server = Server::new(9);
    let call = server.call(Some("1S")).unwrap();
    let open = call.open(std::future::pending::<Result<(), Failure>>()).await;
    assert_eq!(open.unwrap_err().code(), Code::DeadlineExceeded);
}

#[test]
fn a_timeout_is_read_as_the_specification_has_it() {
    let read = |text: &'static str| {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", text.parse().unwrap());
        timeout(&metadata)
    };
    assert_eq!(read("1H"), Some(Duration::from_secs(3600)));
    assert_eq!(read("2M"), Some(Duration::from_secs(120)));
    assert_eq!(read("30S"), Some(Duration::from_secs(30)));
    assert_eq!(read("5u"), Some(Duration::from_micros(5)));
    assert_eq!(read("99999999n"), Some(Duration::from_nanos(99_999_999)));
    for wrong in ["", "S", "1", "-1S", "100000000S", "1s"] {
        assert_eq!(read(wrong), None, "{wrong:?}");
    }
}
