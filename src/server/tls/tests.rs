//! The files and their reload, with certificates that are made here, and handshakes over real sockets.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use prometheus_client::encoding::text::encode;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{handshake::Refusal, *};
use crate::{blocking::Pool, watched::Asked};

/// A directory with the files of a server.
struct Directory {
    directory: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Directory {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let this = Self { directory: tempfile::tempdir().unwrap(), authority };
        this.write("ca.pem", &this.authority.pem());
        this.renew(|_| {});
        this
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Writes a new certificate with its key.
    fn renew(&self, change: impl FnOnce(&mut CertificateParams)) {
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2100, 1, 1);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        self.write("cert.pem", &certificate.pem());
        self.write("key.pem", &key.serialize_pem());
    }

    fn files(&self) -> Files {
        Files {
            certificate: self.path().join("cert.pem"),
            key: self.path().join("key.pem"),
            client_ca: None,
            client_auth: ClientAuth::Required,
            revoked: None,
        }
    }
}

fn load(files: &Files) -> Result<Set, Error> {
    Set::new(files, &Contents::read(files)?)
}

fn text(registry: &Registry) -> String {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    text
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.unwrap()
}

#[test]
fn each_fault_of_the_files_is_found_before_they_are_used() {
    let directory = Directory::new();
    let (files, other) = (directory.files(), Directory::new());
    assert!(load(&files).is_ok());
    let mixed = Files { key: other.files().key, ..files.clone() };
    let text = load(&mixed).unwrap_err().to_string();
    assert!(
        text.contains("does not belong") && text.contains("cert.pem") && text.contains("key.pem"),
        "{text}"
    );
    for (content, name, fault) in [
        ("", "cert.pem", "is empty"),
        ("-----BEGIN CERTIFICATE-----\nMTIz\n-----END CERTIFICATE-----\n", "cert.pem", "cannot be decoded"),
        ("text", "key.pem", "no private key"),
    ] {
        let directory = Directory::new();
        directory.write(name, content);
        let text = load(&directory.files()).unwrap_err().to_string();
        assert!(text.contains(name) && text.contains(fault), "{text}");
    }
    let with_ca = Files { client_ca: Some(directory.path().join("ca.pem")), ..files.clone() };
    assert!(load(&with_ca).unwrap().verifier.is_some());
    let with_lists = Files { revoked: Some(directory.path().join("ca.pem")), ..with_ca };
    let text = load(&with_lists).unwrap_err().to_string();
    assert!(text.contains("no revocation list"), "{text}");
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(load(&files).unwrap_err().to_string().contains("chmod 600"));
    fs::remove_file(&files.key).unwrap();
    assert!(load(&files).unwrap_err().to_string().contains("key.pem"));
}

#[test]
fn a_chain_with_a_certificate_that_is_over_can_be_used() {
    let directory = Directory::new();
    let not_after = rcgen::date_time_ymd(2090, 1, 1);
    directory.renew(|params| params.not_after = not_after);
    let mut chain = fs::read_to_string(directory.files().certificate).unwrap();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.not_after = rcgen::date_time_ymd(2000, 1, 1);
    chain += &params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    directory.write("cert.pem", &chain);
    let set = load(&directory.files()).unwrap();
    assert_eq!(set.validity.not_after, not_after.unix_timestamp());
    assert!(set.not_valid(&directory.files(), pem::now()).is_none());
}

#[test]
fn a_certificate_that_is_not_valid_is_served_at_the_start_and_never_replaces_a_valid_one() {
    for (first, last, fault) in [(1990, 2000, "expired at 2000-01-01"), (2090, 2100, "only from 2090-01-01")]
    {
        let directory = Directory::new();
        let tls = Tls::open(directory.files(), &mut Registry::default()).unwrap();
        let valid = tls.current.borrow().clone();
        let renew = || {
            directory.renew(|params| {
                params.not_before = rcgen::date_time_ymd(first, 1, 1);
                params.not_after = rcgen::date_time_ymd(last, 1, 1);
            });
        };
        renew();
        let files = directory.files();
        let text = load(&files).unwrap().not_valid(&files, pem::now()).unwrap().to_string();
        assert!(text.contains(fault), "{text}");
        let _ = tls.replace(Contents::read(&tls.files));
        assert!(Arc::ptr_eq(&valid, &tls.current.borrow()), "{fault}");
        // A server that started with it takes another one, which may revoke certificates.
        let mut registry = Registry::default();
        let tls = Tls::open(files, &mut registry).unwrap();
        let served = tls.current.borrow().clone();
        renew();
        let _ = tls.replace(Contents::read(&tls.files));
        assert!(!Arc::ptr_eq(&served, &tls.current.borrow()), "{fault}");
        assert!(self::text(&registry).contains("tls_files_refused 0\n"));
    }
}

#[test]
fn a_list_of_revoked_certificates_that_has_expired_does_not_replace_a_current_one() {
    let directory = Directory::new();
    let list = |next_update| {
        let params = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2000, 1, 1),
            next_update,
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        directory.write("crl.pem", &params.signed_by(&directory.authority).unwrap().pem().unwrap());
    };
    list(rcgen::date_time_ymd(2100, 1, 1));
    let path = |name| Some(directory.path().join(name));
    let files = Files { client_ca: path("ca.pem"), revoked: path("crl.pem"), ..directory.files() };
    let tls = Tls::open(files, &mut Registry::default()).unwrap();
    let used = tls.current.borrow().clone();
    list(rcgen::date_time_ymd(2001, 1, 1));
    let text = load(&tls.files).unwrap().not_valid(&tls.files, pem::now()).unwrap().to_string();
    assert!(text.contains("crl.pem: the list expired at 2001-01-01"), "{text}");
    let _ = tls.replace(Contents::read(&tls.files));
    assert!(Arc::ptr_eq(&used, &tls.current.borrow()));
}

#[tokio::test]
async fn a_certificate_that_was_refused_because_it_is_early_is_used_when_it_is_valid() {
    let directory = Directory::new();
    let followed = Followed::new(&directory, Duration::from_millis(5));
    let mut sets = followed.tls.current.subscribe();
    let valid_from = pem::now() + 6;
    directory.renew(|params| {
        let since = Duration::from_secs(valid_from.try_into().unwrap());
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since;
    });
    followed.until("tls_files_refused 1").await;
    soon(sets.changed()).await.unwrap();
    assert!(pem::now() >= valid_from);
    followed.until("tls_files_refused 0").await;
}

/// The reload, and how to ask for it.
struct Followed {
    tls: Arc<Tls>,
    registry: Registry,
    asked: Arc<Asked>,
}

impl Followed {
    /// Follows the files of a directory.
    fn new(directory: &Directory, interval: Duration) -> Self {
        let mut registry = Registry::default();
        let tls = Tls::open(directory.files(), &mut registry).unwrap();
        let (asked, followed) = (Arc::new(Asked::default()), tls.clone());
        let notified = asked.clone();
        tokio::spawn(async move { followed.follow(interval, &notified, &Pool::default()).await });
        Self { tls, registry, asked }
    }

    /// Waits until the metrics have a line.
    async fn until(&self, line: &str) {
        soon(async {
            while !text(&self.registry).lines().any(|it| it == line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn changed_files_are_used_and_bad_ones_are_reported_once() {
    let directory = Directory::new();
    let followed = Followed::new(&directory, Duration::from_millis(5));
    let mut sets = followed.tls.current.subscribe();
    directory.renew(|params| params.not_after = rcgen::date_time_ymd(2099, 1, 1));
    soon(sets.changed()).await.unwrap();
    let expiry = rcgen::date_time_ymd(2099, 1, 1).unix_timestamp();
    followed.until(&format!("tls_certificate_expiry_timestamp_seconds {expiry}")).await;

    let good = fs::read_to_string(directory.files().certificate).unwrap();
    directory.write("cert.pem", "no certificate");
    followed.until("tls_files_refused 1").await;
    let refused = text(&followed.registry);
    let refusals = refused.lines().find(|line| line.contains("refused\"")).unwrap().to_owned();
    assert!(refusals.ends_with(" 1"), "{refused}");
    let used = followed.tls.current.borrow().validity;
    assert_eq!(used.not_after, expiry, "the set before is in use");
    // Many looks at the same content later, it was reported once.
    directory.write("cert.pem", &good);
    followed.until("tls_files_refused 0").await;
    assert!(text(&followed.registry).contains(&refusals));
}

#[tokio::test]
async fn a_change_is_used_at_once_when_the_operator_asks() {
    let directory = Directory::new();
    let followed = Followed::new(&directory, Duration::from_secs(100_000));
    let mut sets = followed.tls.current.subscribe();
    soon(followed.asked.ask()).await;
    assert!(
        !sets.has_changed().unwrap() && !text(&followed.registry).contains("used\""),
        "nothing has changed"
    );
    directory.renew(|_| {});
    soon(followed.asked.ask()).await;
    assert!(sets.has_changed().unwrap());
    let sets = (sets.borrow_and_update().clone(), load(&directory.files()).unwrap());
    assert_eq!(sets.0.marks.changed(&sets.1.marks), "");
    fs::remove_file(directory.files().key).unwrap();
    for _ in 0..2 {
        soon(followed.asked.ask()).await;
        assert!(text(&followed.registry).contains("tls_files_refused 1"));
        assert!(followed.asked.faults().borrow().as_ref().unwrap().contains("key.pem"));
    }
}

#[test]
fn a_new_set_knows_which_files_have_changed() {
    let directory = Directory::new();
    let files = Files { client_ca: Some(directory.path().join("ca.pem")), ..directory.files() };
    let before = load(&files).unwrap();
    directory.renew(|_| {});
    assert_eq!(load(&files).unwrap().marks.changed(&before.marks), "--tls-cert, --tls-key");
    directory.write("ca.pem", &Directory::new().authority.pem());
    let all = load(&files).unwrap().marks.changed(&before.marks);
    assert_eq!(all, "--tls-cert, --tls-key, --tls-client-ca");
}

#[tokio::test(start_paused = true)]
async fn a_change_is_used_after_it_was_seen_twice() {
    let directory = Directory::new();
    let followed = Followed::new(&directory, Duration::from_secs(10));
    let used = followed.tls.current.borrow().clone();
    let is_used = || !Arc::ptr_eq(&used, &followed.tls.current.borrow());
    // Half of the change is there at one look, and the whole at the next.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let key = fs::read_to_string(directory.files().key).unwrap();
    directory.renew(|_| {});
    let new = fs::read_to_string(directory.files().key).unwrap();
    directory.write("key.pem", &key);
    tokio::time::sleep(Duration::from_secs(10)).await;
    directory.write("key.pem", &new);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!is_used() && text(&followed.registry).contains("tls_files_refused 0\n"));
    let mut sets = followed.tls.current.subscribe();
    sets.changed().await.unwrap();
    assert!(is_used() && !text(&followed.registry).contains("refused\""));
}

/// A client that sends these bytes, and what the server answers and reports.
async fn shaken(bytes: &[u8], limit: Duration) -> (Vec<u8>, Refusal) {
    let directory = Directory::new();
    let tls = Tls::open(directory.files(), &mut Registry::default()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    client.write_all(bytes).await.unwrap();
    let accepted = tokio::spawn(async move { tls.accept(socket, limit).await.map(drop) });
    let mut answer = Vec::new();
    let _ = soon(client.read_to_end(&mut answer)).await;
    drop(client);
    (answer, soon(accepted).await.unwrap().unwrap_err())
}

#[tokio::test]
async fn a_client_without_tls_is_told_so_in_its_own_protocol() {
    let limit = Duration::from_secs(60);
    let (answer, refusal) = shaken(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", limit).await;
    assert_eq!(refusal.reason(), "PLAINTEXT");
    assert!(answer.ends_with(b"use https://"), "{answer:?}");
    let (answer, refusal) = shaken(b"GET / HTTP/1.1\r\n\r\n", limit).await;
    assert_eq!(refusal.reason(), "PLAINTEXT");
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("use https://\n"), "{answer}");
    let (answer, refusal) = shaken(&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0], limit).await;
    assert_eq!((answer.first(), refusal.reason()), (Some(&0x15), "PROTOCOL"), "{refusal:?}");
}

#[tokio::test]
async fn a_handshake_has_a_limit_whatever_the_client_has_sent() {
    for bytes in [&[][..], &[0x16], &[0x16, 3, 1, 2, 0, 1]] {
        let (answer, refusal) = shaken(bytes, Duration::from_millis(20)).await;
        assert_eq!((answer.len(), refusal.reason()), (0, "TIMEOUT"));
    }
}
