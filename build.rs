//! Compiles `proto/` in pure Rust, so that protoc need not be installed.
//!
//! tonic-prost-build generates messages and clients. The services are described here by hand, because the responses of
//! the streams are encoded by [`wire`](src/wire.rs) before they reach tonic, and need a codec of their own.

#[path = "src/web/embed.rs"]
mod page;

use std::{env, path::PathBuf};

use prost_types::FileDescriptorSet;
use tonic_build::manual::{Builder, Method, Service};

const FILES: [&str; 5] = [
    "perennial/v1/countdown.proto",
    "perennial/v1/errors.proto",
    "perennial/v1/gap.proto",
    "perennial/v1/lines.proto",
    "perennial/v1/messages.proto",
];

const PROST: &str = "tonic_prost::ProstCodec";
const ENCODED: &str = "crate::grpc::codec::EncodedCodec";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    page::embed(&out)?;

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    std::fs::write(out.join("perennial.v1.bin"), compiler.encode_file_descriptor_set())?;

    // Reflection needs the imports. prost-types has the code of Duration and Timestamp.
    let files: FileDescriptorSet = compiler.file_descriptor_set();
    tonic_prost_build::configure().build_server(false).build_transport(false).compile_fds(files)?;

    Builder::new().build_client(false).build_transport(false).compile(&services());
    Ok(())
}

fn services() -> [Service; 3] {
    let countdown = Service::builder()
        .name("CountdownService")
        .package("perennial.v1")
        .method(encoded("countdown", "Countdown", "CountdownRequest").build());
    let countdown = ["create", "pause", "resume", "extend", "cancel", "get", "delete"]
        .into_iter()
        .fold(countdown, |service, verb| service.method(on_countdown(verb).build()));
    let countdown = countdown.method(
        method("list_countdowns", "ListCountdowns", "ListCountdownsRequest", "ListCountdownsResponse", PROST)
            .build(),
    );
    let lines = Service::builder()
        .name("LineService")
        .package("perennial.v1")
        .method(encoded("read_lines", "ReadLines", "ReadLinesRequest").build())
        .method(encoded("watch_files", "WatchFiles", "WatchFilesRequest").build())
        .method(method("list_files", "ListFiles", "ListFilesRequest", "ListFilesResponse", PROST).build());
    let messages = Service::builder()
        .name("MessageService")
        .package("perennial.v1")
        .method(encoded("messages", "Messages", "MessagesRequest").build())
        .method(method("publish", "Publish", "PublishRequest", "PublishResponse", PROST).build())
        .method(
            method("publish_batch", "PublishBatch", "PublishBatchRequest", "PublishBatchResponse", PROST)
                .build(),
        )
        .method(
            method("publish_stream", "PublishStream", "PublishStreamRequest", "PublishStreamResponse", PROST)
                .client_streaming()
                .server_streaming()
                .build(),
        )
        .method(method("list_topics", "ListTopics", "ListTopicsRequest", "ListTopicsResponse", PROST).build())
        .method(method("purge_topic", "PurgeTopic", "PurgeTopicRequest", "PurgeTopicResponse", PROST).build())
        .method(
            method("commit_cursor", "CommitCursor", "CommitCursorRequest", "CommitCursorResponse", PROST)
                .build(),
        )
        .method(
            method("set_consumer", "SetConsumer", "SetConsumerRequest", "SetConsumerResponse", PROST).build(),
        )
        .method(
            method("list_consumers", "ListConsumers", "ListConsumersRequest", "ListConsumersResponse", PROST)
                .build(),
        )
        .method(
            method(
                "delete_consumer",
                "DeleteConsumer",
                "DeleteConsumerRequest",
                "DeleteConsumerResponse",
                PROST,
            )
            .build(),
        );
    [countdown.build(), lines.build(), messages.build()]
}

fn method(
    name: &str,
    route: &str,
    input: &str,
    output: &str,
    codec: &str,
) -> tonic_build::manual::MethodBuilder {
    Method::builder()
        .name(name)
        .route_name(route)
        .input_type(format!("crate::proto::{input}"))
        .output_type(format!("crate::proto::{output}"))
        .codec_path(codec)
}

/// A unary method that reads or changes one shared countdown.
fn on_countdown(verb: &str) -> tonic_build::manual::MethodBuilder {
    let (first, rest) = verb.split_at(1);
    let route = format!("{}{rest}Countdown", first.to_uppercase());
    let (name, input, output) =
        (format!("{verb}_countdown"), format!("{route}Request"), format!("{route}Response"));
    method(&name, &route, &input, &output, PROST)
}

/// A server-streaming method whose responses are already encoded.
fn encoded(name: &str, route: &str, input: &str) -> tonic_build::manual::MethodBuilder {
    Method::builder()
        .name(name)
        .route_name(route)
        .input_type(format!("crate::proto::{input}"))
        .output_type("crate::grpc::codec::Encoded")
        .codec_path(ENCODED)
        .server_streaming()
}
