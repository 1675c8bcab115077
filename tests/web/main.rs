//! Browsers and plain HTTP on the port of gRPC: HTTP/1.1, gRPC-Web, and whom the server listens to.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first surprise"
)]

#[path = "../harness/mod.rs"]
mod harness;

mod grpc_web;
mod http1;
mod origins;
mod rest;
mod session;
