//! The calls by grpcurl, which knows only what reflection reports.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::Server;

const SERVICE: &str = "perennial.v1.CountdownService";

/// The objects that a call returns, or the text of grpcurl if it fails.
fn call(server: &Server, method: &str, request: &Value) -> Result<Vec<Value>, String> {
    let output = Command::new("grpcurl")
        .args(["-plaintext", "-max-time", "20", "-d", &request.to_string()])
        .args([server.address().to_string(), format!("{SERVICE}/{method}")])
        .stdin(Stdio::null())
        .output()
        .expect("grpcurl is there");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(serde_json::Deserializer::from_slice(&output.stdout).into_iter().map(Result::unwrap).collect())
}

fn one(server: &Server, method: &str, request: &Value) -> Value {
    let mut answers = call(server, method, request).unwrap_or_else(|error| panic!("{method}: {error}"));
    assert_eq!(answers.len(), 1, "{answers:?}");
    answers.remove(0)
}

#[test]
#[ignore = "needs grpcurl"]
fn a_countdown_is_created_watched_changed_and_listed_with_grpcurl() {
    let server = Server::start();
    let on_end = json!({"topic": "over", "text": "it is over", "headers": {"a": "b"}});
    let request = json!({"name": "launch", "start": 20, "interval": "0.2s", "onEnd": on_end});
    let made = one(&server, "CreateCountdown", &request);
    assert_eq!(made["countdown"]["state"], "COUNTDOWN_STATE_RUNNING");
    assert_eq!((&made["countdown"]["to"], &made["countdown"]["totalDuration"]), (&json!(0), &json!("4s")));

    let responses = call(&server, "Countdown", &json!({"name": "launch", "onLag": "ON_LAG_BURST"})).unwrap();
    assert_eq!(responses[0]["countdown"]["name"], "launch");
    let ticks = |response: &Value| response["ticks"].as_array().cloned().unwrap_or_default();
    let numbers = responses.iter().flat_map(ticks).map(|tick| tick["remaining"].as_i64().unwrap());
    let numbers = numbers.collect::<Vec<_>>();
    assert!(numbers.last() == Some(&0) && numbers.is_sorted_by(|a, b| a == &(b + 1)), "{numbers:?}");
    let last = responses.last().unwrap();
    assert_eq!(last["events"][0]["changed"]["change"], "COUNTDOWN_CHANGE_ENDED");
    assert_eq!(last["countdown"]["state"], "COUNTDOWN_STATE_ENDED");
    let again = one(&server, "Countdown", &json!({"name": "launch", "cursor": last["cursor"]}));
    assert!(again["ticks"].is_null() && again["events"].is_null(), "{again}");

    one(&server, "CreateCountdown", &json!({"name": "second", "duration": "3600s"}));
    let paused = one(&server, "PauseCountdown", &json!({"name": "second"}));
    assert_eq!(paused["countdown"]["state"], "COUNTDOWN_STATE_PAUSED");
    let said = call(&server, "ResumeCountdown", &json!({"name": "second", "version": 1})).unwrap_err();
    assert!(said.contains("Aborted") && said.contains("VERSION_MISMATCH"), "{said}");
    let page = one(&server, "ListCountdowns", &json!({"pageSize": 1}));
    let next = one(&server, "ListCountdowns", &json!({"pageToken": page["nextPageToken"]}));
    assert_eq!(
        (&page["countdowns"][0]["name"], &next["countdowns"][0]["name"]),
        (&json!("launch"), &json!("second"))
    );
    one(&server, "DeleteCountdown", &json!({"name": "second"}));
    let said = call(&server, "GetCountdown", &json!({"name": "second"})).unwrap_err();
    assert!(said.contains("NotFound") && said.contains("COUNTDOWN_NOT_FOUND"), "{said}");
}
