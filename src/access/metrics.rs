//! The metrics of access: what is in use, whether new files were refused, and which credentials and calls were.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{Policy, Refused, Verb, quota::Quota};

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Of {
    verb: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct By {
    quota: &'static str,
}

/// The metrics.
#[derive(Debug)]
pub struct Metrics {
    rules: Gauge,
    tokens: Gauge,
    is_refused: Gauge,
    reloads: Family<Outcome, Counter>,
    refused: Family<Reason, Counter>,
    denied: Family<Of, Counter>,
    exceeded: Family<By, Counter>,
}

impl Metrics {
    /// Registers the metrics.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            rules: Gauge::default(),
            tokens: Gauge::default(),
            is_refused: Gauge::default(),
            reloads: Family::default(),
            refused: Family::default(),
            denied: Family::default(),
            exceeded: Family::default(),
        };
        let Self { rules, tokens, is_refused, reloads, refused, denied, exceeded } = &metrics;
        registry.register("access_rules", "Rules in use", rules.clone());
        registry.register("access_tokens", "Tokens in use that are not revoked", tokens.clone());
        let help = "1 while the files of access cannot be used and those before are in use";
        registry.register("access_files_refused", help, is_refused.clone());
        registry.register("access_reloads", "New files of access, by outcome", reloads.clone());
        registry.register("access_credentials_refused", "Credentials refused, by reason", refused.clone());
        registry.register("access_denied", "Calls and messages denied, by verb", denied.clone());
        let help = "Calls and messages refused because a quota of their caller was used up";
        registry.register("access_quotas_exceeded", help, exceeded.clone());
        metrics
    }

    /// A quota was used up.
    pub fn exceeded(&self, quota: Quota) {
        self.exceeded.get_or_create(&By { quota: quota.key() }).inc();
    }

    /// A policy is in use.
    pub fn in_use(&self, policy: &Policy) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.rules.set(number(policy.rules.count()));
        self.tokens.set(number(policy.tokens.count()));
    }

    /// New files were read.
    pub fn reloaded(&self, is_used: bool) {
        let outcome = if is_used { "used" } else { "refused" };
        self.reloads.get_or_create(&Outcome { outcome }).inc();
        self.is_refused.set(i64::from(!is_used));
    }

    /// Credentials were refused.
    pub fn refused(&self, refused: Refused) {
        let reason = match refused {
            Refused::Malformed => "MALFORMED",
            Refused::Unknown => "UNKNOWN",
            Refused::Expired => "EXPIRED",
            Refused::Revoked => "REVOKED",
            Refused::PlainText => "PLAIN_TEXT",
            Refused::Jwt(_) => "JWT",
        };
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    /// A call, or a message of one, was denied.
    pub fn denied(&self, verb: Verb) {
        self.denied.get_or_create(&Of { verb: verb.name() }).inc();
    }
}
