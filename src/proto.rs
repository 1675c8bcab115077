//! What `proto/perennial/v1` compiles to: messages, clients, servers, and the descriptors for reflection.

#![allow(clippy::pedantic, clippy::indexing_slicing, missing_docs, reason = "generated from proto/")]

tonic::include_proto!("perennial.v1");
#[cfg(feature = "server")]
include!(concat!(env!("OUT_DIR"), "/perennial.v1.CountdownService.rs"));
#[cfg(feature = "server")]
include!(concat!(env!("OUT_DIR"), "/perennial.v1.LineService.rs"));
#[cfg(feature = "server")]
include!(concat!(env!("OUT_DIR"), "/perennial.v1.MessageService.rs"));

/// The descriptors of the package and all it imports, encoded, with source comments.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/perennial.v1.bin"));
