//! Where the cluster is, as the operator names it: `nats://HOST:PORT,HOST:PORT/NAMESPACE`.

use std::{fmt, path::PathBuf, str::FromStr};

/// The namespace of an address that names none.
const NAMESPACE: &str = "perennial";

/// The longest namespace, in bytes: with a topic it is a subject.
const MAX_NAMESPACE_BYTES: usize = 32;

/// The schemes of an address.
const SCHEMES: [&str; 2] = ["nats", "tls"];

/// The servers of a cluster, and the namespace there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Address {
    scheme: &'static str,
    hosts: Vec<String>,
    namespace: String,
}

/// How the server proves to the cluster that it may use it, and how it checks the cluster. All are files, so that no secret
/// is in a setting.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Credentials {
    /// A file of credentials of NATS, as `nsc` writes it.
    pub credentials: Option<PathBuf>,
    /// The authorities of the servers' certificates, in a PEM file, instead of those of the system.
    pub authorities: Option<PathBuf>,
}

/// A namespace of a cluster, and how to get there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Servers {
    /// Where it is.
    pub address: Address,
    /// How to be let in.
    pub credentials: Credentials,
}

/// Why a text is not an address. No variant has the text: it may hold a password.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AddressError {
    /// Another scheme, or none.
    #[error("it must begin with nats:// or tls://, as in nats://10.0.0.1:4222,10.0.0.2:4222")]
    Scheme,
    /// A user or a password.
    #[error("it holds a user or a password, which others can see: name a file with --messages-credentials")]
    Secret,
    /// No server, or an empty one.
    #[error("it names no server between two commas, or none at all: write HOST:PORT,HOST:PORT")]
    NoHost,
    /// A character that is not allowed.
    #[error("it contains {0:?}, which no name of a server has")]
    Host(char),
    /// A namespace that is not a name.
    #[error("its namespace must have 1 to {MAX_NAMESPACE_BYTES} characters of A-Z, a-z, 0-9, `_` and `-`")]
    Namespace,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once("://").ok_or(AddressError::Scheme)?;
        let scheme = SCHEMES.into_iter().find(|known| *known == scheme).ok_or(AddressError::Scheme)?;
        if rest.contains('@') {
            return Err(AddressError::Secret);
        }
        let (hosts, namespace) = match rest.split_once('/') {
            Some((hosts, "")) => (hosts, NAMESPACE),
            Some((hosts, namespace)) => (hosts, namespace),
            None => (rest, NAMESPACE),
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if namespace.len() > MAX_NAMESPACE_BYTES || !namespace.chars().all(is_plain) {
            return Err(AddressError::Namespace);
        }
        let hosts = hosts.split(',').map(str::to_owned).collect::<Vec<_>>();
        if hosts.iter().any(String::is_empty) {
            return Err(AddressError::NoHost);
        }
        let is_of_host = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
        match hosts.iter().flat_map(|host| host.chars()).find(|c| !is_of_host(*c)) {
            Some(character) => Err(AddressError::Host(character)),
            None => Ok(Self { scheme, hosts, namespace: namespace.into() }),
        }
    }
}

impl Address {
    /// The URL of each server.
    pub fn urls(&self) -> Vec<String> {
        self.hosts.iter().map(|host| format!("{}://{host}", self.scheme)).collect()
    }

    /// The name of the stream, and the first token of the subjects of topics.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}/{}", self.scheme, self.hosts.join(","), self.namespace)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_servers_and_a_namespace() {
        for (text, urls, namespace) in [
            ("nats://a", &["nats://a"][..], "perennial"),
            ("nats://a:4222,b:4223/orders", &["nats://a:4222", "nats://b:4223"], "orders"),
            ("tls://[::1]:4222,b/", &["tls://[::1]:4222", "tls://b"], "perennial"),
        ] {
            let address = text.parse::<Address>().unwrap();
            assert_eq!(address.urls(), urls);
            assert_eq!(address.namespace(), namespace);
            assert_eq!(address.to_string().parse(), Ok(address));
        }
    }

    #[test]
    fn an_address_that_cannot_be_used_is_refused_without_repeating_a_secret() {
        for (text, error) in [
            ("a:4222", AddressError::Scheme),
            ("http://a", AddressError::Scheme),
            ("nats://user:secret@a", AddressError::Secret),
            ("nats://a,user:secret@b", AddressError::Secret),
            ("nats://", AddressError::NoHost),
            ("nats://a,,b", AddressError::NoHost),
            ("nats://a b", AddressError::Host(' ')),
            ("nats://a/x.y", AddressError::Namespace),
            ("nats://a/x/y", AddressError::Namespace),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text}");
            assert!(!error.to_string().contains("secret"));
        }
    }
}
