//! The address of a server as it may be written: `https://HOST[:PORT]`, `http://HOST[:PORT]`, `HOST[:PORT]` or
//! `unix:PATH`.
//!
//! Any other form is refused with the reason and with a form that works, so that no caller believes in an encrypted or
//! authenticated connection that is neither.

use std::{
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
};

use super::Error;

/// The port where none is given: the server's own default.
pub const DEFAULT_PORT: u16 = 50051;

/// The longest name in the DNS.
const MAX_HOST_BYTES: usize = 253;

/// The server's own default.
pub(super) const EXAMPLE: &str = "http://127.0.0.1:50051";

/// The scheme of a socket in the file system.
const UNIX: &str = "unix:";

/// The longest path of such a socket.
const MAX_PATH_BYTES: usize = 107;

/// An address, and how it is reached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Address {
    /// The URL of a server over TCP, with its port.
    Url(Scheme, String),
    /// The path of a socket in the file system.
    Unix(PathBuf),
}

impl Address {
    /// The address in errors.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Url(_, url) => url.clone(),
            Self::Unix(path) => format!("{UNIX}{}", path.display()),
        }
    }

    /// Refuses to send a token where others can read it.
    pub(super) fn check_private(&self) -> Result<(), Error> {
        let Self::Url(Scheme::Http, url) = self else { return Ok(()) };
        let host = url.trim_start_matches("http://").rsplit_once(':').map_or("", |(host, _)| host);
        if is_this_machine(host) {
            return Ok(());
        }
        Err(Error::Url {
            url: url.clone(),
            reason: "the token would be sent in plain text, and others could use it".into(),
            hint: url.replacen("http", "https", 1),
        })
    }

    /// The URL that the requests name.
    pub(super) fn origin(&self) -> String {
        match self {
            Self::Url(_, url) => url.clone(),
            Self::Unix(_) => "http://localhost".into(),
        }
    }
}

/// How a connection over TCP is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// As a URL has it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Http, Self::Https].into_iter().find(|scheme| name.eq_ignore_ascii_case(scheme.name()))
    }
}

/// Reads an address. `credentials` is the option of a client that has some for TLS: then the address is of TLS if it does
/// not say so.
pub(super) fn read(address: &str, credentials: Option<&str>) -> Result<Address, Error> {
    let refuse = |Fault { reason, hint }| Error::Url { url: without_credentials(address), reason, hint };
    if let Some(path) = address.strip_prefix(UNIX) {
        return unix(path, credentials).map(Address::Unix).map_err(refuse);
    }
    let (scheme, authority) = authority(address).map_err(refuse)?;
    let (host, port) = host_and_port(authority).map_err(|reason| refuse(reason.into()))?;
    let url = |scheme: Scheme| format!("{}://{host}:{port}", scheme.name());
    match (scheme, credentials) {
        (Some(Scheme::Http), Some(option)) => {
            let reason = format!("{option} is for TLS, and the connection would be plain text");
            Err(refuse(Fault::new(reason, url(Scheme::Https))))
        }
        (Some(scheme), _) => Ok(Address::Url(scheme, url(scheme))),
        (None, Some(_)) => Ok(Address::Url(Scheme::Https, url(Scheme::Https))),
        (None, None) => Ok(Address::Url(Scheme::Http, url(Scheme::Http))),
    }
}

/// Whether a host, as a URL has it, is this machine.
fn is_this_machine(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

/// The path of a socket. `unix:///path` is a URL without a host.
fn unix(path: &str, credentials: Option<&str>) -> Result<PathBuf, Fault> {
    let example = "unix:/run/perennial.sock";
    let path = path.strip_prefix("//").unwrap_or(path);
    if let Some(option) = credentials {
        let reason = format!("{option} is for TLS, which a socket in the file system does not have");
        return Err(Fault::new(reason, "the same without that option"));
    }
    if path.is_empty() || path.len() > MAX_PATH_BYTES || path.contains('\0') {
        let reason = format!("the path of a socket has 1 to {MAX_PATH_BYTES} bytes");
        return Err(Fault::new(reason, example));
    }
    Ok(path.into())
}

/// Why an address is refused, and what works instead.
struct Fault {
    reason: String,
    hint: String,
}

impl Fault {
    fn new(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { reason: reason.into(), hint: hint.into() }
    }
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::new(reason, EXAMPLE)
    }
}

/// The scheme, if it is given, and what follows it, if that is all there is.
fn authority(address: &str) -> Result<(Option<Scheme>, &str), Fault> {
    if address.is_empty() {
        return Err("it is empty".to_owned().into());
    }
    let (scheme, rest) = match address.split_once("://") {
        None => (None, address),
        Some((name, rest)) => match Scheme::named(name) {
            Some(scheme) => (Some(scheme), rest),
            None => return Err(format!("the scheme {name:?} is not supported").into()),
        },
    };
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (authority, extra) = rest.split_at(end);
    let suggested = |authority: &str| {
        let scheme = scheme.unwrap_or(Scheme::Http).name();
        let parts = host_and_port(authority);
        parts.map_or_else(|_| EXAMPLE.to_owned(), |(host, port)| format!("{scheme}://{host}:{port}"))
    };
    if let Some((_, host)) = authority.rsplit_once('@') {
        return Err(Fault::new("a user name and a password are not supported", suggested(host)));
    }
    match extra.chars().next() {
        None => Ok((scheme, authority)),
        Some('?') => Err(Fault::new("a query is not supported", suggested(authority))),
        Some('#') => Err(Fault::new("a fragment is not supported", suggested(authority))),
        Some(_) => Err(Fault::new("a path is not supported", suggested(authority))),
    }
}

/// The host as a URL writes it, and the port.
fn host_and_port(authority: &str) -> Result<(String, u16), String> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (ip, port) = rest.split_once(']').ok_or("the `[` of an IPv6 address has no `]`")?;
        let ip: Ipv6Addr = ip.parse().map_err(|_| format!("{ip:?} is not an IPv6 address"))?;
        return match port.strip_prefix(':') {
            Some(port) => Ok((format!("[{ip}]"), self::port(port)?)),
            None if port.is_empty() => Ok((format!("[{ip}]"), DEFAULT_PORT)),
            None => Err(format!("{port:?} follows the IPv6 address, where only a port may")),
        };
    }
    if let Ok(ip) = authority.parse::<Ipv6Addr>() {
        return match authority.rsplit_once(':') {
            // `::1:8080` is an address, and may be meant as an address and a port.
            Some((rest, last)) if rest.parse::<Ipv6Addr>().is_ok() && port(last).is_ok() => Err(format!(
                "it may be the address {authority} or a port of {rest}; write [{authority}] or [{rest}]:{last}"
            )),
            _ => Ok((format!("[{ip}]"), DEFAULT_PORT)),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((_, rest)) if rest.contains(':') => {
            return Err(format!(
                "{authority:?} is not HOST:PORT, and an IPv6 address with a port needs brackets"
            ));
        }
        Some((host, port)) => (host, self::port(port)?),
        None => (authority, DEFAULT_PORT),
    };
    if host.is_empty() {
        return Err("it has no host".into());
    }
    if host.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{host} is not a host; a port alone needs one before it"));
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if host.len() > MAX_HOST_BYTES || !host.bytes().all(is_plain) {
        return Err(format!("{host:?} is not the name or the address of a host"));
    }
    Ok((host.to_owned(), port))
}

fn port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()));
    port.ok_or_else(|| format!("{text:?} is not a port, which is 1 to 65535"))
}

/// The address as it may be shown: an error is often logged.
fn without_credentials(address: &str) -> String {
    let (scheme, rest) = address.split_once("://").map_or(("", address), |(scheme, rest)| (scheme, rest));
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    match rest.get(..end).and_then(|authority| authority.rfind('@')) {
        Some(at) if scheme.is_empty() => format!("***{}", &rest[at..]),
        Some(at) => format!("{scheme}://***{}", &rest[at..]),
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]

    use super::*;

    #[test]
    fn a_host_with_or_without_scheme_and_port_is_an_address() {
        for (address, expected) in [
            ("127.0.0.1", "http://127.0.0.1:50051"),
            ("127.0.0.1:80", "http://127.0.0.1:80"),
            ("http://127.0.0.1", "http://127.0.0.1:50051"),
            ("http://127.0.0.1:50051", "http://127.0.0.1:50051"),
            ("HTTP://h:1", "http://h:1"),
            ("https://h", "https://h:50051"),
            ("HTTPS://[::1]:1", "https://[::1]:1"),
            ("localhost", "http://localhost:50051"),
            ("log-1.example.com.:65535", "http://log-1.example.com.:65535"),
            ("my_service:1", "http://my_service:1"),
            ("[::1]", "http://[::1]:50051"),
            ("http://[::1]:7", "http://[::1]:7"),
            ("http://[2001:db8::1]", "http://[2001:db8::1]:50051"),
            ("::1", "http://[::1]:50051"),
            ("http://::1", "http://[::1]:50051"),
            ("fe80::1", "http://[fe80::1]:50051"),
            ("2001:db8::a:fe", "http://[2001:db8::a:fe]:50051"),
            ("1:2:3:4:5:6:7:8", "http://[1:2:3:4:5:6:7:8]:50051"),
        ] {
            assert_eq!(read(address, None).unwrap().text(), expected, "{address}");
            assert!(tonic::transport::Endpoint::from_shared(expected.to_owned()).is_ok(), "{expected}");
        }
    }

    #[test]
    fn any_other_address_is_refused_with_the_reason_and_what_works() {
        for (address, reason, hint) in [
            ("", "empty", EXAMPLE),
            ("https://", "no host", EXAMPLE),
            ("https://h/v1", "path", "https://h:50051"),
            ("ftp://h", "\"ftp\"", EXAMPLE),
            ("grpc://h:50051", "\"grpc\"", EXAMPLE),
            ("unix:", "1 to 107 bytes", "unix:/run"),
            ("unix://", "1 to 107 bytes", "unix:/run"),
            ("://h", "\"\"", EXAMPLE),
            ("http://", "no host", EXAMPLE),
            (":50051", "no host", EXAMPLE),
            ("http://:50051", "no host", EXAMPLE),
            ("50051", "port alone", EXAMPLE),
            ("http://h/", "path", "http://h:50051"),
            ("http://h:7/v1", "path", "http://h:7"),
            ("h/v1", "path", "http://h:50051"),
            ("http:/h", "path", EXAMPLE),
            ("h\\v1", "path", "http://h:50051"),
            ("http://h?x=1", "query", "http://h:50051"),
            ("http://h#x", "fragment", "http://h:50051"),
            ("http://user:secret@h:7", "user name", "http://h:7"),
            ("user:secret@h", "user name", "http://h:50051"),
            ("http://user:secret@h/x", "user name", "http://h:50051"),
            ("h:", "port", EXAMPLE),
            ("h:0", "port", EXAMPLE),
            ("h:65536", "port", EXAMPLE),
            ("h:+80", "port", EXAMPLE),
            ("h:http", "port", EXAMPLE),
            ("mailto:x", "port", EXAMPLE),
            ("h:1:2", "brackets", EXAMPLE),
            ("[::1", "`]`", EXAMPLE),
            ("[::1]x", "\"x\"", EXAMPLE),
            ("[h]:1", "IPv6", EXAMPLE),
            ("::1:8080", "[::1:8080] or [::1]:8080", EXAMPLE),
            ("fe80::1%eth0", "brackets", EXAMPLE),
            ("[fe80::1%eth0]:1", "IPv6", EXAMPLE),
            (" h", "\" h\"", EXAMPLE),
            ("h\n", "\"h\\n\"", EXAMPLE),
            ("höst", "höst", EXAMPLE),
            ("$HOST", "$HOST", EXAMPLE),
        ] {
            let error = read(address, None).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(reason) && text.contains(hint), "{address}: {text}");
            assert!(!text.contains("secret"), "{text}");
            assert!(matches!(error, Error::Url { .. }) && !error.is_retryable());
        }
    }
    #[test]
    fn credentials_for_tls_are_never_used_in_plain_text() {
        for (address, expected) in
            [("h", "https://h:50051"), ("h:1", "https://h:1"), ("https://h:1", "https://h:1")]
        {
            let expected = Address::Url(Scheme::Https, expected.into());
            assert_eq!(read(address, Some("--ca")).unwrap(), expected, "{address}");
        }
        let text = read("unix:/run/p", Some("--ca")).unwrap_err().to_string();
        assert!(text.contains("--ca is for TLS") && text.contains("without that option"), "{text}");
        let text = read("http://h:1", Some("--ca")).unwrap_err().to_string();
        assert!(text.contains("--ca is for TLS") && text.ends_with("try https://h:1"), "{text}");
    }
    #[test]
    fn a_socket_in_the_file_system_is_an_address() {
        for (address, path) in [("unix:/run/p", "/run/p"), ("unix:///run/p", "/run/p"), ("unix:p", "p")] {
            let read = read(address, None).unwrap();
            assert_eq!(
                (&read, read.text()),
                (&Address::Unix(path.into()), format!("unix:{path}")),
                "{address}"
            );
        }
        assert!(read(&format!("unix:/{}", "p".repeat(107)), None).is_err());
    }
}
