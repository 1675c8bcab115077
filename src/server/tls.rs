//! TLS: the certificate, the key, and the authorities of clients, from files that are read again when they change.
//!
//! A [`Set`] of files is used as a whole or not at all. A new set that cannot be used leaves the old one in use, and is
//! reported in the log and in the metrics. A new set changes nothing for connections that are open, unless they have a
//! client certificate that it no longer accepts ([`Client::refused`]).

use std::{path::PathBuf, sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use rustls::{
    CertificateError, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, UnixTime},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};

use super::accept::protocol::ALPN;
use crate::{
    access::Identity,
    pem::{self, Validity},
    watched::{Watched, mark},
};
use metrics::Metrics;

pub mod handshake;
mod metrics;
mod reload;

/// The settings of the files.
const SETTINGS: [&str; 4] = ["--tls-cert", "--tls-key", "--tls-client-ca", "--tls-crl"];

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ClientAuth {
    /// A client without a certificate is refused.
    #[default]
    Required,
    /// A client may have none. One that it shows must be accepted.
    Optional,
}

/// The files of a server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Files {
    /// The certificate of the server, and then those that link it to an authority.
    pub certificate: PathBuf,
    /// The key of the certificate. Only the owner may have permissions on the file.
    pub key: PathBuf,
    /// The authorities of client certificates, if clients may have some.
    pub client_ca: Option<PathBuf>,
    /// Whether clients must have a certificate.
    pub client_auth: ClientAuth,
    /// The lists of revoked client certificates.
    pub revoked: Option<PathBuf>,
}

/// Why a set of files cannot be used. The message is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] pem::Error),
    /// The certificate and the key do not belong together, or cannot be used.
    #[error("{} and {}: {fault}", certificate.display(), key.display())]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// The fault, and what would work.
        fault: String,
    },
    /// The certificate, or a list of revoked ones, is not valid now.
    #[error("{}: {fault}", path.display())]
    NotValid {
        /// The file.
        path: PathBuf,
        /// The fault.
        fault: String,
    },
}

impl Error {
    /// The setting of the file.
    fn setting(&self, files: &Files) -> &'static str {
        let [certificate, key, authorities, revoked] = SETTINGS;
        match self {
            Self::File(pem::Error { path, .. }) | Self::NotValid { path, .. } => match path {
                path if *path == files.key => key,
                path if Some(path) == files.client_ca.as_ref() => authorities,
                path if Some(path) == files.revoked.as_ref() => revoked,
                _ => certificate,
            },
            Self::Pair { .. } => certificate,
        }
    }
}

/// The contents of the files.
#[derive(Hash)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
    revoked: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &Files) -> Result<Self, pem::Error> {
        Ok(Self {
            certificate: pem::read(&files.certificate)?,
            key: pem::read_private(&files.key)?,
            client_ca: files.client_ca.as_deref().map(pem::read).transpose()?,
            revoked: files.revoked.as_deref().map(pem::read).transpose()?,
        })
    }
}

/// A mark of the content of each file.
#[derive(Debug)]
struct Marks([u64; 4]);

impl Marks {
    fn of(Contents { certificate, key, client_ca, revoked }: &Contents) -> Self {
        Self([mark(certificate), mark(key), mark(client_ca), mark(revoked)])
    }

    /// The settings whose files are others than before.
    fn changed(&self, before: &Self) -> String {
        let pairs = SETTINGS.into_iter().zip(self.0.iter().zip(&before.0));
        let changed = pairs.filter(|(_, (now, before))| now != before).map(|(setting, _)| setting);
        changed.collect::<Vec<_>>().join(", ")
    }
}

/// Files that can be used.
#[derive(Debug)]
pub struct Set {
    marks: Marks,
    config: Arc<ServerConfig>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    validity: Validity,
    /// When the first of the lists of revoked certificates must have been replaced.
    next_update: Option<i64>,
}

impl Set {
    fn new(files: &Files, contents: &Contents) -> Result<Self, Error> {
        let chain = pem::certificates(&files.certificate, &contents.certificate)?;
        let key = pem::private_key(&files.key, &contents.key)?;
        let validity = validity(files, &chain)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let (verifier, next_update) = match (&files.client_ca, &contents.client_ca) {
            (Some(path), Some(content)) => {
                let authorities = pem::certificates(path, content)?;
                let (verifier, next_update) = verifier(files, contents, authorities, &provider)?;
                (Some(verifier), next_update)
            }
            _ => (None, None),
        };
        let pair = |error: &dyn std::fmt::Display| Error::Pair {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            fault: error.to_string(),
        };
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| pair(&error))?;
        let builder = match &verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => pair(&"the key does not belong to the first certificate"),
            error => pair(&error),
        })?;
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        // A session that is resumed is not checked again for revocation. Connections live long, and resuming one saves
        // little.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { marks: Marks::of(contents), config: Arc::new(config), verifier, validity, next_update })
    }

    /// Why the certificate cannot be used at this time, in Unix seconds.
    fn not_valid(&self, files: &Files, now: i64) -> Option<Error> {
        let Validity { not_before, not_after } = self.validity;
        let time =
            |seconds| jiff::Timestamp::from_second(seconds).map_or_else(|_| "?".into(), |it| it.to_string());
        let fault = if now > not_after {
            format!("the certificate expired at {}", time(not_after))
        } else if now < not_before {
            format!("the certificate is valid only from {} on: is the clock right?", time(not_before))
        } else if let (Some(path), Some(next)) =
            (&files.revoked, self.next_update.filter(|next| now >= *next))
        {
            let fault = format!("the list expired at {}: get the next one from its authority", time(next));
            return Some(Error::NotValid { path: path.clone(), fault });
        } else {
            return None;
        };
        Some(Error::NotValid { path: files.certificate.clone(), fault })
    }

    /// Whether a client with this chain is accepted now.
    fn verify(&self, chain: &[CertificateDer<'static>]) -> Result<(), rustls::Error> {
        let (Some(verifier), Some((own, others))) = (&self.verifier, chain.split_first()) else {
            return Ok(());
        };
        verifier.verify_client_cert(own, others, UnixTime::now()).map(drop)
    }
}

/// When the certificate of the server is valid. The others of its chain do not count: a client finds the way that it needs,
/// and chains in use have had certificates that were over.
fn validity(files: &Files, chain: &[CertificateDer<'_>]) -> Result<Validity, Error> {
    chain.first().and_then(pem::validity).ok_or_else(|| {
        let fault = "the first certificate cannot be decoded".into();
        pem::Error { path: files.certificate.clone(), fault }.into()
    })
}

/// Verifies clients, and when the first list of revoked certificates must have been replaced.
fn verifier(
    files: &Files,
    contents: &Contents,
    authorities: Vec<CertificateDer<'static>>,
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> Result<(Arc<dyn ClientCertVerifier>, Option<i64>), Error> {
    let path = files.client_ca.clone().unwrap_or_default();
    let fault = |path: &PathBuf, fault: String| Error::File(pem::Error { path: path.clone(), fault });
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots
            .add(authority)
            .map_err(|error| fault(&path, format!("an authority cannot be used: {error}")))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    if files.client_auth == ClientAuth::Optional {
        builder = builder.allow_unauthenticated();
    }
    let mut next_update = None;
    let mut path = path;
    if let (Some(list), Some(content)) = (&files.revoked, &contents.revoked) {
        let lists = pem::revocation_lists(list, content)?;
        next_update = lists.iter().filter_map(pem::next_update).min();
        // A list that should have been replaced may lack what was revoked since.
        builder = builder.with_crls(lists).enforce_revocation_expiration();
        path.clone_from(list);
    }
    let verifier = builder.build().map_err(|error| fault(&path, error.to_string()))?;
    Ok((verifier, next_update))
}

/// Every fault of the files, with its setting, also that the certificate is not valid now.
pub fn faults(files: &Files) -> Vec<(&'static str, Error)> {
    let Files { certificate, key, client_ca, revoked, .. } = files;
    let read = |path: &PathBuf| pem::read(path);
    let certificates = |path: &PathBuf| read(path).and_then(|it| pem::certificates(path, &it)).err();
    let of_key = || pem::read_private(key).and_then(|it| pem::private_key(key, &it)).err();
    let of_lists = |path: &PathBuf| read(path).and_then(|it| pem::revocation_lists(path, &it)).err();
    let [of_certificate, of_key_file, of_authorities, of_revoked] = SETTINGS;
    let each = [
        (of_certificate, certificates(certificate)),
        (of_key_file, of_key()),
        (of_authorities, client_ca.as_ref().and_then(certificates)),
        (of_revoked, revoked.as_ref().and_then(of_lists)),
    ];
    let found = each.into_iter().filter_map(|(setting, error)| Some((setting, error?.into())));
    let found = found.collect::<Vec<_>>();
    if !found.is_empty() {
        return found;
    }
    // Each file can be read, but they may not belong together.
    let set = Contents::read(files).map_err(Error::from).and_then(|contents| Set::new(files, &contents));
    let fault = match set {
        Ok(set) => set.not_valid(files, pem::now()),
        Err(error) => Some(error),
    };
    fault.map(|error| (error.setting(files), error)).into_iter().collect()
}

/// The set in use, and its successors.
#[derive(Debug)]
pub struct Tls {
    files: Files,
    current: watch::Sender<Arc<Set>>,
    /// Of the one task that follows the files, also after a panic.
    watched: Mutex<Watched>,
    metrics: Metrics,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be used. A certificate that is not valid now is only logged: the clock may be wrong.
    pub fn open(files: Files, registry: &mut Registry) -> Result<Arc<Self>, Error> {
        let contents = Contents::read(&files);
        let watched = Watched::new(mark(&contents)).into();
        let set = Set::new(&files, &contents?)?;
        if let Some(error) = set.not_valid(&files, pem::now()) {
            tracing::error!(%error, "connections by TLS will fail");
        }
        let metrics = Metrics::new(registry, set.next_update.is_some());
        metrics.in_use(&set);
        Ok(Arc::new(Self { files, current: watch::Sender::new(Arc::new(set)), watched, metrics }))
    }

    /// Whether every client has a certificate.
    pub fn requires_certificates(&self) -> bool {
        self.files.client_ca.is_some() && self.files.client_auth == ClientAuth::Required
    }
}

/// The certificate of a client.
#[derive(Debug)]
pub struct Client {
    chain: Vec<CertificateDer<'static>>,
    /// The set by which it was accepted, and those that follow.
    sets: watch::Receiver<Arc<Set>>,
    tls: Arc<Tls>,
}

impl Client {
    /// When its certificate expires.
    pub fn expires(&self) -> Option<Instant> {
        // The others of the chain are those that the client happens to send.
        let left = pem::validity(self.chain.first()?)?.not_after.saturating_sub(pem::now());
        // Until the end of the last second.
        let left = Duration::from_secs(u64::try_from(left).map_or(0, |left| left.saturating_add(1)));
        Instant::now().checked_add(left)
    }

    /// As whom rules know it.
    pub fn identities(&self) -> Arc<[Identity]> {
        let names = self.chain.first().map(pem::names).unwrap_or_default();
        names.into_iter().map(|(kind, value)| Identity::certificate(kind, &value)).collect()
    }

    /// Ends when a new set does not accept the certificate.
    pub async fn refused(&mut self) -> rustls::Error {
        while self.sets.changed().await.is_ok() {
            let set = self.sets.borrow_and_update().clone();
            if let Err(error) = set.verify(&self.chain) {
                self.tls.metrics.ended(&error);
                return error;
            }
        }
        // The server ends.
        std::future::pending().await
    }

    /// Counts a connection that ended with its certificate.
    pub fn has_expired(&self) {
        self.tls.metrics.ended(&CertificateError::Expired.into());
    }
}

#[cfg(test)]
mod tests;
