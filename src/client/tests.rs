#![expect(clippy::unwrap_used, reason = "a test")]

use tokio::sync::Notify;
use tonic::body::Body;

use super::*;
use crate::proto::{CreateCountdownRequest, PublishRequest};

#[tokio::test]
async fn a_list_has_the_items_of_all_pages_in_order() {
    let pages = [("", vec![1, 2], "b"), ("b", vec![], "c"), ("c", vec![3], "")];
    let mut left = pages.iter();
    let client = Client::new("127.0.0.1:1").unwrap();
    let all = all_pages(&client, |token| {
        let (expected, items, next) = left.next().unwrap();
        assert_eq!(token, *expected);
        std::future::ready(Ok((items.clone(), (*next).to_owned())))
    });
    assert_eq!(all.await.unwrap(), [1, 2, 3]);
    assert_eq!(left.len(), 0);
}

#[tokio::test]
async fn a_list_can_be_requested_by_a_task() {
    let client = Client::new("127.0.0.1:1").unwrap().with_connect_timeout(Duration::ZERO);
    let lists = tokio::spawn(async move {
        let files = client.list_files("").await.unwrap_err();
        let topics = client.list_topics("").await.unwrap_err();
        let consumers = client.list_consumers().await.unwrap_err();
        [files, topics, consumers, client.list_countdowns().await.unwrap_err()]
    });
    for error in lists.await.unwrap() {
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    }
}

/// What a call returns whose server accepts it and never answers.
async fn unanswered<T, F>(call: impl FnOnce(Client) -> F) -> Error
where
    T: std::fmt::Debug + Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    let arrived = Arc::new(Notify::new());
    let heard = arrived.clone();
    let client = test_server::serve(tower::service_fn(move |_| {
        heard.notify_one();
        std::future::pending::<Result<http::Response<Body>, std::convert::Infallible>>()
    }))
    .await;
    let call = tokio::spawn(call(client));
    arrived.notified().await;
    // From here on, time passes at once whenever every task waits.
    tokio::time::pause();
    call.await.unwrap().unwrap_err()
}

#[tokio::test]
async fn a_call_that_is_not_answered_fails_after_a_while() {
    let error = unanswered(|client| async move { client.publish(PublishRequest::default()).await }).await;
    assert!(matches!(error, Error::Silent { waited: UNARY_LIMIT }), "{error:?}");
}

#[tokio::test]
async fn the_answer_of_a_purge_is_awaited_longer_than_that_of_other_calls() {
    let error = unanswered(|client| async move { client.purge_topic("a", None).await }).await;
    assert!(matches!(error, Error::Silent { waited } if waited > 10 * UNARY_LIMIT), "{error:?}");
}

#[tokio::test]
async fn a_creation_is_not_repeated_if_the_server_never_answered() {
    let create =
        |client: Client| async move { client.create_countdown(CreateCountdownRequest::default()).await };
    let error = unanswered(create).await;
    assert!(matches!(error, Error::Silent { waited: UNARY_LIMIT }), "{error:?}");
}
