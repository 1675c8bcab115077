#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use tonic::{Code, Request, Response, Status, body::Body};
use tonic_prost::ProstCodec;

use super::*;
use crate::client::test_server;

type Asked = Arc<Mutex<Vec<CreateCountdownRequest>>>;

/// Answers the first `faults` calls with `fault`, and the others with success.
async fn serve(fault: Status, faults: usize) -> (Client, Asked) {
    let asked = Asked::default();
    let all = asked.clone();
    let service = tower::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (fault, asked) = (fault.clone(), all.clone());
        async move {
            let create = tower::service_fn(move |request: Request<CreateCountdownRequest>| {
                let mut asked = asked.lock().unwrap();
                asked.push(request.into_inner());
                let is_fault = asked.len() <= faults;
                let answer = CreateCountdownResponse { already_existed: true, ..Default::default() };
                std::future::ready(if is_fault { Err(fault.clone()) } else { Ok(Response::new(answer)) })
            });
            let codec = ProstCodec::<CreateCountdownResponse, CreateCountdownRequest>::default();
            let answer = tonic::server::Grpc::new(codec).unary(create, request).await;
            Ok::<http::Response<Body>, Infallible>(answer)
        }
    });
    (test_server::serve(service).await, asked)
}

fn named(name: &str) -> CreateCountdownRequest {
    CreateCountdownRequest { name: name.into(), ..CreateCountdownRequest::default() }
}

#[tokio::test]
async fn a_creation_whose_answer_was_lost_is_repeated_under_one_id() {
    let (client, asked) = serve(Status::unavailable("lost"), 2).await;
    assert!(client.create_countdown(named("launch")).await.unwrap().already_existed);
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|it| it == &asked[0] && it.request_id.as_ref().unwrap().len() >= 32));
}

#[tokio::test]
async fn a_creation_keeps_the_id_that_it_was_given() {
    let (client, asked) = serve(Status::unavailable("lost"), 1).await;
    let request = CreateCountdownRequest { request_id: Some("own".into()), ..named("launch") };
    client.create_countdown(request.clone()).await.unwrap();
    assert_eq!(*asked.lock().unwrap(), [request.clone(), request]);
}

#[tokio::test]
async fn a_creation_that_is_refused_is_not_repeated() {
    let (client, asked) = serve(Status::already_exists("taken"), 1).await;
    assert_eq!(client.create_countdown(named("launch")).await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_creation_without_a_server_fails_at_once() {
    let client = Client::new("127.0.0.1:1").unwrap().with_connect_timeout(std::time::Duration::ZERO);
    let error = client.create_countdown(named("launch")).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_change_can_be_made_by_a_task() {
    let client = Client::new("127.0.0.1:1").unwrap();
    let change = tokio::spawn(async move { client.pause_countdown("launch", None).await });
    assert!(matches!(change.await.unwrap(), Err(Error::Unreachable { .. })));
}

#[tokio::test]
async fn a_response_without_a_countdown_is_an_error_and_no_countdown_of_defaults() {
    let (client, _) = serve(Status::unavailable("unused"), 0).await;
    let error = client.pause_countdown("launch", None).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }) && !error.is_retryable(), "{error:?}");
}
