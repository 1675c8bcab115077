//! A full disk is healed from inside: on real file systems, without a byte or without a file to spare.

use std::{fs, io::Write, path::Path};

use perennial::proto::{PurgeTopicRequest, message_service_client::MessageServiceClient};
use tonic::{Code, transport::Channel};
use tonic_types::StatusExt;

use crate::{
    harness::{PATIENCE, Server, mount::Mount, soon, until, within},
    text,
};

const SECRET: &str = "secret-payload";

/// Longer than the documented bound of an erasure.
const BOUND: std::time::Duration = std::time::Duration::from_secs(120);

async fn publish(client: &mut MessageServiceClient<Channel>, topic: &str, content: &str) -> Result<(), Code> {
    let answer = soon("an answer", Box::pin(client.publish(text(topic, content)))).await;
    answer.map(|_| ()).map_err(|status| {
        assert_eq!(status.get_error_details().error_info().unwrap().reason, "LOG_FULL", "{status:?}");
        assert!(status.get_error_details().error_info().unwrap().metadata.contains_key("needed_bytes"));
        status.code()
    })
}

/// Publishes to two topics in turn until the disk is full.
async fn fill(client: &mut MessageServiceClient<Channel>) -> usize {
    for n in 0..10_000 {
        let content = format!("{SECRET} {n} {}", "x".repeat(60_000));
        let refused = publish(client, "a", &content).await.is_err();
        if refused || publish(client, "kept", &format!("kept {n}")).await.is_err() {
            return n;
        }
    }
    panic!("the disk does not get full");
}

async fn purge(client: &mut MessageServiceClient<Channel>, topic: &str) -> i64 {
    let request = PurgeTopicRequest { topic: topic.into(), ..Default::default() };
    let purged = within(BOUND, "an answer", client.purge_topic(request)).await.unwrap();
    purged.into_inner().message_count.unwrap()
}

/// Whether a file of a directory has the bytes of a text.
fn has(directory: &Path, text: &str) -> bool {
    let mut files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.any(|path| match fs::read(&path) {
        Ok(bytes) => memchr::memmem::find(&bytes, text.as_bytes()).is_some(),
        // A segment that was compacted meanwhile.
        Err(_) => false,
    })
}

async fn heal(mount: &Mount, take_the_rest: impl Fn(&Mount)) {
    let mut server = Server::start_in(mount.path());
    let messages = server.directory().join("data/messages");
    let mut client = server.messages().await;
    let mut count = fill(&mut client).await;
    take_the_rest(mount);
    let health = || server.client(&["health", "perennial.v1.MessageService"]).output().unwrap();
    // A piece of work in the background may give room back after a refusal, and health says so again.
    until("health says that the log is full", async || {
        count += fill(&mut client).await;
        !health().status.success()
    })
    .await;
    assert!(purge(&mut client, "a").await >= i64::try_from(count).unwrap());
    let limit = std::time::Instant::now() + BOUND;
    while has(&messages, SECRET) || publish(&mut client, "b", &"b".repeat(1000)).await.is_err() {
        assert!(std::time::Instant::now() < limit, "payloads are there: {}", has(&messages, SECRET));
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    for _ in 0..100 {
        publish(&mut client, "b", &"b".repeat(1000)).await.unwrap();
    }
    until("health", async || health().status.success()).await;
    for restarted in [false, true] {
        if restarted {
            server.kill();
            server.restart();
        }
        let arguments = ["messages", "kept", "--from", "earliest", "--until-caught-up"];
        let kept = server.client(&arguments).output().unwrap();
        assert!(kept.status.success(), "{kept:?}");
        assert_eq!(String::from_utf8_lossy(&kept.stdout).lines().count(), count, "restarted: {restarted}");
        assert!(!has(&messages, SECRET));
    }
}

#[tokio::test]
#[ignore = "mounts a tmpfs: needs root"]
async fn a_full_disk_is_healed_by_a_purge_without_a_byte_to_spare() {
    heal(&Mount::in_memory("size=100m"), Mount::fill).await;
}

#[tokio::test]
#[ignore = "mounts a tmpfs: needs root"]
async fn a_full_disk_is_healed_by_a_purge_without_a_file_to_spare() {
    heal(&Mount::in_memory("size=100m,nr_inodes=100"), |mount| {
        mount.fill();
        mount.fill_files();
    })
    .await;
}

#[tokio::test]
#[ignore = "mounts an ext4: needs root"]
async fn a_full_disk_of_ext4_is_healed_by_a_purge() {
    heal(&Mount::of_kind("ext4", "120M"), Mount::fill).await;
}

#[tokio::test]
#[ignore = "mounts a tmpfs: needs root"]
async fn a_full_disk_with_a_torn_tail_does_not_keep_the_server_from_starting() {
    let mount = Mount::in_memory("size=100m");
    let mut server = Server::start_in(mount.path());
    let messages = server.directory().join("data/messages");
    let mut client = server.messages().await;
    for n in 0..10 {
        publish(&mut client, "kept", &n.to_string()).await.unwrap();
    }
    server.kill();
    let segment = messages.join("00000000000000000001.log");
    let bytes = fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let mut file = fs::File::options().write(true).open(&segment).unwrap();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(end as u64 + 1)).unwrap();
    file.write_all(&vec![b'P'; 2_000_000]).unwrap();
    // No spare file is large enough, and there is no room for another one.
    mount.fill();
    server.restart();
    let arguments = ["messages", "kept", "--from", "earliest", "--until-caught-up"];
    let kept = server.client(&arguments).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&kept.stdout).lines().count(), 10, "{kept:?}");
    client = server.messages().await;
    assert_eq!(publish(&mut client, "kept", "11").await, Err(Code::ResourceExhausted));
    fs::remove_file(mount.path().join("rest")).unwrap();
    within(PATIENCE, "room", async {
        while publish(&mut client, "kept", "11").await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
    .await;
    let mut files = fs::read_dir(&messages).unwrap().map(|entry| entry.unwrap().path());
    let torn = files.find(|path| path.to_str().unwrap().contains(".torn-")).unwrap();
    assert!(fs::read(torn).unwrap().ends_with(&[b'P'; 1000]));
}
