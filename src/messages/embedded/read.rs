//! Reading: subscriptions, the batches that they read, notification, and consumers.

pub mod batch;
pub mod consumers;
pub mod fetch;
pub mod notifier;
pub mod set_consumer;
pub mod subscription;
