//! An authority that signs certificates, and the files of its clients and servers.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use perennial::client::Credentials;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(86_400);

/// An authority, and a directory with the files that it made.
pub struct Authority {
    directory: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let this = Self { directory: tempfile::tempdir().unwrap(), issuer };
        this.write("ca.pem", &this.issuer.pem());
        this
    }

    /// The path of a file.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The path of a file, as an argument.
    pub fn path(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    /// Replaces a file in one step.
    pub fn write(&self, name: &str, content: &str) {
        let new = self.file("new");
        fs::write(&new, content).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, self.file(name)).unwrap();
    }

    /// Makes `NAME.pem` and `NAME.key` with these names, for servers and clients.
    pub fn sign(&self, name: &str, names: &[&str], change: impl FnOnce(&mut CertificateParams)) {
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = (SystemTime::now() - DAY).into();
        params.not_after = (SystemTime::now() + 365 * DAY).into();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    /// The certificate of a server on this machine.
    pub fn sign_server(&self) {
        self.sign("server", &["localhost", "127.0.0.1"], |_| {});
    }

    /// Makes `crl.pem`, which revokes the certificates with these serial numbers.
    pub fn revoke(&self, serials: &[u64]) {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: (SystemTime::now() - DAY).into(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: (SystemTime::now() - DAY).into(),
            next_update: (SystemTime::now() + 30 * DAY).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        self.write("crl.pem", &list.signed_by(&self.issuer).unwrap().pem().unwrap());
    }

    /// The options of a server with the certificate `server`, which looks for new files often.
    pub fn options(&self, further: &[&str]) -> Vec<String> {
        let (certificate, key) = (self.path("server.pem"), self.path("server.key"));
        let own = ["--tls-cert", &certificate, "--tls-key", &key, "--reload-interval", "20ms"];
        own.iter().chain(further).map(ToString::to_string).collect()
    }

    /// The credentials of a client that trusts this authority, and shows this certificate.
    pub fn credentials(&self, name: Option<&str>) -> Credentials {
        Credentials {
            ca: Some(self.file("ca.pem")),
            certificate: name.map(|name| self.file(&format!("{name}.pem"))),
            key: name.map(|name| self.file(&format!("{name}.key"))),
            server_name: None,
            token: None,
        }
    }
}

/// Whether a file is there, for tests that replace it.
pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
