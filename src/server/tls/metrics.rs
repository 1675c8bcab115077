//! The metrics of TLS: when the certificate expires, whether new files were refused, and which handshakes failed.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{Set, handshake};

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Reason {
    reason: &'static str,
}

/// The metrics.
#[derive(Debug)]
pub struct Metrics {
    expiry: Gauge,
    next_update: Gauge,
    is_refused: Gauge,
    reloads: Family<Outcome, Counter>,
    refused: Family<Reason, Counter>,
    ended: Family<Reason, Counter>,
}

impl Metrics {
    /// Registers the metrics.
    pub fn new(registry: &mut Registry, has_revoked: bool) -> Self {
        let metrics = Self {
            expiry: Gauge::default(),
            next_update: Gauge::default(),
            is_refused: Gauge::default(),
            reloads: Family::default(),
            refused: Family::default(),
            ended: Family::default(),
        };
        let Self { expiry, next_update, is_refused, reloads, refused, ended } = &metrics;
        let help = "When the certificate in use expires, in Unix seconds";
        registry.register("tls_certificate_expiry_timestamp_seconds", help, expiry.clone());
        if has_revoked {
            let help =
                "When the list of revoked client certificates must have been replaced, in Unix seconds";
            registry.register("tls_crl_expiry_timestamp_seconds", help, next_update.clone());
        }
        let help = "1 while the files of TLS cannot be used and those before are in use";
        registry.register("tls_files_refused", help, is_refused.clone());
        registry.register("tls_reloads", "New files of TLS, by outcome", reloads.clone());
        registry.register(
            "tls_handshakes_refused",
            "Connections that failed before TLS, by reason",
            refused.clone(),
        );
        let help = "Connections ended because their client certificate expired or was no longer accepted";
        registry.register("tls_connections_ended", help, ended.clone());
        metrics
    }

    /// A set is in use.
    pub fn in_use(&self, set: &Set) {
        self.expiry.set(set.validity.not_after);
        self.next_update.set(set.next_update.unwrap_or_default());
    }

    /// New files were read.
    pub fn reloaded(&self, is_used: bool) {
        let outcome = if is_used { "used" } else { "refused" };
        self.reloads.get_or_create(&Outcome { outcome }).inc();
        self.is_refused.set(i64::from(!is_used));
    }

    /// A connection was refused.
    pub fn refused(&self, refusal: &handshake::Refusal) {
        self.refused.get_or_create(&Reason { reason: refusal.reason() }).inc();
    }

    /// A connection ended because of its certificate.
    pub fn ended(&self, error: &rustls::Error) {
        self.ended.get_or_create(&Reason { reason: handshake::reason(error) }).inc();
    }
}
