//! Tokens: secrets of which the server knows only the hashes, in a file that `perenniald token` writes.
//!
//! A token is `perennial_` and 64 hexadecimal digits of 256 random bits, so that scanners for secrets find one in a
//! repository by `perennial_[0-9a-f]{64}`. A hash needs neither salt nor stretching, because no token can be guessed.

use std::{
    collections::HashMap,
    fmt,
    fs::{self, File, Metadata, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, OFlags, flock};
use serde::{Deserialize, Serialize};

use crate::{directory, pem};

/// The beginning of every token.
pub const PREFIX: &str = "perennial_";

/// The hexadecimal digits of a token.
const DIGITS: usize = 64;

/// The first lines of the file.
const HEADER: &str =
    "# Made by `perenniald token`. It has the hashes of tokens, and no token can be found from them.\n";

/// The digits of a hash that name a token.
const ID_DIGITS: usize = 8;

/// The longest name of a token or a role.
const MAX_NAME_BYTES: usize = 128;

/// Why a file of tokens cannot be used or changed. The message is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read, or others can read it.
    #[error(transparent)]
    File(#[from] pem::Error),
    /// The file cannot be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A name that no token can have.
    #[error("`{0}` is not a name: write 1 to {MAX_NAME_BYTES} letters, digits, `.`, `_`, `-`, `@` or `/`")]
    Name(String),
    /// No token has this name or id.
    #[error("no token that is not revoked has the name or the id `{0}`: `perenniald token list` lists them")]
    Unknown(String),
    /// The end is not after now.
    #[error("the token would expire at {0}, which is past: name a later time")]
    Past(Timestamp),
}

/// A new token. It is shown once.
pub struct Secret(String);

impl Secret {
    /// From the random numbers of the provider of TLS.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new() -> io::Result<Self> {
        let mut random = [0; DIGITS / 2];
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.secure_random.fill(&mut random).map_err(|_| io::Error::other("no random numbers"))?;
        Ok(Self(format!("{PREFIX}{}", hexadecimal(&random))))
    }

    /// The token itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The hash of a token.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Hash([u8; 32]);

impl Hash {
    /// The hash of a text that has the form of a token. `None` for another text.
    pub fn of(token: &str) -> Option<Self> {
        let digits = token.strip_prefix(PREFIX)?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_token = digits.len() == DIGITS && digits.bytes().all(is_digit);
        is_token.then(|| Self(blake3::hash(token.as_bytes()).into()))
    }

    fn parse(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text.strip_prefix("blake3:")?).ok().map(|hash| Self(hash.into()))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blake3:{}", hexadecimal(&self.0))
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A token as the file has it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name: rules know it as `token:NAME`.
    pub name: String,
    /// Its roles: rules know each as `role:NAME`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    hash: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it expires, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// When it was revoked, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
}

impl Entry {
    /// The beginning of its hash, by which it can be revoked.
    pub fn id(&self) -> &str {
        let hash = self.hash.strip_prefix("blake3:").unwrap_or_default();
        hash.get(..ID_DIGITS).unwrap_or_default()
    }
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(default)]
    token: Vec<Entry>,
}

impl Content {
    /// Reads the content of a file. The error does not repeat a part of the file.
    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, pem::Error> {
        let fault = |fault: String| pem::Error { path: path.into(), fault };
        let text = std::str::from_utf8(bytes).map_err(|_| fault("it is not text".into()))?;
        let content = toml::from_str::<Self>(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let line = 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
            fault(format!("line {line}: {}: the file is written by `perenniald token`", error.message()))
        })?;
        for (index, Entry { name, roles, hash, .. }) in content.token.iter().enumerate() {
            let wrong = |what: &str| {
                fault(format!(
                    "token[{index}].{what} is malformed: the file is written by `perenniald token`"
                ))
            };
            if Hash::parse(hash).is_none() {
                return Err(wrong("hash"));
            }
            check_name(name).map_err(|_| wrong("name"))?;
            roles.iter().try_for_each(|role| check_name(role)).map_err(|_| wrong("roles"))?;
        }
        Ok(content)
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@/".contains(&byte);
    let is_name = (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(is_plain);
    if is_name { Ok(()) } else { Err(Error::Name(name.into())) }
}

/// The tokens, by their hashes.
#[derive(Debug, Default)]
pub struct Tokens(HashMap<Hash, Entry>);

impl Tokens {
    /// Reads the content of this file.
    ///
    /// # Errors
    /// The content is malformed.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, pem::Error> {
        let entries = Content::parse(path, bytes)?.token.into_iter();
        Ok(Self(entries.filter_map(|entry| Some((Hash::parse(&entry.hash)?, entry))).collect()))
    }

    /// The token with this hash.
    pub fn get(&self, hash: &Hash) -> Option<&Entry> {
        self.0.get(hash)
    }

    /// All tokens, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Hash, &Entry)> {
        self.0.iter()
    }

    /// The number of tokens that are not revoked.
    pub fn count(&self) -> usize {
        self.0.values().filter(|entry| entry.revoked.is_none()).count()
    }
}

/// The tokens in a file, in the order in which they were made.
///
/// # Errors
/// The file cannot be read.
pub fn list(path: &Path) -> Result<Vec<Entry>, Error> {
    Ok(Content::parse(path, &pem::read_private(path)?)?.token)
}

/// Makes a token and adds its hash to the file, which is created if there is none.
///
/// # Errors
/// A name is wrong, or the file cannot be written.
pub fn add(path: &Path, name: &str, roles: Vec<String>, expires: Option<Timestamp>) -> Result<Secret, Error> {
    check_name(name)?;
    roles.iter().try_for_each(|role| check_name(role))?;
    let created = now();
    if let Some(expires) = expires.filter(|expires| *expires <= created) {
        return Err(Error::Past(expires));
    }
    let secret = Secret::new().map_err(|source| Error::Write { path: path.into(), source })?;
    let hash = Hash(blake3::hash(secret.expose().as_bytes()).into()).to_string();
    change(path, |content| {
        content.token.push(Entry { name: name.into(), roles, hash, created, expires, revoked: None });
        Ok(())
    })?;
    Ok(secret)
}

/// Revokes the tokens with this name or id. Returns how many they are.
///
/// # Errors
/// [`Error::Unknown`], or the file cannot be written.
pub fn revoke(path: &Path, which: &str) -> Result<usize, Error> {
    let (mut count, revoked) = (0, now());
    change(path, |content| {
        for entry in content.token.iter_mut().filter(|entry| entry.name == which || entry.id() == which) {
            if entry.revoked.is_none() {
                entry.revoked = Some(revoked);
                count += 1;
            }
        }
        if count == 0 { Err(Error::Unknown(which.into())) } else { Ok(()) }
    })?;
    Ok(count)
}

fn now() -> Timestamp {
    Timestamp::from_second(pem::now()).unwrap_or_default()
}

/// The permissions of the new file: those of the old one, which a server of another account may read as its group. In a
/// directory that root keeps for a group, as the package's `/etc/perennial`, the group may read the first file, too.
fn mode(old: Option<&Metadata>, directory: &Metadata) -> u32 {
    match old {
        Some(old) => old.mode() & 0o777,
        None if directory.uid() == 0 && directory.gid() != 0 && rustix::process::getuid().is_root() => 0o640,
        None => 0o600,
    }
}

/// Waits for the lock, and gives it to the owner of the file: the account of the server changes tokens, too.
fn lock_file(path: &Path, owner: Option<&Metadata>) -> io::Result<File> {
    // The server's account may own the directory, and must not make root change another file by a link.
    let no_link = OFlags::NOFOLLOW.bits().cast_signed();
    let mut options = File::options();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(no_link);
    let lock = options.open(path)?;
    let metadata = lock.metadata()?;
    if let Some(owner) = owner.filter(|_| metadata.is_file() && metadata.nlink() == 1) {
        fchown(&lock, Some(owner.uid()), Some(owner.gid()))?;
    }
    flock(&lock, FlockOperation::LockExclusive)?;
    Ok(lock)
}

/// Changes the file in one step. Others that change it at the same time wait.
fn change(path: &Path, change: impl FnOnce(&mut Content) -> Result<(), Error>) -> Result<(), Error> {
    let fault = |source: io::Error| Error::Write { path: path.into(), source };
    let beside = |suffix: &str| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        path.with_file_name(name)
    };
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The server may run as another account than root. It reads a new file if the directory is its own.
    let old = fs::metadata(path).ok();
    let mode = mode(old.as_ref(), &fs::metadata(directory).map_err(fault)?);
    let owner = old.or_else(|| fs::metadata(directory).ok());
    let owner = owner.filter(|_| rustix::process::getuid().is_root());
    let lock = beside(".lock");
    let _lock = lock_file(&lock, owner.as_ref()).map_err(|source| Error::Write { path: lock, source })?;
    let mut content = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Content::default(),
        _ => Content::parse(path, &pem::read_private(path)?)?,
    };
    change(&mut content)?;
    let text = toml::to_string(&content).map_err(|error| fault(io::Error::other(error)))?;
    // A file of this name that others had made with other permissions would keep them.
    let new = beside(".new");
    let _ = fs::remove_file(&new);
    let write = || {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
        if let Some(owner) = &owner {
            fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
        }
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(format!("{HEADER}\n{text}").as_bytes())?;
        file.sync_all()?;
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.into());
        fs::rename(&new, &target)?;
        directory::sync_name(&target)
    };
    write().map_err(fault)
}

#[cfg(test)]
mod tests;
