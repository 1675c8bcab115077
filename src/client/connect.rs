//! Makes connections, in plain text or by TLS, and finds out why a server cannot be used.
//!
//! With TLS 1.3 a client learns only after the handshake that the server refuses it, and a client without TLS gets bytes
//! that are no HTTP/2. Both would look like a connection that was lost. So the bytes that arrive are inspected, and the
//! fault is kept for the call that fails because of it.

use std::{
    io,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use http::Uri;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use rustls::{AlertDescription as Alert, CertificateError, InvalidMessage};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::Status;
use tower::Service;

use super::{
    Credentials, Error,
    address::{Address, Scheme},
    credentials::Trust,
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The beginning of an alert of TLS.
const ALERT: &[u8] = &[0x15, 0x03];

/// The beginning of an answer of HTTP/1.
const HTTP1: &[u8] = b"HTTP/1.";

/// Where a GOAWAY frame after an empty SETTINGS frame has its type and its code.
const GOAWAY_TYPE: (usize, u8) = (12, 7);
const GOAWAY_CODE: (std::ops::Range<usize>, [u8; 4]) = (22..26, [0, 0, 0, 0xc]);

/// The server of a client, and why the last connection could not be used.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) url: String,
    fault: Mutex<Option<String>>,
}

impl Server {
    pub(super) fn new(url: String) -> Arc<Self> {
        Arc::new(Self { url, fault: Mutex::default() })
    }

    /// The error of a call that failed.
    pub(super) fn error(&self, status: &Status) -> Error {
        // The server itself has no source.
        let is_of_transport = std::error::Error::source(status).is_some();
        let fault = is_of_transport.then(|| self.fault()).flatten();
        fault.unwrap_or_else(|| Error::from_status(status, &self.url))
    }

    /// The error if no connection could be made, because of `cause` or of something else that is known better.
    pub(super) fn unreachable(&self, cause: String) -> Error {
        self.fault().unwrap_or_else(|| Error::Unreachable { url: self.url.clone(), cause })
    }

    fn fault(&self) -> Option<Error> {
        let cause = self.kept().clone()?;
        Some(Error::Handshake { url: self.url.clone(), cause })
    }

    fn keep(&self, fault: Option<String>) {
        *self.kept() = fault;
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        // Each change is one assignment, so a panic elsewhere leaves it whole.
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the fault of a connection by TLS, if it says that the next one will fail as well.
    fn inspect(&self, error: &io::Error) {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        if let Some(fault) = cause.and_then(|cause| fault_of(cause, &self.url)) {
            self.keep(Some(fault));
        }
    }
}

/// The fault in words, if a new connection will fail as well.
fn fault_of(error: &rustls::Error, url: &str) -> Option<String> {
    let text = match error {
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            let plain = url.replacen(Scheme::Https.name(), Scheme::Http.name(), 1);
            format!("the server does not speak TLS: try {plain}, only on a network that you trust")
        }
        rustls::Error::InvalidCertificate(error) => certificate_fault(error),
        rustls::Error::NoApplicationProtocol | rustls::Error::AlertReceived(Alert::NoApplicationProtocol) => {
            "the server does not speak HTTP/2: is it perenniald?".into()
        }
        rustls::Error::AlertReceived(alert) => match alert {
            Alert::CertificateRequired => {
                "the server asks for a client certificate: give one with --cert FILE and --cert-key FILE".into()
            }
            // Before TLS 1.3, also for a client without a certificate.
            Alert::HandshakeFailure => {
                "the server refuses the handshake: it may ask for a client certificate (--cert FILE and --cert-key FILE)".into()
            }
            Alert::CertificateExpired => {
                "the client certificate has expired, or is not valid yet by the server's clock: renew it, or set the clock"
                    .into()
            }
            Alert::CertificateRevoked => "the client certificate was revoked: ask for a new one".into(),
            Alert::UnknownCA => {
                "the server does not trust the authority of the client certificate, or has no current list of what it revoked: give another certificate with --cert FILE, or ask the operator"
                    .into()
            }
            Alert::BadCertificate | Alert::UnsupportedCertificate | Alert::AccessDenied | Alert::DecryptError => {
                format!("the server refuses the client certificate ({alert:?})")
            }
            _ => return None,
        },
        rustls::Error::PeerIncompatible(_) => format!("the server and this client have nothing in common: {error}"),
        _ => return None,
    };
    Some(text)
}

/// Why the certificate of the server is refused.
fn certificate_fault(error: &CertificateError) -> String {
    use CertificateError as C;
    match error {
        C::UnknownIssuer => {
            "the server's certificate is of an authority that is not trusted: give the authority with --ca FILE".into()
        }
        C::Expired | C::ExpiredContext { .. } => {
            "the server's certificate has expired: its operator has to renew it".into()
        }
        C::NotValidYet | C::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet: is the clock right, here and there?".into()
        }
        C::NotValidForName => "the server's certificate is for another name: use that name".into(),
        C::NotValidForNameContext { expected, presented } => {
            let names = presented.iter().map(|name| plain(name)).collect::<Vec<_>>().join(", ");
            let names = if names.is_empty() { "no name".into() } else { names };
            format!(
                "the server's certificate is for {names}, and not for {}: use a name that it has, or give it with \
                 --server-name",
                expected.to_str()
            )
        }
        C::Other(error) if error.to_string().contains("CaUsedAsEndEntity") => {
            "the server's certificate is one of an authority, which can only sign others: its operator has to make one \
             for the server"
                .into()
        }
        error => format!("the server's certificate cannot be trusted: {error}"),
    }
}

/// A name of a certificate as rustls shows it: `DnsName("localhost")`, `IpAddress(127.0.0.1)`.
fn plain(name: &str) -> &str {
    let within = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    within.unwrap_or(name).trim_matches('"')
}

/// Makes the connections of a client.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    kind: Kind,
    server: Arc<Server>,
}

#[derive(Clone, Debug)]
enum Kind {
    Plain(HttpConnector),
    Secure(HttpConnector, Arc<Trust>),
    Unix(Arc<Path>),
}

impl Connector {
    /// Reads the files of the credentials, if the connections are by TLS.
    pub(super) fn new(address: &Address, credentials: Credentials) -> Result<Self, Error> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        let kind = match address {
            Address::Url(Scheme::Http, _) => Kind::Plain(http),
            Address::Url(Scheme::Https, url) => {
                let host = url.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
                Kind::Secure(http, Trust::open(credentials, &host.unwrap_or_default())?.into())
            }
            Address::Unix(path) => Kind::Unix(path.as_path().into()),
        };
        Ok(Self { kind, server: Server::new(address.text()) })
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Inspected>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match &mut self.kind {
            Kind::Plain(http) | Kind::Secure(http, _) => http.poll_ready(context).map_err(Into::into),
            Kind::Unix(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (mut kind, server) = (self.kind.clone(), self.server.clone());
        Box::pin(async move {
            server.keep(None);
            let socket = match &mut kind {
                Kind::Unix(path) => Socket::Unix(UnixStream::connect(path).await?),
                Kind::Plain(http) => {
                    Socket::Plain { socket: http.call(uri).await?.into_inner(), is_new: true }
                }
                Kind::Secure(http, trust) => {
                    let socket = http.call(uri).await?.into_inner();
                    let trust = trust.clone();
                    let name = trust.name.clone();
                    let config = tokio::task::spawn_blocking(move || trust.config()).await?;
                    let stream = TlsConnector::from(config).connect(name, socket).await;
                    Socket::Secure(Box::new(stream.inspect_err(|error| server.inspect(error))?))
                }
            };
            Ok(TokioIo::new(Inspected { socket, server }))
        })
    }
}

#[derive(Debug)]
enum Socket {
    Plain {
        socket: TcpStream,
        /// Nothing has arrived yet.
        is_new: bool,
    },
    Secure(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// A connection whose faults are kept.
#[derive(Debug)]
pub(super) struct Inspected {
    socket: Socket,
    server: Arc<Server>,
}

/// What the first bytes of a server say, if it cannot be used in plain text.
fn plain_fault(bytes: &[u8], url: &str) -> Option<String> {
    let secure = || url.replacen(Scheme::Http.name(), Scheme::Https.name(), 1);
    let is_goaway = bytes.get(GOAWAY_TYPE.0) == Some(&GOAWAY_TYPE.1)
        && bytes.get(GOAWAY_CODE.0).is_some_and(|code| code == GOAWAY_CODE.1);
    if bytes.starts_with(ALERT) || is_goaway {
        return Some(format!("the server speaks TLS: try {}", secure()));
    }
    bytes.starts_with(HTTP1).then(|| {
        format!(
            "the server does not speak HTTP/2 there: is it perenniald, and does it speak TLS ({})?",
            secure()
        )
    })
}

impl AsyncRead for Inspected {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { socket, server } = self.get_mut();
        match socket {
            Socket::Plain { socket, is_new } => {
                let before = buffer.filled().len();
                ready!(Pin::new(socket).poll_read(context, buffer))?;
                let bytes = buffer.filled().get(before..).unwrap_or_default();
                if std::mem::take(is_new)
                    && let Some(fault) = plain_fault(bytes, &server.url)
                {
                    server.keep(Some(fault.clone()));
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault)));
                }
                Poll::Ready(Ok(()))
            }
            Socket::Unix(socket) => Pin::new(socket).poll_read(context, buffer),
            Socket::Secure(stream) => {
                let read = ready!(Pin::new(stream).poll_read(context, buffer));
                Poll::Ready(read.inspect_err(|error| server.inspect(error)))
            }
        }
    }
}

macro_rules! each {
    ($self:ident, $socket:ident => $call:expr) => {
        match &mut $self.get_mut().socket {
            Socket::Plain { socket: $socket, .. } => $call,
            Socket::Secure($socket) => $call,
            Socket::Unix($socket) => $call,
        }
    };
}

impl AsyncWrite for Inspected {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, socket => Pin::new(socket).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, socket => Pin::new(socket).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, socket => Pin::new(socket).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, socket => Pin::new(socket).poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests;
