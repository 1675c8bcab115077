//! The end comes while the disk is full.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use perennial::proto::{CountdownState, PublishRequest, publish_request};
use tonic::Code;

use crate::{
    calls::{
        Verb, announced, assert_refused, change, create, get, is, list, messages, refusal, running_for, text,
    },
    harness::{Server, mount::Mount, soon, until, within},
};

const COUNT: usize = 20;

/// How long it may take until the countdowns end.
const LIMIT: Duration = Duration::from_secs(120);

#[tokio::test]
#[ignore = "mounts a tmpfs: needs root"]
async fn a_full_disk_refuses_countdowns_and_those_that_end_meanwhile_are_published_once_there_is_room() {
    // On a busy machine it takes longer to fill the disk before the first ones end.
    let mut full = None;
    for millis in [10_000, 60_000] {
        full = fill(millis).await;
        if full.is_some() {
            break;
        }
    }
    let Full { mount: _mount, ballast, mut server, filled } = full.expect("the disk is full before the end");
    let client = server.countdown().await;

    // The moment has come, and nothing can be done about it yet.
    let over = async || match change(&client, &name(0), Verb::Pause).await {
        Err(status) => refusal(&status).1 == "COUNTDOWN_OVER",
        Ok(countdown) => panic!("{countdown:?}"),
    };
    within(LIMIT, "the moment", async {
        while !over().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert!(is(&get(&client, &name(0)).await.unwrap(), CountdownState::Running));
    assert!(messages(&server, "over").await.is_empty());
    server.wait_for_log("cannot record the end of countdowns; trying again");

    std::fs::remove_file(ballast).unwrap();
    check(&server, filled).await;
    server.kill();
    server.restart();
    check(&server, filled).await;
}

/// A server on a full disk, with countdowns that have not ended.
struct Full {
    mount: Mount,
    ballast: PathBuf,
    server: Server,
    /// How many more countdowns there was room for.
    filled: usize,
}

/// Makes countdowns that end after `millis`, and fills the disk. `None` if that took longer.
async fn fill(millis: i64) -> Option<Full> {
    let began = Instant::now();
    let mount = Mount::new();
    let ballast = mount.ballast();
    let server = Server::start_in(mount.path());
    let client = server.countdown().await;
    for n in 0..COUNT {
        create(&client, announced(&name(n), millis, "over")).await.unwrap();
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
    assert_refused(&refused, Code::ResourceExhausted, "LOG_FULL");
    let refused = change(&client, "goes-on", Verb::Pause).await.unwrap_err();
    assert_refused(&refused, Code::ResourceExhausted, "LOG_FULL");
    (began.elapsed().as_millis() < millis.unsigned_abs().into()).then_some(Full {
        mount,
        ballast,
        server,
        filled,
    })
}

fn name(n: usize) -> String {
    format!("ends.{n}")
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
        assert_refused(&refused, Code::ResourceExhausted, "LOG_FULL");
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
