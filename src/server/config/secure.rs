//! The settings of TLS, which need each other, and the refusal of plain text where others can listen.

use std::path::PathBuf;

use super::{Config, Error, settings::Settings};
use crate::{
    access,
    server::{
        accept,
        listen::{Listen, SOCKET_MODE},
        tls::Files,
    },
};

/// The files of TLS, if there are any. Each is from the flags, or else from the file.
pub fn files(given: &Settings, file: &Settings) -> Result<Option<Files>, Error> {
    macro_rules! pick {
        ($field:ident) => {
            given.$field.clone().or_else(|| file.$field.clone())
        };
    }
    let (certificate, key) = (pick!(tls_cert), pick!(tls_key));
    let (client_ca, client_auth, revoked) = (pick!(tls_client_ca), pick!(tls_client_auth), pick!(tls_crl));
    let needs = |name: &str, needed: &str| Err(Error::Needs { name: name.into(), needed: needed.into() });
    match (&certificate, &key) {
        (Some(_), None) => return needs("--tls-cert", "--tls-key FILE"),
        (None, Some(_)) => return needs("--tls-key", "--tls-cert FILE"),
        (None, None) if client_ca.is_some() => {
            return needs("--tls-client-ca", "--tls-cert FILE and --tls-key FILE");
        }
        _ if client_ca.is_some() => {}
        _ if client_auth.is_some() => return needs("--tls-client-auth", "--tls-client-ca FILE"),
        _ if revoked.is_some() => return needs("--tls-crl", "--tls-client-ca FILE"),
        _ => {}
    }
    let client_auth = client_auth.map(|it| it.0).unwrap_or_default();
    let files = certificate.zip(key);
    Ok(files.map(|(certificate, key)| Files { certificate, key, client_ca, client_auth, revoked }))
}

/// The files that say who may do what, if there are any.
pub fn access(given: &Settings, file: &Settings, tokens: Option<PathBuf>) -> Option<access::Files> {
    let rules = given.access.clone().or_else(|| file.access.clone());
    rules.map(|rules| access::Files { rules, tokens })
}

/// Refuses settings that would have no effect, because they are about something that the server does not do. Their
/// defaults are accepted: `config print` writes them.
pub fn check_effects(config: &Config) -> Result<(), Error> {
    let needs = |name: &str, needed: &str| Err(Error::Needs { name: name.into(), needed: needed.into() });
    let has_path = config.listen.iter().any(|listen| matches!(listen, Listen::Path(_)));
    if config.socket_mode != SOCKET_MODE && !has_path {
        return needs("--socket-mode", "--listen unix:PATH");
    }
    let default = accept::Config::default().handshake;
    if config.connections.handshake != default && config.tls.is_none() {
        return needs("--handshake", "--tls-cert FILE and --tls-key FILE");
    }
    Ok(())
}

/// Refuses plain text on an address that others can reach.
pub fn check(config: &Config) -> Result<(), Error> {
    let refuse = |listen: &Listen, remedy: &str| {
        Err(Error::Value { name: "--listen".into(), value: listen.to_string(), remedy: remedy.into() })
    };
    let has_address = config.listen.iter().any(|listen| matches!(listen, Listen::Address(_)));
    if let (Some(_), Some(path), false) = (&config.tls, config.listen.first(), has_address) {
        return refuse(
            path,
            "a socket in the file system has no TLS, and needs none: leave out --tls-cert, or listen on IP:PORT, too",
        );
    }
    let exposed = config.listen.iter().find(|listen| !listen.is_local());
    match exposed {
        Some(listen) if config.tls.is_none() && !config.insecure => refuse(
            listen,
            "others can reach this address, and could read and change what is sent: give --tls-cert FILE and \
             --tls-key FILE, or listen on 127.0.0.1 or unix:PATH, or allow plain text with --insecure",
        ),
        _ => Ok(()),
    }
}
