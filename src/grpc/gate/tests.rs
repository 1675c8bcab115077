//! What is a call, by its headers.
#![expect(clippy::unwrap_used, reason = "a test")]

use super::*;

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
