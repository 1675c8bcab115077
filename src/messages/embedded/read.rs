//! Reading: subscriptions, the batches that they read, and consumers.

pub mod all_topics;
pub mod batch;
pub mod consumers;
pub mod fetch;
pub mod find;
pub mod set_consumer;
pub mod snapshot;
pub mod start;
pub mod subscription;
