//! The end comes while the disk is full.

use perennial::proto::{CountdownState, PublishRequest, publish_request};
use tonic::Code;

use crate::{
    calls::{Verb, announced, assert_told, change, create, get, is, list, messages, running_for, text, told},
    harness::{Server, mount::Mount, soon, until},
};

const COUNT: usize = 20;

/// In milliseconds.
const SOON: i64 = 10_000;

#[tokio::test]
#[ignore = "mounts a tmpfs: needs root"]
async fn a_full_disk_refuses_countdowns_and_those_that_end_meanwhile_are_published_once_there_is_room() {
    let mount = Mount::new();
    let ballast = mount.ballast();
    let mut server = Server::start_in(mount.path());
    let client = server.countdown().await;
    let name = |n: usize| format!("ends.{n}");
    for n in 0..COUNT {
        create(&client, announced(&name(n), SOON, "over")).await.unwrap();
    }
    create(&client, running_for("goes-on", 3_600_000)).await.unwrap();
    mount.fill();
    fill_log(&server).await;
    let mut filled = 0;
    let refused = loop {
        match create(&client, running_for(&format!("fills.{filled}"), 3_600_000)).await {
            Ok(_) => filled += 1,
            Err(status) => break status,
        }
    };
    assert_told(&refused, Code::ResourceExhausted, "LOG_FULL");
    let refused = change(&client, "goes-on", Verb::Pause).await.unwrap_err();
    assert_told(&refused, Code::ResourceExhausted, "LOG_FULL");

    // The moment has come, and nothing can be done about it yet.
    let over = async || match change(&client, &name(0), Verb::Pause).await {
        Err(status) => told(&status).1 == "COUNTDOWN_OVER",
        Ok(countdown) => panic!("{countdown:?}"),
    };
    until("the moment", over).await;
    assert!(is(&get(&client, &name(0)).await.unwrap(), CountdownState::Running));
    assert!(messages(&server, "over").await.is_empty());
    server.wait_for_log("ends of countdowns cannot be recorded yet");

    std::fs::remove_file(ballast).unwrap();
    check(&server, filled).await;
    server.kill();
    server.restart();
    check(&server, filled).await;
}

/// Takes what the log has taken ahead: by ever smaller messages, as long as one fits.
async fn fill_log(server: &Server) {
    let mut client = server.messages().await;
    for bytes in [512 * 1024, 64 * 1024, 8 * 1024, 1024] {
        let content = Some(publish_request::Content::Text("x".repeat(bytes)));
        let request = PublishRequest { topic: "fills".into(), content, ..Default::default() };
        let refused = loop {
            if let Err(status) = soon("an answer", Box::pin(client.publish(request.clone()))).await {
                break status;
            }
        };
        assert_told(&refused, Code::ResourceExhausted, "LOG_FULL");
    }
}

/// All that were to end have ended and were published once, and nothing else has changed.
async fn check(server: &Server, filled: usize) {
    let client = server.countdown().await;
    let all = async || list(&client).await;
    let have_ended = |name: &str| name.starts_with("ends.");
    until("all ends", async || {
        all().await.values().all(|it| is(it, CountdownState::Ended) == have_ended(&it.name))
    })
    .await;
    assert_eq!(all().await.len(), COUNT + 1 + filled);
    let published = messages(server, "over").await;
    let mut names = published.iter().map(text).collect::<Vec<_>>();
    names.sort_unstable();
    names.dedup();
    assert_eq!((published.len(), names.len()), (COUNT, COUNT));
}
