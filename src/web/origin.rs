//! Which requests of browsers the server takes: by the host that they name, and by the page that sends them.
//!
//! A page of any site can send requests to a server on the machine of its reader, or in the same network. So a request
//! must name a host of this server (otherwise a name of the attacker leads here: DNS rebinding), and must come from a page
//! of this server or of an origin that the operator named. Programs that are no browsers send no `Origin`, and can name
//! any host that the server has.

use std::{fmt, net::IpAddr, str::FromStr};

use http::{
    HeaderMap, HeaderValue, Method, Request, Uri,
    header::{self, HeaderName},
    uri::Authority,
};

use crate::grpc::status::Foreign;

/// What a browser says about the page that sends a request.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a request of a browser is for.
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// How long a browser may keep the answer to a preflight request, in seconds: the most that Chromium keeps it.
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("7200");

/// The headers that pages of other origins may read.
const EXPOSED: HeaderValue =
    HeaderValue::from_static("grpc-status, grpc-message, grpc-status-details-bin, retry-after");

/// The hosts and origins of a server.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// The addresses on which the server listens.
    pub listen: Vec<IpAddr>,
    /// Further names of the server.
    pub hosts: Vec<Host>,
    /// The origins whose pages may use the server.
    pub origins: Vec<Origin>,
}

/// A name or an address of a server, without a port, in lower case.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Host(String);

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let authority =
            text.parse::<Authority>().ok().filter(|authority| authority.as_str() == authority.host());
        // Besides names, an address of IPv6 in brackets.
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        let authority = authority
            .filter(|authority| !authority.host().is_empty() && authority.host().bytes().all(is_host));
        let fault =
            || format!("`{text}` is not a host: write a name without a port, as in streams.example.com");
        authority.map(|authority| Self(normal(authority.host()))).ok_or_else(fault)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The origin of a page: scheme, host and port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// Whether a page of this origin comes from this host and port. The scheme is not compared, because a proxy in front
    /// of the server may speak TLS.
    fn is_at(&self, host: &str, port: Option<u16>) -> bool {
        self.host == host && port.or(default_port(&self.scheme)) == Some(self.port)
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || {
            format!(
                "`{text}` is not an origin: write scheme://host or scheme://host:port without a path, as in \
                 https://app.example.com"
            )
        };
        let uri = text.parse::<Uri>().map_err(|_| fault())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(fault());
        };
        // `Uri` gives an empty path as `/`.
        let is_bare = text.len() == scheme.len() + "://".len() + authority.as_str().len();
        let scheme = scheme.to_ascii_lowercase();
        let port = authority.port_u16().or(default_port(&scheme));
        let host = normal(authority.host());
        match port {
            Some(port) if is_bare && !authority.as_str().contains('@') => Ok(Self { scheme, host, port }),
            _ => Err(fault()),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host, port } = self;
        write!(f, "{scheme}://{host}")?;
        if default_port(scheme) == Some(*port) { Ok(()) } else { write!(f, ":{port}") }
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// A host in lower case, and without the dot at the end of a full name.
fn normal(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// The page that sends a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Sender {
    /// A page of this server, or no browser.
    Own,
    /// A page of an origin that the operator named.
    Allowed(HeaderValue),
}

impl Origins {
    /// Who sends a request.
    ///
    /// # Errors
    /// The server does not take it.
    pub fn check<'a, B>(&self, request: &'a Request<B>) -> Result<Sender, Foreign<'a>> {
        let (host, port) = host(request)?;
        let name = normal(host);
        if !self.has(&name) {
            return Err(Foreign::Host(host));
        }
        let headers = request.headers();
        let Some(origin) = headers.get(header::ORIGIN) else {
            return if is_of_another_site(request) { Err(Foreign::Site) } else { Ok(Sender::Own) };
        };
        let text = origin.to_str().unwrap_or("not text");
        let parsed = text.parse::<Origin>().map_err(|_| Foreign::Origin(text))?;
        if parsed.is_at(&name, port) {
            Ok(Sender::Own)
        } else if self.origins.contains(&parsed) {
            Ok(Sender::Allowed(origin.clone()))
        } else {
            Err(Foreign::Origin(text))
        }
    }

    /// Whether this is a host of the server. A name of an attacker can lead to any address, but an address in a URL is
    /// the address.
    fn has(&self, host: &str) -> bool {
        if host == "localhost" || host.ends_with(".localhost") {
            return true;
        }
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_own = bare.parse::<IpAddr>().is_ok_and(|address| {
            let address = address.to_canonical();
            let is_listened = |listen: &IpAddr| listen.is_unspecified() || listen.to_canonical() == address;
            address.is_loopback() || self.listen.iter().any(is_listened)
        });
        is_own || self.hosts.iter().any(|known| known.0 == host)
    }

    /// Whether an answer depends on the page that asks.
    pub fn are_some(&self) -> bool {
        !self.origins.is_empty()
    }
}

/// The one host that a request names, and its port.
fn host<B>(request: &Request<B>) -> Result<(&str, Option<u16>), Foreign<'_>> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (header, more) = (hosts.next(), hosts.next());
    if more.is_some() {
        return Err(Foreign::NoHost);
    }
    let text = match (request.uri().authority(), header) {
        (Some(authority), None) => authority.as_str(),
        (None, Some(header)) => header.to_str().map_err(|_| Foreign::NoHost)?,
        (Some(authority), Some(header))
            if header.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) =>
        {
            authority.as_str()
        }
        _ => return Err(Foreign::NoHost),
    };
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port.parse().map_err(|_| Foreign::NoHost)?)),
        _ => (text, None),
    };
    if host.is_empty() || host.contains('@') { Err(Foreign::NoHost) } else { Ok((host, port)) }
}

/// Whether the browser says that a page of another site sends the request. Without `Origin` that is an image, a script, a
/// form or a link. A link may lead to the page.
fn is_of_another_site<B>(request: &Request<B>) -> bool {
    let is = |name, value: &[&str]| {
        let header = request.headers().get(&name).and_then(|header| header.to_str().ok());
        header.is_some_and(|header| value.contains(&header))
    };
    let is_link = request.method() == Method::GET && is(SEC_FETCH_MODE, &["navigate"]);
    let may_be_linked = is_link && super::page::is_at(request.uri().path());
    is(SEC_FETCH_SITE, &["cross-site", "same-site"]) && !may_be_linked
}

/// Whether a browser asks whether it may send a request.
pub fn is_preflight<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    request.method() == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The headers by which a page of an allowed origin may read an answer.
pub fn allow(origin: HeaderValue, headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
}

/// What a page of an allowed origin may send: what it asked for. The operator trusts the origin.
pub fn allow_requests(asked: &HeaderMap, headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
    if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
}

#[cfg(test)]
mod tests;
