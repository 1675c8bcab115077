//! Certificates, keys and revocation lists in PEM files, for the server and the client.
//!
//! An error names the file, the fault and a remedy. It never contains a part of the file.

use std::{
    fs::{File, Metadata},
    io::Read,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

#[cfg(feature = "server")]
use std::net::IpAddr;

use rustix::fs::OFlags;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};
#[cfg(feature = "server")]
use rustls::pki_types::{CertificateRevocationListDer, UnixTime};
#[cfg(feature = "server")]
use x509_parser::extensions::GeneralName;

/// The largest file: many times the list of a large authority.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The permissions of everyone but the owner.
const OTHERS: u32 = 0o077;

/// The same of a file of root, which may let a group read it: an account that is not root can have its key in no other way
/// from some tools, as from Debian's `ssl-cert` and from Kubernetes.
const OTHERS_OF_ROOT: u32 = 0o037;

/// The beginning of a key that is encrypted, in either form.
const ENCRYPTED: [&str; 2] = ["BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"];

/// Why a file cannot be used. The message is for the operator or the user.
#[derive(Clone, Debug, Hash, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct Error {
    /// The file.
    pub path: PathBuf,
    /// The fault, and what would work.
    pub fault: String,
}

/// When a certificate or a list is valid, in Unix seconds.
#[cfg(feature = "server")]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Validity {
    /// The first second.
    pub not_before: i64,
    /// The last second.
    pub not_after: i64,
}

/// The content of a file.
///
/// # Errors
/// The file cannot be read, is too large, or is not a regular file.
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    read_if(path, |_| None)
}

/// The content of a file that only its owner may read.
///
/// # Errors
/// Those of [`read`], and that others have a permission on the file.
pub fn read_private(path: &Path) -> Result<Vec<u8>, Error> {
    read_if(path, |metadata| {
        let mode = metadata.mode() & 0o777;
        let others = if metadata.uid() == 0 { OTHERS_OF_ROOT } else { OTHERS };
        let fault = || format!("others have permissions on it ({mode:03o}), so it is not secret: chmod 600");
        (mode & others != 0).then(fault)
    })
}

fn read_if(path: &Path, refuse: impl FnOnce(&Metadata) -> Option<String>) -> Result<Vec<u8>, Error> {
    let fault = |fault: String| Error { path: path.into(), fault };
    let io = |error: std::io::Error| fault(error.to_string());
    // A pipe without a writer would hold the thread.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(fault("it is not a regular file".into()));
    }
    if let Some(reason) = refuse(&metadata) {
        return Err(fault(reason));
    }
    let mut content = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut content).map_err(io)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(fault("it is larger than 16 MiB".into()));
    }
    Ok(content)
}

/// The certificates in the content of this file, in their order; at least one.
pub fn certificates(path: &Path, content: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    all(path, content, "certificate (BEGIN CERTIFICATE)")
}

/// The revocation lists in the content of this file; at least one.
#[cfg(feature = "server")]
pub fn revocation_lists(
    path: &Path,
    content: &[u8],
) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
    all(path, content, "revocation list (BEGIN X509 CRL)")
}

fn all<T: PemObject>(path: &Path, content: &[u8], noun: &str) -> Result<Vec<T>, Error> {
    let all = T::pem_slice_iter(content).collect::<Result<Vec<_>, _>>();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(without(path, content, noun)),
        Err(error) => Err(malformed(path, &error)),
    }
}

/// The first private key in the content of this file.
pub fn private_key(path: &Path, content: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    let text = String::from_utf8_lossy(content);
    if ENCRYPTED.iter().any(|mark| text.contains(mark)) {
        let fault = "the key is encrypted: decrypt it with `openssl pkey -in FILE -out NEW`".into();
        return Err(Error { path: path.into(), fault });
    }
    PrivateKeyDer::from_pem_slice(content).map_err(|error| match error {
        pem::Error::NoItemsFound => without(path, content, "private key (BEGIN PRIVATE KEY)"),
        error => malformed(path, &error),
    })
}

fn without(path: &Path, content: &[u8], noun: &str) -> Error {
    let fault = if content.is_empty() {
        "it is empty".into()
    } else if content.starts_with(b"-----") {
        format!("it has no {noun}")
    } else {
        format!("it has no {noun} in the form PEM: convert it with openssl")
    };
    Error { path: path.into(), fault }
}

fn malformed(path: &Path, error: &pem::Error) -> Error {
    // The error itself may quote a line of a key.
    let fault = match error {
        pem::Error::MissingSectionEnd { .. } => "it ends within a section: is it complete?",
        pem::Error::IllegalSectionStart { .. } => "a line that begins a section is malformed",
        pem::Error::Base64Decode(_) => "the content of a section is not base64",
        _ => "it is not PEM",
    };
    Error { path: path.into(), fault: fault.into() }
}

/// When a certificate is valid. `None` if it cannot be decoded.
#[cfg(feature = "server")]
pub fn validity(certificate: &CertificateDer<'_>) -> Option<Validity> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let validity = certificate.validity();
    Some(Validity { not_before: validity.not_before.timestamp(), not_after: validity.not_after.timestamp() })
}

/// The names that a certificate has (its subject alternative names): the kind of each, `DNS`, `URI`, `EMAIL` or `IP`, and
/// the name.
#[cfg(feature = "server")]
pub fn names(certificate: &CertificateDer<'_>) -> Vec<(&'static str, String)> {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else { return Vec::new() };
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(("DNS", (*name).to_owned())),
        GeneralName::URI(uri) => Some(("URI", (*uri).to_owned())),
        GeneralName::RFC822Name(address) => Some(("EMAIL", (*address).to_owned())),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| ("IP", address.to_string())),
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}

#[cfg(feature = "server")]
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// When a revocation list must have been replaced, in Unix seconds. `None` if it does not say so.
#[cfg(feature = "server")]
pub fn next_update(list: &CertificateRevocationListDer<'_>) -> Option<i64> {
    let (_, list) = x509_parser::parse_x509_crl(list).ok()?;
    list.next_update().map(|time| time.timestamp())
}

/// The current time in Unix seconds, by the clock that decides about certificates.
#[cfg(feature = "server")]
pub fn now() -> i64 {
    i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn a_key_that_others_can_read_is_refused_and_a_certificate_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        std::fs::write(&path, "hidden words").unwrap();
        let is_root = std::fs::metadata(&path).unwrap().uid() == 0;
        for (mode, is_private) in
            [(0o600, true), (0o400, true), (0o640, is_root), (0o604, false), (0o660, false), (0o620, false)]
        {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let result = read_private(&path);
            assert_eq!(result.is_ok(), is_private, "{mode:o}: {result:?}");
            assert!(read(&path).is_ok());
            if let Err(error) = result {
                let text = error.to_string();
                assert!(text.contains("key.pem") && text.contains("chmod 600"), "{text}");
                assert!(text.contains(&format!("{mode:o}")) && !text.contains("hidden"), "{text}");
            }
        }
        // The mode of a link does not count, but that of the file.
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(read_private(&link).is_err());
    }

    #[test]
    fn what_is_not_a_file_is_refused_and_does_not_hang() {
        let directory = tempfile::tempdir().unwrap();
        assert!(read(directory.path()).unwrap_err().to_string().contains("not a regular file"));
        let pipe = directory.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(read(&pipe).unwrap_err().to_string().contains("not a regular file"));
        assert!(read(&directory.path().join("absent")).unwrap_err().to_string().contains("No such file"));
    }

    #[test]
    fn each_fault_of_a_file_has_its_text_and_none_repeats_its_content() {
        let path = Path::new("f.pem");
        let key = KeyPair::generate().unwrap().serialize_pem();
        let certificate = {
            let key = KeyPair::generate().unwrap();
            CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap().pem()
        };
        assert_eq!(certificates(path, certificate.repeat(2).as_bytes()).unwrap().len(), 2);
        assert!(private_key(path, format!("{certificate}{key}").as_bytes()).is_ok());
        let faults = [
            (certificates(path, b"").unwrap_err(), "is empty"),
            (certificates(path, key.as_bytes()).unwrap_err(), "no certificate"),
            (certificates(path, &[0x30, 0x82]).unwrap_err(), "in the form PEM"),
            (private_key(path, certificate.as_bytes()).unwrap_err(), "no private key"),
            (private_key(path, key.get(..60).unwrap().as_bytes()).unwrap_err(), "is it complete"),
            (
                private_key(path, key.replace("PRIVATE", "ENCRYPTED PRIVATE").as_bytes()).unwrap_err(),
                "openssl pkey",
            ),
            (revocation_lists(path, certificate.as_bytes()).unwrap_err(), "no revocation list"),
        ];
        let secret = key.lines().nth(1).unwrap();
        for (error, fault) in faults {
            let text = error.to_string();
            assert!(text.starts_with("f.pem: ") && text.contains(fault), "{text}");
            assert!(!text.contains(secret), "{text}");
        }
    }

    #[test]
    fn the_validity_of_a_certificate_is_read() {
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let expected = Validity { not_before: 1_767_225_600, not_after: 1_798_761_600 };
        assert_eq!(validity(certificate.der()), Some(expected));
        assert_eq!(validity(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
