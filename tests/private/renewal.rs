//! Certificates that are renewed, expire or are revoked while streams are open.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures::StreamExt;
use perennial::{
    client::{Client, Credentials, Error, Notice},
    proto::{CountdownRequest, CountdownResponse, OnLag, countdown_request::Target},
};
use rcgen::SerialNumber;
use rustix::process::Signal;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    authority::Authority,
    harness::{Server, soon, until},
};

const CONNECTIONS: usize = 10;
const STREAMS: usize = 10;

pub fn start(authority: &Authority, further: &[&str]) -> Server {
    let options = authority.options(further);
    Server::start_with(&options.iter().map(String::as_str).collect::<Vec<_>>())
}

fn client(server: &Server, credentials: Credentials) -> Client {
    let address = format!("https://localhost:{}", server.address().port());
    Client::with_credentials(&address, credentials).unwrap()
}

/// A countdown that does not end during a test.
fn countdown() -> CountdownRequest {
    CountdownRequest {
        target: Some(Target::Start(1_000_000)),
        interval: Some(prost_types::Duration { seconds: 0, nanos: 20_000_000 }),
        // A machine that is busy skips no number.
        on_lag: OnLag::Burst.into(),
        ..Default::default()
    }
}

/// A connection by TLS that trusts this authority.
pub async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(socket: S, ca: &Path) -> TlsStream<S> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap()
}

/// The certificate that a new connection gets.
async fn served(server: &Server, credentials: &Credentials) -> Vec<u8> {
    let socket = TcpStream::connect(server.address()).await.unwrap();
    let stream = handshake(socket, credentials.ca.as_deref().unwrap()).await;
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

/// Reads a countdown and checks that no number is missing; counts the numbers.
async fn count(client: Client, numbers: Arc<AtomicUsize>) -> Error {
    let mut stream = std::pin::pin!(client.countdown(countdown()).responses());
    let mut next = 1_000_000;
    loop {
        let response: CountdownResponse = match stream.next().await.unwrap() {
            Ok(response) => response,
            Err(error) => return error,
        };
        for tick in response.ticks {
            assert_eq!(tick.remaining, Some(next), "no number is missing and none comes twice");
            next -= 1;
            numbers.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_under_100_streams_without_one_cut() {
    let authority = Authority::new("ours");
    authority.sign_server();
    authority.sign("client", &["client"], |_| {});
    let ca = authority.path("ca.pem");
    let server = start(&authority, &["--tls-client-ca", &ca, "--tls-client-auth", "optional"]);
    let (cuts, mut counts) = (Arc::new(AtomicUsize::new(0)), Vec::new());
    for _ in 0..CONNECTIONS {
        let cuts = cuts.clone();
        let observer = move |notice: &Notice<'_>| {
            assert!(matches!(notice, Notice::Interrupted { .. }), "nothing can resume that was not cut");
            cuts.fetch_add(1, Ordering::Relaxed);
        };
        let client = client(&server, authority.credentials(Some("client"))).with_observer(observer);
        for _ in 0..STREAMS {
            let numbers = Arc::new(AtomicUsize::new(0));
            counts.push((numbers.clone(), tokio::spawn(count(client.clone(), numbers))));
        }
    }
    let progress = |counts: &[(Arc<AtomicUsize>, _)]| {
        counts.iter().map(|(numbers, _)| numbers.load(Ordering::Relaxed)).collect::<Vec<_>>()
    };
    until("every stream runs", async || progress(&counts).iter().all(|count| *count > 0)).await;
    let trusting = authority.credentials(None);
    let mut before = served(&server, &trusting).await;
    for renewal in 0..6 {
        authority.sign_server();
        // Every second time the server finds out by itself.
        if renewal % 2 == 0 {
            let process = rustix::process::Pid::from_raw(server.id().cast_signed()).unwrap();
            rustix::process::kill_process(process, Signal::HUP).unwrap();
        }
        let mut after = before.clone();
        until("the new certificate is served", async || {
            after = served(&server, &trusting).await;
            after != before
        })
        .await;
        before = after;
        let seen = progress(&counts);
        until("every stream goes on", async || {
            progress(&counts).iter().zip(&seen).all(|(now, then)| *now >= then + 3)
        })
        .await;
    }
    assert_eq!(cuts.load(Ordering::Relaxed), 0);
    assert_eq!(counts.len(), CONNECTIONS * STREAMS);
    for (_, task) in counts {
        assert!(!task.is_finished());
        task.abort();
    }
}

#[tokio::test]
async fn a_bad_new_certificate_leaves_the_old_one_in_use() {
    let authority = Authority::new("ours");
    authority.sign_server();
    let server = start(&authority, &[]);
    let trusting = authority.credentials(None);
    let before = served(&server, &trusting).await;
    authority.write("server.pem", "-----BEGIN CERTIFICATE-----\nnot finished");
    let line = server.wait_for_log("cannot be used");
    assert!(line.contains("server.pem") && line.contains("the previous ones stay in use"), "{line}");
    assert_eq!(served(&server, &trusting).await, before);
    authority.sign_server();
    server.wait_for_log("new TLS files are in use");
    assert_ne!(served(&server, &trusting).await, before);
}

#[tokio::test]
async fn a_client_that_is_revoked_loses_its_streams_and_the_others_keep_theirs() {
    let authority = Authority::new("ours");
    authority.sign_server();
    for (name, serial) in [("kept", 1), ("revoked", 2)] {
        authority.sign(name, &[name], |params| params.serial_number = Some(SerialNumber::from(serial)));
    }
    authority.revoke(&[]);
    let (ca, crl) = (authority.path("ca.pem"), authority.path("crl.pem"));
    let server = start(&authority, &["--tls-client-ca", &ca, "--tls-crl", &crl]);
    let run = |name: &str| {
        let (client, numbers) =
            (client(&server, authority.credentials(Some(name))), Arc::new(AtomicUsize::new(0)));
        (tokio::spawn(count(client, numbers.clone())), numbers)
    };
    let ((kept, kept_numbers), (revoked, numbers)) = (run("kept"), run("revoked"));
    let has_begun = |numbers: &AtomicUsize| numbers.load(Ordering::Relaxed) > 0;
    until("both run", async || has_begun(&kept_numbers) && has_begun(&numbers)).await;
    authority.revoke(&[2]);
    let error = soon("the revoked one ends", revoked).await.unwrap();
    assert!(
        matches!(error, Error::Handshake { .. }) && error.to_string().contains("was revoked"),
        "{error:?}"
    );
    server.wait_for_log("no longer accepted");
    let seen = kept_numbers.load(Ordering::Relaxed);
    until("the other goes on", async || kept_numbers.load(Ordering::Relaxed) > seen + 3).await;
    assert!(!kept.is_finished());
    kept.abort();
}

#[tokio::test]
async fn a_client_keeps_its_streams_although_it_sends_a_certificate_that_is_over() {
    let authority = Authority::new("ours");
    authority.sign_server();
    for name in ["client", "over"] {
        authority.sign(name, &[name], |params| {
            if name == "over" {
                params.not_after = (SystemTime::now() - Duration::from_secs(3600)).into();
            }
        });
    }
    let chain = ["client.pem", "over.pem"].map(|name| crate::authority::read(&authority.file(name))).concat();
    authority.write("client.pem", &chain);
    let server = start(&authority, &["--tls-client-ca", &authority.path("ca.pem")]);
    let cut = Arc::new(AtomicUsize::new(0));
    let (numbers, cuts) = (Arc::new(AtomicUsize::new(0)), cut.clone());
    let client = client(&server, authority.credentials(Some("client")));
    let client = client.with_observer(move |_| {
        cuts.fetch_add(1, Ordering::Relaxed);
    });
    let task = tokio::spawn(count(client, numbers.clone()));
    until("it runs", async || numbers.load(Ordering::Relaxed) > 20).await;
    assert_eq!(cut.load(Ordering::Relaxed), 0);
    task.abort();
}

#[tokio::test]
async fn a_client_loses_its_streams_when_its_certificate_expires_and_keeps_them_if_it_renews() {
    let authority = Authority::new("ours");
    authority.sign_server();
    let soon_over = |name: &str| {
        authority.sign(name, &[name], |params| {
            params.not_after = (SystemTime::now() + Duration::from_secs(4)).into();
        });
    };
    let server = start(&authority, &["--tls-client-ca", &authority.path("ca.pem")]);
    soon_over("forgetful");
    soon_over("careful");
    let (resumed, numbers) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = resumed.clone();
    let careful = client(&server, authority.credentials(Some("careful"))).with_observer(move |notice| {
        if matches!(notice, Notice::Resumed) {
            seen.fetch_add(1, Ordering::Relaxed);
        }
    });
    let careful = tokio::spawn(count(careful, numbers));
    let begun = Arc::new(AtomicUsize::new(0));
    let forgetful =
        tokio::spawn(count(client(&server, authority.credentials(Some("forgetful"))), begun.clone()));
    until("it runs", async || begun.load(Ordering::Relaxed) > 0).await;
    // The files are read again for each connection.
    authority.sign("careful", &["careful"], |_| {});
    let error = soon("the stream ends", forgetful).await.unwrap();
    assert!(error.to_string().contains("client certificate has expired"), "{error:?}");
    until("the other has resumed", async || resumed.load(Ordering::Relaxed) == 1).await;
    assert!(!careful.is_finished());
    careful.abort();
}
