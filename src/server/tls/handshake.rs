//! The handshake of a connection, and the answer to a client that does not speak TLS.

use std::{io, sync::Arc, time::Duration};

use rustls::{AlertDescription, CertificateError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{Client, Tls};

/// The first byte of a client that speaks TLS: a record of the handshake.
const HANDSHAKE_RECORD: u8 = 0x16;

/// What a client of HTTP/2 without TLS begins with.
const PREFACE: &[u8] = b"PRI ";

/// The text for a client that does not speak TLS.
const USE_TLS: &str = "this port speaks TLS: use https://";

/// HTTP/2's INADEQUATE_SECURITY, which gRPC reports as PERMISSION_DENIED.
const INADEQUATE_SECURITY: u32 = 0xc;

/// How long a refused client may take to read why, and up to how many bytes it may still send.
const FAREWELL: (Duration, usize) = (Duration::from_secs(1), 64 * 1024);

/// Why a connection was refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The handshake took too long.
    #[error("the handshake was not complete after {0:?} (--handshake)")]
    Late(Duration),
    /// The client does not speak TLS.
    #[error("the client does not speak TLS")]
    Plaintext,
    /// The client went away.
    #[error("the client went away before the end of the handshake")]
    Gone,
    /// The handshake failed.
    #[error("{}", text(.0))]
    Failed(rustls::Error),
}

impl Refusal {
    fn of(error: &io::Error) -> Self {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        cause.cloned().map_or(Self::Gone, Self::Failed)
    }

    /// The label in the metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Late(_) => "TIMEOUT",
            Self::Plaintext => "PLAINTEXT",
            Self::Gone => "CLIENT_GONE",
            Self::Failed(error) => reason(error),
        }
    }
}

/// The label of an error in the metrics.
pub fn reason(error: &rustls::Error) -> &'static str {
    use CertificateError as C;
    match error {
        rustls::Error::NoCertificatesPresented => "CERTIFICATE_MISSING",
        rustls::Error::InvalidCertificate(error) => match error {
            C::Expired | C::ExpiredContext { .. } => "CERTIFICATE_EXPIRED",
            C::Revoked => "CERTIFICATE_REVOKED",
            C::UnknownIssuer => "CERTIFICATE_UNKNOWN",
            C::UnknownRevocationStatus
            | C::ExpiredRevocationList
            | C::ExpiredRevocationListContext { .. } => "REVOCATION_UNKNOWN",
            _ => "CERTIFICATE_INVALID",
        },
        // The client refuses the server.
        rustls::Error::AlertReceived(_) => "REFUSED_BY_CLIENT",
        _ => "PROTOCOL",
    }
}

fn text(error: &rustls::Error) -> String {
    use CertificateError as C;
    match error {
        rustls::Error::NoCertificatesPresented => "the client has no certificate (--tls-client-auth)".into(),
        rustls::Error::InvalidCertificate(C::UnknownIssuer) => {
            "the client certificate is of no authority in --tls-client-ca".into()
        }
        rustls::Error::InvalidCertificate(C::UnknownRevocationStatus) => {
            "no list in --tls-crl is of the authority of the client certificate".into()
        }
        rustls::Error::InvalidCertificate(
            C::ExpiredRevocationList | C::ExpiredRevocationListContext { .. },
        ) => "the list in --tls-crl should have been replaced".into(),
        rustls::Error::AlertReceived(AlertDescription::UnknownCA) => {
            "the client does not know the authority of the server's certificate".into()
        }
        error => error.to_string(),
    }
}

impl Tls {
    /// Makes the handshake with a client, within a limit. On failure the client has had time to read the reason.
    pub async fn accept(
        self: &Arc<Self>,
        socket: TcpStream,
        limit: Duration,
    ) -> Result<(TlsStream<TcpStream>, Option<Client>), Refusal> {
        // Before the handshake, so that a set that comes meanwhile is noticed.
        let mut sets = self.current.subscribe();
        let config = sets.borrow_and_update().config.clone();
        let shaken = match tokio::time::timeout(limit, shake(TlsAcceptor::from(config), socket)).await {
            Ok(shaken) => shaken,
            Err(_) => Err((Refusal::Late(limit), None)),
        };
        match shaken {
            Ok(stream) => {
                let chain = stream.get_ref().1.peer_certificates();
                let client = chain.map(|chain| Client { chain: chain.to_vec(), sets, tls: self.clone() });
                Ok((stream, client))
            }
            Err((refusal, socket)) => {
                self.metrics.refused(&refusal);
                if let Some(socket) = socket {
                    let _ = tokio::time::timeout(FAREWELL.0, part(socket)).await;
                }
                Err(refusal)
            }
        }
    }
}

/// On failure the socket, if the client may still read from it.
type Shaken = Result<TlsStream<TcpStream>, (Refusal, Option<TcpStream>)>;

async fn shake(acceptor: TlsAcceptor, mut socket: TcpStream) -> Shaken {
    let mut first = [0; PREFACE.len()];
    let peeked = match socket.peek(&mut first).await {
        Ok(peeked) if peeked > 0 => first.get(..peeked).unwrap_or_default(),
        _ => return Err((Refusal::Gone, None)),
    };
    if peeked.first() != Some(&HANDSHAKE_RECORD) {
        let _ = socket.write_all(&answer(PREFACE.starts_with(peeked))).await;
        return Err((Refusal::Plaintext, Some(socket)));
    }
    match acceptor.accept(socket).into_fallible().await {
        Ok(stream) => Ok(stream),
        Err((error, socket)) => Err((Refusal::of(&error), Some(socket))),
    }
}

/// The answer to a client without TLS, in its own protocol.
fn answer(is_http2: bool) -> Vec<u8> {
    if !is_http2 {
        let (length, status) = (USE_TLS.len() + 1, "HTTP/1.1 400 Bad Request");
        let headers = "content-type: text/plain\r\nconnection: close";
        return format!("{status}\r\n{headers}\r\ncontent-length: {length}\r\n\r\n{USE_TLS}\n").into_bytes();
    }
    // Empty SETTINGS, and a GOAWAY of no stream with the text as its debug data.
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let length = u8::try_from(8 + USE_TLS.len()).unwrap_or(u8::MAX);
    let goaway = [0, 0, length, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    [&settings[..], &goaway, &INADEQUATE_SECURITY.to_be_bytes(), USE_TLS.as_bytes()].concat()
}

/// Closes a socket. It would be reset if it were closed with bytes unread, and the client would not read why.
async fn part(mut socket: TcpStream) {
    let _ = socket.shutdown().await;
    let (mut rest, mut left) = ([0; 1024], FAREWELL.1);
    while let Ok(read) = socket.read(&mut rest).await {
        left = left.saturating_sub(read);
        if read == 0 || left == 0 {
            break;
        }
    }
}
