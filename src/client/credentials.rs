//! What a client trusts, and what it shows to be trusted.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, ServerName},
};

use super::{Error, Token};
use crate::pem;

/// The one protocol: HTTP/2.
const ALPN: &[u8] = b"h2";

/// What a client trusts, and what it shows to be trusted. With the default it trusts the authorities of the system, and
/// shows nothing.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Trust only the authorities in this PEM file, instead of those of the system.
    pub ca: Option<PathBuf>,
    /// Show the certificate in this PEM file.
    pub certificate: Option<PathBuf>,
    /// The key of the certificate, in a PEM file on which only its owner has permissions; by default in the file of the
    /// certificate.
    pub key: Option<PathBuf>,
    /// The name that the certificate of the server must have, instead of the host in the address.
    pub server_name: Option<String>,
    /// Show this token with each call. It is sent by TLS, or without leaving this machine.
    pub token: Option<Token>,
}

impl Credentials {
    /// The credentials that the environment names: a token in PERENNIAL_TOKEN.
    pub fn from_env() -> Self {
        let token = std::env::var("PERENNIAL_TOKEN").ok().filter(|it| !it.is_empty()).map(Token::Text);
        Self { token, ..Self::default() }
    }

    /// The option of `perennial` that asks for TLS, if there is one.
    pub(super) fn option(&self) -> Option<&'static str> {
        let Self { ca, certificate, key, server_name, token: _ } = self;
        let options = [
            ("--ca", ca.is_some()),
            ("--cert", certificate.is_some()),
            ("--cert-key", key.is_some()),
            ("--server-name", server_name.is_some()),
        ];
        options.into_iter().find(|(_, is_given)| *is_given).map(|(option, _)| option)
    }
}

/// The configuration of TLS, from files that are read again for each connection.
#[derive(Debug)]
pub(super) struct Trust {
    credentials: Credentials,
    /// The authorities of the system, if there is no file with others.
    system: Option<Arc<RootCertStore>>,
    /// What was read last, in case a file is just being replaced.
    last: Mutex<Arc<ClientConfig>>,
    /// The name that the certificate of the server must have.
    pub(super) name: ServerName<'static>,
}

impl Trust {
    /// Reads the files. `host` is the host in the address.
    pub(super) fn open(credentials: Credentials, host: &str) -> Result<Self, Error> {
        let system = credentials.ca.is_none().then(system).transpose()?;
        let config = configure(&credentials, system.as_ref())?;
        let name = credentials.server_name.as_deref().unwrap_or_else(|| host.trim_matches(['[', ']']));
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| Error::Credentials(format!("{name:?} is not a name that a certificate can have")))?;
        Ok(Self { credentials, system, last: Mutex::new(config), name })
    }

    /// The configuration for a new connection.
    pub(super) fn config(&self) -> Arc<ClientConfig> {
        // Each change is one assignment, so a panic elsewhere leaves it whole.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(config) = configure(&self.credentials, self.system.as_ref()) {
            *last = config;
        }
        last.clone()
    }
}

fn system() -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let text =
            "the system has no authorities to trust: install ca-certificates, or give a file with --ca";
        return Err(Error::Credentials(text.into()));
    }
    Ok(Arc::new(roots))
}

fn configure(
    credentials: &Credentials,
    system: Option<&Arc<RootCertStore>>,
) -> Result<Arc<ClientConfig>, Error> {
    let refuse = |text: String| Error::Credentials(text);
    let file = |error: pem::Error| refuse(error.to_string());
    let Credentials { ca, certificate, key, .. } = credentials;
    let roots = match (ca, system) {
        (Some(path), _) => authorities(path).map_err(file)?,
        (None, system) => system.cloned().unwrap_or_else(|| RootCertStore::empty().into()),
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse(error.to_string()))?
        .with_root_certificates(roots);
    let mut config = match (certificate, key) {
        (Some(certificate), key) => {
            let key = key.as_ref().unwrap_or(certificate);
            let (chain, key_der) = identity(certificate, key).map_err(file)?;
            builder.with_client_auth_cert(chain, key_der).map_err(|error| {
                let fault = match error {
                    rustls::Error::InconsistentKeys(_) => {
                        "the key does not belong to the first certificate".into()
                    }
                    error => error.to_string(),
                };
                refuse(format!("{} and {}: {fault}", certificate.display(), key.display()))
            })?
        }
        (None, Some(_)) => return Err(refuse("--cert-key also needs --cert FILE".into())),
        (None, None) => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A connection lives long, and its certificates are read again for the next one.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn authorities(path: &Path) -> Result<Arc<RootCertStore>, pem::Error> {
    let mut roots = RootCertStore::empty();
    for authority in pem::certificates(path, &pem::read(path)?)? {
        roots.add(authority).map_err(|error| pem::Error {
            path: path.into(),
            fault: format!("an authority cannot be used: {error}"),
        })?;
    }
    Ok(Arc::new(roots))
}

type Identity = (Vec<CertificateDer<'static>>, rustls::pki_types::PrivateKeyDer<'static>);

fn identity(certificate: &Path, key: &Path) -> Result<Identity, pem::Error> {
    let chain = pem::certificates(certificate, &pem::read(certificate)?)?;
    Ok((chain, pem::private_key(key, &pem::read_private(key)?)?))
}
