//! A page of any site can send requests to a server on the machine of its reader: only pages of the server, and those that
//! the operator named, are answered.

use crate::{
    harness::Server,
    http1::{ask, post, request},
};

const CALL: &str = "/grpc.health.v1.Health/Check";
const WEB: (&str, &str) = ("content-type", "application/grpc-web+proto");

#[tokio::test]
async fn a_request_for_another_host_is_refused_and_one_under_a_name_of_the_operator_is_not() {
    let server = Server::start_with(&["--web-host", "streams.example.com"]);
    for host in ["evil.example", "evil.example:50051", "localhost.evil.example"] {
        let (head, body) = ask(&server, post(CALL, &[WEB, ("host", host)], &[0; 5])).await;
        assert_eq!(head.status, 403, "{host}");
        assert!(body.contains("ACCESS_DENIED") && body.contains("--web-host"), "{body}");
        let (head, _) = ask(&server, request("GET", "/", &[("host", host)])).await;
        assert_eq!(head.status, 403, "{host}");
    }
    for host in ["streams.example.com", "localhost:1", "127.0.0.1", "[::1]"] {
        let (head, _) = ask(&server, post(CALL, &[WEB, ("host", host)], &[0; 5])).await;
        assert_eq!((head.status, head.header("content-type")), (200, "application/grpc-web+proto"), "{host}");
    }
    let twice = "GET / HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n";
    assert_eq!(ask(&server, twice).await.0.status, 400);
    assert_eq!(ask(&server, "GET / HTTP/1.1\r\n\r\n").await.0.status, 400);
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused_unless_the_operator_named_it() {
    let server = Server::start_with(&["--cors-origin", "https://app.example.com,http://localhost:3000"]);
    let host = ("host", "localhost:50051");
    for origin in ["https://evil.example", "null", "http://localhost:3001", "https://app.example.com:444"] {
        let (head, body) = ask(&server, post(CALL, &[WEB, host, ("origin", origin)], &[0; 5])).await;
        assert_eq!((head.status, head.header("access-control-allow-origin")), (403, ""), "{origin}");
        assert!(body.contains("--cors-origin"), "{body}");
        let asks = [host, ("origin", origin), ("access-control-request-method", "POST")];
        let (head, _) = ask(&server, request("OPTIONS", CALL, &asks)).await;
        assert_eq!((head.status, head.header("access-control-allow-origin")), (403, ""), "{origin}");
    }
    let other_site = [WEB, host, ("sec-fetch-site", "cross-site")];
    assert_eq!(ask(&server, post(CALL, &other_site, &[0; 5])).await.0.status, 403);
    let own = [WEB, host, ("origin", "http://localhost:50051")];
    let (head, _) = ask(&server, post(CALL, &own, &[0; 5])).await;
    assert_eq!((head.status, head.header("access-control-allow-origin")), (200, ""));
    for origin in ["https://app.example.com", "http://localhost:3000"] {
        let (head, _) = ask(&server, post(CALL, &[WEB, host, ("origin", origin)], &[0; 5])).await;
        assert_eq!((head.status, head.header("access-control-allow-origin")), (200, origin));
        assert!(head.header("access-control-expose-headers").contains("grpc-status-details-bin"));
        assert_eq!(head.header("vary"), "origin");
        let wanted = "content-type,x-grpc-web,authorization";
        let asks = [
            host,
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", wanted),
        ];
        let (head, _) = ask(&server, request("OPTIONS", CALL, &asks)).await;
        assert_eq!((head.status, head.header("access-control-allow-origin")), (204, origin));
        assert_eq!(head.header("access-control-allow-headers"), wanted);
        assert!(head.header("access-control-allow-methods").contains("POST"));
    }
}

#[tokio::test]
async fn answers_tell_browsers_not_to_guess_and_not_to_frame() {
    let server = Server::start();
    for ask_for in [request("GET", "/nothing", &[]), post(CALL, &[WEB], &[0; 5])] {
        let (head, _) = ask(&server, ask_for).await;
        assert_eq!(head.header("x-content-type-options"), "nosniff");
        assert_eq!(head.header("referrer-policy"), "no-referrer");
        assert!(head.header("content-security-policy").contains("frame-ancestors 'none'"));
        assert_eq!(head.header("cross-origin-resource-policy"), "same-origin");
    }
}

#[test]
fn a_setting_that_is_no_host_or_origin_is_refused_with_what_would_work() {
    for (flag, value, remedy) in [
        ("--cors-origin", "*", "https://app.example.com"),
        ("--cors-origin", "https://a/b", "https://app.example.com"),
        ("--web-host", "a:80", "streams.example.com"),
    ] {
        let directory = tempfile::TempDir::new().unwrap();
        std::fs::create_dir(directory.path().join("logs")).unwrap();
        let mut command = crate::harness::server_command(directory.path(), "127.0.0.1:0");
        let output = command.args([flag, value]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && stderr.contains(remedy) && stderr.contains(flag), "{stderr}");
    }
}
