//! The protocol of a connection: HTTP/2 or HTTP/1.1, by what TLS has agreed on or by the first bytes of the client.

use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;

use super::{Config, SEND_BUFFER_BYTES, streams::Starter};

/// The length of [`BEGINNING`].
pub const BEGINNING_BYTES: usize = 4;

/// How a client of HTTP/2 begins. No method of HTTP/1.1 has this name (RFC 9113, section 11.6).
const BEGINNING: [u8; BEGINNING_BYTES] = *b"PRI ";

/// The names of the protocols in the handshake of TLS (ALPN), the preferred one first.
pub const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// hyper ends a connection after it has reset this many of its streams for errors of the client (CVE-2025-8671).
const MAX_LOCAL_RESETS: usize = 1024;

/// hyper ends a connection with this many streams that the client reset before they were served (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 64;

/// The largest headers of a request, together.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// The flow-control windows of a stream and of a connection: enough for a PublishStream at full speed.
const WINDOWS_BYTES: (u32, u32) = (1024 * 1024, 4 * 1024 * 1024);

/// What a client speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// HTTP/1.1 or HTTP/1.0.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Protocol {
    /// The protocol that the handshake of TLS has agreed on. `None` without one.
    pub fn agreed(alpn: Option<&[u8]>) -> Option<Self> {
        let [http2, http1] = ALPN;
        match alpn? {
            name if name == http2 => Some(Self::Http2),
            name if name == http1 => Some(Self::Http1),
            _ => None,
        }
    }

    /// The protocol of a client that has sent these bytes. `None` if more of them are needed.
    pub fn of(first: &[u8]) -> Option<Self> {
        if first == BEGINNING {
            Some(Self::Http2)
        } else if BEGINNING.starts_with(first) {
            None
        } else {
            Some(Self::Http1)
        }
    }
}

/// HTTP/2, whose streams are started by `starter`.
pub fn http2(config: &Config, starter: Starter) -> http2::Builder<Starter> {
    let mut builder = http2::Builder::new(starter);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.max_streams)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_local_error_reset_streams(MAX_LOCAL_RESETS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .initial_stream_window_size(WINDOWS_BYTES.0)
        .initial_connection_window_size(WINDOWS_BYTES.1)
        .keep_alive_interval(config.ping_interval)
        .keep_alive_timeout(config.ping_timeout);
    builder
}

/// HTTP/1.1. The headers of each request must be complete within the time for the first one.
pub fn http1(config: &Config) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(config.first_request)
        // It bounds what is read ahead, and what waits to be written.
        .max_buf_size(SEND_BUFFER_BYTES)
        .max_header_size(MAX_HEADER_BYTES as usize - 1);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_known_by_its_first_bytes() {
        for (first, expected) in [
            ("", None),
            ("P", None),
            ("PR", None),
            ("PRI", None),
            ("PRI ", Some(Protocol::Http2)),
            ("G", Some(Protocol::Http1)),
            ("PO", Some(Protocol::Http1)),
            ("PRO", Some(Protocol::Http1)),
            ("PRIX", Some(Protocol::Http1)),
            ("\u{16}", Some(Protocol::Http1)),
        ] {
            assert_eq!(Protocol::of(first.as_bytes()), expected, "{first:?}");
        }
        assert_eq!(Protocol::agreed(Some(b"h2")), Some(Protocol::Http2));
        assert_eq!(Protocol::agreed(Some(b"http/1.1")), Some(Protocol::Http1));
        assert_eq!(Protocol::agreed(None), None);
    }
}
