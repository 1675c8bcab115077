#![expect(clippy::unwrap_used, reason = "a test")]

use super::*;

#[test]
fn the_first_bytes_of_a_server_say_that_it_speaks_tls() {
    let url = "http://h:1";
    let goaway =
        [&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &[0, 0, 0, 0xc]].concat();
    for bytes in [&[0x15, 3, 1, 0, 2, 2, 40][..], &goaway] {
        assert_eq!(plain_fault(bytes, url).unwrap(), "the server speaks TLS: try https://h:1");
    }
    assert!(plain_fault(b"HTTP/1.1 400 Bad Request\r\n", url).unwrap().contains("https://h:1"));
    let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 1, 0];
    // A GOAWAY for another reason, as of a server that drains.
    let draining = [goaway.get(..22).unwrap(), &[0, 0, 0, 0]].concat();
    for bytes in [&settings[..], &draining, &[0x15], &[]] {
        assert_eq!(plain_fault(bytes, url), None);
    }
}

#[test]
fn only_a_fault_that_will_be_there_again_ends_the_attempts() {
    let url = "https://h:1";
    for error in [
        rustls::Error::AlertReceived(Alert::CertificateRequired),
        rustls::Error::AlertReceived(Alert::CertificateRevoked),
        CertificateError::UnknownIssuer.into(),
        CertificateError::Expired.into(),
        InvalidMessage::InvalidContentType.into(),
    ] {
        let server = Server::new(url.into());
        server.inspect(&io::Error::new(io::ErrorKind::InvalidData, error.clone()));
        let error = server.unreachable("lost".into());
        assert!(matches!(error, Error::Handshake { .. }) && !error.is_retryable(), "{error:?}");
    }
    for error in [rustls::Error::AlertReceived(Alert::InternalError), rustls::Error::DecryptError] {
        let server = Server::new(url.into());
        server.inspect(&io::Error::new(io::ErrorKind::InvalidData, error));
        server.inspect(&io::ErrorKind::ConnectionReset.into());
        let error = server.unreachable("lost".into());
        assert!(matches!(error, Error::Unreachable { .. }) && error.is_retryable(), "{error:?}");
    }
}

#[test]
fn a_call_that_the_server_itself_ended_has_no_fault_of_the_connection() {
    let server = Server::new("https://h:1".into());
    server.keep(Some("the client certificate was revoked".into()));
    let error = server.error(&Status::not_found("no such file"));
    assert!(matches!(error, Error::Status { .. }), "{error:?}");
    let lost = Status::from_error(Box::new(io::Error::from(io::ErrorKind::ConnectionReset)));
    assert!(server.error(&lost).to_string().contains("revoked"));
    // The next connection may be better.
    server.keep(None);
    assert!(matches!(server.error(&lost), Error::Status { .. }));
}
