//! What is a call, by its headers.
#![expect(clippy::unwrap_used, reason = "a test")]

use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    access::Files,
    grpc::call::{Calls, Config, Peer},
};

fn request(headers: &[(&str, &str)]) -> http::Request<()> {
    let mut request = http::Request::post("/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

#[test]
fn a_call_is_a_post_with_the_content_type_of_grpc() {
    for kind in ["application/grpc", "application/grpc+proto", "application/grpc;x=y"] {
        assert_eq!(read_headers(&request(&[("content-type", kind)])).unwrap(), None);
    }
    for kind in ["application/grpc-web", "application/grp", "Application/grpc", ""] {
        let request = request(&[("content-type", kind)]);
        assert!(matches!(read_headers(&request), Err(NotACall::ContentType(_))), "{kind}");
    }
    assert!(matches!(read_headers(&request(&[])), Err(NotACall::ContentType(_))));
    let get = http::Request::get("/").header("content-type", "application/grpc").body(()).unwrap();
    assert!(matches!(read_headers(&get), Err(NotACall::Method(_))));
}

#[test]
fn a_timeout_is_read_or_malformed() {
    let with = |timeout| request(&[("content-type", "application/grpc"), ("grpc-timeout", timeout)]);
    assert_eq!(read_headers(&with("2S")).unwrap(), Some(Duration::from_secs(2)));
    assert!(matches!(read_headers(&with("2 S")), Err(NotACall::Timeout("2 S"))));
    let twice = |first, last| {
        request(&[("content-type", "application/grpc"), ("grpc-timeout", first), ("grpc-timeout", last)])
    };
    assert_eq!(read_headers(&twice("2S", "3S")).unwrap(), Some(Duration::from_secs(3)));
    assert!(matches!(read_headers(&twice("2S", "x")), Err(NotACall::Timeout("x"))));
    assert!(matches!(read_headers(&twice("x", "2S")), Err(NotACall::Timeout("x"))));
}

#[tokio::test]
async fn a_token_that_others_can_read_on_the_way_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let rules = directory.path().join("access.toml");
    std::fs::write(&rules, "[[rule]]\nwho = ['anyone']\nmay = ['administer']\n").unwrap();
    let access = Access::open(Files { rules, tokens: None }, Vec::new(), &mut Registry::default()).unwrap();
    let calls = Calls::new(Config::default(), CancellationToken::new(), &mut Registry::default());
    let peer = Peer::Address("192.0.2.1:1".parse().unwrap());
    let safe = calls.connection(1, peer, CancellationToken::new());
    let exposed = Connection { is_exposed: true, ..safe.clone() };
    let request = |token: Option<&str>| {
        let request = http::Request::post("/perennial.v1.MessageService/ListTopics");
        let header = token.map(|token| ("authorization", format!("Bearer {token}")));
        let request = match header {
            Some((name, value)) => request.header(name, value),
            None => request,
        };
        request.body(()).unwrap()
    };
    // It does not matter whether the token is a good one.
    let text = |connection: &Connection, token| {
        admit(&access, connection, &request(token))
            .map(drop)
            .map_err(|failure| Status::from(failure).message().to_owned())
    };
    let refused = text(&exposed, Some("perennial_0")).unwrap_err();
    assert!(refused.contains("plain text") && refused.contains("replace the token"), "{refused}");
    assert_eq!(text(&exposed, None), Ok(()));
    assert!(!text(&safe, Some("perennial_0")).unwrap_err().contains("plain text"));
}
