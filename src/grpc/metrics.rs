//! The counters of calls, for Prometheus.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::status::Failure;
use crate::proto::ErrorReason;

/// The label of a counter by method.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Method {
    method: &'static str,
}

/// The labels of a counter by method and status code.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Ending {
    method: &'static str,
    code: &'static str,
}

/// The labels of messages that were not published.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Refusal {
    method: &'static str,
    reason: &'static str,
}

/// The label of calls that no service saw.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct TurnedAway {
    reason: &'static str,
}

/// The labels of streams that ended otherwise than they were asked to.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct Ended {
    method: &'static str,
    reason: &'static str,
}

/// The label of connections that were refused.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct RefusedBy {
    limit: &'static str,
}

/// The counters. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    open: Family<Method, Gauge>,
    ended: Family<Ending, Counter>,
    items: Family<Method, Counter>,
    bytes: Family<Method, Counter>,
    calls: Family<Ending, Counter>,
    refusals: Family<Refusal, Counter>,
    turned_away: Family<TurnedAway, Counter>,
    connections_refused: Family<RefusedBy, Counter>,
    lateness: Histogram,
    errors: Family<Ended, Counter>,
    gaps: Family<Ended, Counter>,
    ticks_skipped: Counter,
}

/// The counters of a stream, looked up once for all its responses.
#[derive(Clone, Debug)]
pub struct Sent {
    items: Counter,
    bytes: Counter,
}

impl Sent {
    /// Items were sent.
    pub fn add(&self, items: usize, bytes: usize) {
        self.items.inc_by(items as u64);
        self.bytes.inc_by(bytes as u64);
    }
}

/// The buckets of lateness in seconds, from 0.1 ms to 1 s.
const LATENESS_BUCKETS: [f64; 9] = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0];

impl Metrics {
    /// Registers the counters.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            open: Family::default(),
            ended: Family::default(),
            items: Family::default(),
            bytes: Family::default(),
            calls: Family::default(),
            refusals: Family::default(),
            turned_away: Family::default(),
            connections_refused: Family::default(),
            lateness: Histogram::new(LATENESS_BUCKETS),
            errors: Family::default(),
            gaps: Family::default(),
            ticks_skipped: Counter::default(),
        };
        let Self { open, ended, items, bytes, calls, refusals, turned_away, connections_refused, .. } =
            &metrics;
        let Self { lateness, errors, gaps, ticks_skipped, .. } = &metrics;
        registry.register("streams_open", "Streams that are open", open.clone());
        registry.register("streams_ended", "Streams that have ended, by status code", ended.clone());
        let help = "Ticks, lines and messages sent, and messages published and acknowledged";
        registry.register("items", help, items.clone());
        let help = "Bytes of ticks, lines, messages and results sent by streams";
        registry.register("bytes", help, bytes.clone());
        registry.register("calls", "Unary calls answered, by status code", calls.clone());
        let help = "Messages that were not published, by the reason of the error";
        registry.register("refusals", help, refusals.clone());
        let help = "Calls refused before their method was called, and answers for which there was no room, by reason";
        registry.register("calls_refused", help, turned_away.clone());
        let help = "Connections closed at once, by the limit that they would exceed";
        registry.register("connections_refused", help, connections_refused.clone());
        let help = "How long after its first tick was due a response left, in seconds";
        registry.register("countdown_lateness_seconds", help, lateness.clone());
        let help = "Streams that the server ended, by the reason of the error";
        registry.register("stream_errors", help, errors.clone());
        let help = "Gaps reported to readers: items that they will never get, by reason";
        registry.register("gaps", help, gaps.clone());
        registry.register("ticks_skipped", "Ticks skipped for readers that were late", ticks_skipped.clone());
        metrics
    }

    /// A stream was opened.
    pub fn opened(&self, method: &'static str) {
        self.open.get_or_create(&Method { method }).inc();
    }

    /// A stream has ended. `error`: the reason, unless it ended as it was asked to, or with its client.
    pub fn ended(&self, method: &'static str, code: &'static str, error: Option<&'static str>) {
        self.open.get_or_create(&Method { method }).dec();
        if let Some(reason) = error {
            self.errors.get_or_create(&Ended { method, reason }).inc();
        }
        self.ended.get_or_create(&Ending { method, code }).inc();
    }

    /// The counters of a stream.
    pub fn sent(&self, method: &'static str) -> Sent {
        let of = |family: &Family<Method, Counter>| family.get_or_create(&Method { method }).clone();
        Sent { items: of(&self.items), bytes: of(&self.bytes) }
    }

    /// A unary call was answered.
    pub fn answered(&self, method: &'static str, code: &'static str) {
        self.calls.get_or_create(&Ending { method, code }).inc();
    }

    /// A unary call published all of its messages, or none because of `failure`.
    pub fn published(&self, method: &'static str, messages: usize, failure: Option<&Failure>) {
        match failure {
            Some(failure) => self.refused(method, failure.reason(), messages),
            None => drop(self.items.get_or_create(&Method { method }).inc_by(messages as u64)),
        }
    }

    /// Messages were not published.
    pub fn refused(&self, method: &'static str, reason: ErrorReason, messages: usize) {
        let reason = reason.as_str_name();
        self.refusals.get_or_create(&Refusal { method, reason }).inc_by(messages as u64);
    }

    /// A call was refused before its method was called, or its answer afterwards.
    pub fn turned_away(&self, reason: &'static str) {
        self.turned_away.get_or_create(&TurnedAway { reason }).inc();
    }

    /// A connection was closed at once, because of this limit.
    pub fn connection_refused(&self, limit: &'static str) {
        self.connections_refused.get_or_create(&RefusedBy { limit }).inc();
    }

    /// A gap was reported to a reader.
    pub fn gap(&self, method: &'static str, reason: &'static str) {
        self.gaps.get_or_create(&Ended { method, reason }).inc();
    }

    /// Ticks were skipped because their reader was late.
    pub fn skipped(&self, ticks: u64) {
        self.ticks_skipped.inc_by(ticks);
    }

    /// Ticks left, and the first of them was this late.
    pub fn ticked(&self, late: Duration) {
        self.lateness.observe(late.as_secs_f64());
    }
}
