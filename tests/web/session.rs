//! Signing in with a token, and the rights of what browsers do.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use crate::{
    harness::Server,
    http1::{ask, post, request},
};

const RULES: &str = r#"
[[rule]]
who = ["token:alice"]
may = ["subscribe", "publish"]
topics = ["open.>"]
"#;

const JSON: (&str, &str) = ("content-type", "application/json");

/// A server with rules, and a token of alice.
fn guarded() -> (Server, String, tempfile::TempDir) {
    let directory = tempfile::TempDir::new().unwrap();
    let (rules, tokens) = (directory.path().join("access.toml"), directory.path().join("tokens.toml"));
    fs::write(&rules, RULES).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_perenniald"));
    let output = command.arg("token").arg("--tokens").arg(&tokens).args(["new", "alice"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::set_permissions(&tokens, fs::Permissions::from_mode(0o600)).unwrap();
    let token = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let files = ["--access", rules.to_str().unwrap(), "--tokens", tokens.to_str().unwrap()];
    (Server::start_with(&files), token, directory)
}

#[tokio::test]
async fn a_page_signs_in_with_a_token_and_has_its_rights_until_it_signs_out() {
    let (server, token, _directory) = guarded();
    let publish = |headers: &[(&str, &str)]| post("/v1/messages/open.a", headers, br#"{"text": "x"}"#);
    let (head, body) = ask(&server, publish(&[JSON])).await;
    assert_eq!((head.status, head.header("www-authenticate")), (401, "Bearer"), "{body}");
    assert!(body.contains("CREDENTIALS_MISSING"), "{body}");
    let sign_in = format!("{{\"token\": \"{token}\"}}");
    let (head, body) = ask(&server, post("/v1/session", &[JSON], sign_in.as_bytes())).await;
    assert_eq!((head.status, body.as_str()), (204, ""));
    let cookie = head.header("set-cookie");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && cookie.contains("Path=/"));
    assert!(!cookie.contains("Secure"), "a browser would not take it without TLS");
    let cookie = cookie.split(';').next().unwrap();
    let (head, body) = ask(&server, publish(&[JSON, ("cookie", cookie)])).await;
    assert_eq!(head.status, 200, "{body}");
    let events = "/v1/messages?topic=open.a&earliest&until_caught_up";
    let (head, body) = ask(&server, request("GET", events, &[("cookie", &format!("a=b; {cookie}"))])).await;
    assert!(head.status == 200 && body.contains("\"text\":\"x\""), "{body}");
    // A right that alice does not have.
    let (head, body) = ask(&server, post("/v1/messages/closed", &[JSON, ("cookie", cookie)], b"{}")).await;
    assert!(head.status == 403 && body.contains("ACCESS_DENIED"), "{body}");
    let bearer = format!("Bearer {token}");
    assert_eq!(ask(&server, publish(&[JSON, ("authorization", &bearer)])).await.0.status, 200);
    let (head, _) = ask(&server, request("DELETE", "/v1/session", &[])).await;
    assert!(head.status == 204 && head.header("set-cookie").contains("Max-Age=0"), "{head:?}");
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_no_credential_is_in_an_error_or_in_the_log() {
    let (mut server, token, _directory) = guarded();
    for (headers, body, status, reason) in [
        (&[JSON][..], "{\"token\": \"hunter2\"}".to_owned(), 401, "CREDENTIALS_INVALID"),
        (&[JSON], "{\"token\": \"a;b hunter2\"}".into(), 400, "INVALID_FIELD"),
        (&[JSON], "{\"hunter2\": 1}".into(), 400, "INVALID_FIELD"),
        (&[("content-type", "text/plain")], format!("{{\"token\": \"{token}\"}}"), 415, "REQUEST_MALFORMED"),
        (
            &[JSON, ("origin", "https://evil.example")],
            format!("{{\"token\": \"{token}\"}}"),
            403,
            "ACCESS_DENIED",
        ),
    ] {
        let (head, answer) = ask(&server, post("/v1/session", headers, body.as_bytes())).await;
        assert!(head.status == status && answer.contains(reason), "{body}: {answer}");
        assert_eq!(head.header("set-cookie"), "");
        assert!(!answer.contains("hunter2") && !answer.contains(&token), "{answer}");
    }
    let in_url = format!("/v1/messages?topic=open.a&token={token}");
    let (head, answer) = ask(&server, request("GET", &in_url, &[])).await;
    assert!(head.status == 400 && !answer.contains(&token), "{answer}");
    let (head, _) = ask(&server, request("GET", "/v1/session", &[])).await;
    assert_eq!((head.status, head.header("allow")), (405, "POST, DELETE"));
    server.terminate();
    assert!(server.wait().success());
    let log = server.rest_of_log().join("\n");
    assert!(!log.contains("hunter2") && !log.contains(&token), "{log}");
}

#[tokio::test]
async fn a_server_without_rules_has_nothing_to_sign_in_to() {
    let server = Server::start();
    let (head, body) = ask(&server, post("/v1/session", &[JSON], b"{\"token\": \"x\"}")).await;
    assert!(head.status == 400 && body.contains("--access"), "{body}");
}
