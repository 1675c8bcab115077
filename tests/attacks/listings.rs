//! Listings: a page ends at 1 MiB, and its token continues.

use std::fs::File;

use perennial::proto::{ListFilesRequest, ListTopicsRequest, PublishBatchRequest, PublishRequest};
use prost::Message;

use crate::harness::Server;

/// Up to this many bytes of items, and the token.
const PAGE_BYTES: usize = 1024 * 1024 + 1024;

#[tokio::test]
async fn a_page_of_topics_ends_at_a_mebibyte_and_its_token_continues() {
    const TOPICS: usize = 9_000;
    let server = Server::start();
    let mut client = server.messages().await;
    let message = |n| PublishRequest { topic: format!("{}.{n:05}", "t".repeat(200)), ..Default::default() };
    let messages = (0..TOPICS).map(message).collect();
    client.publish_batch(PublishBatchRequest { messages }).await.unwrap();
    let (mut names, mut pages, mut page_token) = (Vec::new(), 0, String::new());
    loop {
        let request = ListTopicsRequest { page_size: Some(10_000), page_token, ..Default::default() };
        let page = client.list_topics(request).await.unwrap().into_inner();
        assert!(page.encoded_len() <= PAGE_BYTES, "{} bytes", page.encoded_len());
        assert!(!page.topics.is_empty());
        names.extend(page.topics.into_iter().map(|topic| topic.name));
        pages += 1;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert!(pages > 1);
    assert!(names.len() == TOPICS && names.is_sorted(), "{} topics", names.len());
}

#[tokio::test]
async fn a_page_of_files_ends_at_a_mebibyte_and_its_token_continues() {
    const FILES: usize = 5_000;
    let server = Server::start();
    for n in 0..FILES {
        File::create(server.log_file(&format!("{}{n:05}.log", "f".repeat(240)))).unwrap();
    }
    let mut client = server.lines().await;
    let (mut paths, mut pages, mut page_token) = (Vec::new(), 0, String::new());
    loop {
        let request = ListFilesRequest { page_size: Some(10_000), page_token, ..Default::default() };
        let page = client.list_files(request).await.unwrap().into_inner();
        assert!(page.encoded_len() <= PAGE_BYTES, "{} bytes", page.encoded_len());
        paths.extend(page.files.into_iter().map(|file| file.path));
        pages += 1;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert!(pages > 1);
    assert!(paths.len() == FILES && paths.is_sorted(), "{} files", paths.len());
}
