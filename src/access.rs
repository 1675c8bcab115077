//! Access: who may do what. It knows nothing of gRPC.
//!
//! A [`Caller`] has identities: from its connection (a certificate, an account of this machine) and from a token that came
//! with the call. The rules ([`rules`]) give identities [`Rights`], and a call needs some ([`Need`]). Once there is a file of
//! rules, everything that no rule allows is denied. A decision depends on the names in a request alone, and is made before
//! anything is looked up, so that a denial says nothing about what exists.
//!
//! The files are used as a whole or not at all. They are read again when they change: new ones that cannot be used leave the
//! previous ones in use, and are reported in the log and in the metrics.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use prometheus_client::registry::Registry;
use tokio::sync::{Mutex, watch};

use crate::{
    messages::quota::TopicQuota,
    pem,
    watched::{Watched, mark},
};
use changes::Parts;
pub use check::faults;
pub use identity::Identity;
use jwt::Jwts;
use metrics::Metrics;
pub use need::{Kind, Need, Target};
use quota::{Quotas, Usages};
use reload::{Contents, SECOND_READING};
pub use rights::{FilesOf, Part, Rights};
use rules::{Fault, Rules};
use tokens::{Hash, Tokens};
pub use verb::Verb;

mod changes;
mod check;
pub mod identity;
pub mod jwt;
mod metrics;
mod need;
pub mod quota;
mod reload;
pub mod rights;
pub mod rules;
pub mod tokens;
mod verb;

/// Up to this many characters of the name of a caller are shown.
const MAX_NAME: usize = 200;

/// The files that say who may do what.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Files {
    /// The rules.
    pub rules: PathBuf,
    /// The hashes of tokens, if there are tokens.
    pub tokens: Option<PathBuf>,
}

/// Why the files cannot be used. The message is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] pem::Error),
    /// Rules are wrong.
    #[error("{}: {}", path.display(), list(faults))]
    Rules {
        /// The file.
        path: PathBuf,
        /// What is wrong in it; at least one.
        faults: Vec<Fault>,
    },
}

fn list(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Why credentials are refused.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Refused {
    /// The header has no token.
    Malformed,
    /// The server does not know the token.
    Unknown,
    /// The token has expired.
    Expired,
    /// The token was revoked.
    Revoked,
    /// The token came in plain text from another machine.
    PlainText,
    /// The token is a JWT that is not accepted, for this reason.
    Jwt(&'static str),
}

/// What a call shows to be known by, besides its connection.
#[derive(Clone)]
enum Credential {
    Token(Hash),
    /// The text of a JWT, which is verified again when the keys change.
    Jwt(Arc<str>),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_) => f.write_str("Token"),
            Self::Jwt(_) => f.write_str("Jwt"),
        }
    }
}

/// Who makes a call.
#[derive(Clone, Debug)]
pub struct Caller(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// As texts and the log name it.
    name: String,
    /// Those of its connection.
    of_connection: Arc<[Identity]>,
    credential: Option<Credential>,
    /// Whether it has an identity of its own.
    is_known: bool,
    /// When its credential expires, in Unix seconds.
    expires: Option<i64>,
    rights: Arc<Rights>,
    quotas: Quotas,
    /// By which it was decided.
    policy: Arc<Policy>,
}

impl Caller {
    /// How much it may do.
    pub fn quotas(&self) -> &Quotas {
        &self.0.quotas
    }

    /// What it may do.
    pub fn rights(&self) -> &Arc<Rights> {
        &self.0.rights
    }

    /// Whether it has shown who it is.
    pub fn is_known(&self) -> bool {
        self.0.is_known
    }

    /// When its credential expires, in Unix seconds.
    pub fn expires(&self) -> Option<i64> {
        self.0.expires
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name)
    }
}

/// The name of an identity in texts and in the log: cut, and in characters that can neither end a line nor a word, because
/// an issuer of JWTs chooses it.
fn shown(identity: &Identity) -> String {
    let (text, mut shown) = (identity.to_string(), String::new());
    for character in text.chars().take(MAX_NAME) {
        if character.is_whitespace() {
            shown.extend(character.escape_unicode());
        } else {
            shown.extend(character.escape_debug());
        }
    }
    if text.chars().nth(MAX_NAME).is_some() {
        shown.push('…');
    }
    shown
}

/// The rules and tokens in use.
#[derive(Debug)]
pub struct Policy {
    /// By which its successor says what has changed.
    parts: Parts,
    rules: Rules,
    tokens: Tokens,
    jwts: Option<Arc<Jwts>>,
}

impl Policy {
    /// The JWTs that the policy `before` has verified are not verified again, if the keys and settings are the same.
    fn new(
        files: &Files,
        contents: &Contents,
        roots: &[String],
        before: Option<&Self>,
    ) -> Result<Self, Error> {
        let fault = |path: &Path, fault: &str| pem::Error { path: path.into(), fault: fault.into() };
        let text = std::str::from_utf8(&contents.rules).map_err(|_| fault(&files.rules, "it is not text"))?;
        let rules = Rules::parse(text, roots, &contents.accounts)
            .map_err(|faults| Error::Rules { path: files.rules.clone(), faults })?;
        let tokens = match (&files.tokens, &contents.tokens) {
            (Some(path), Some(content)) => Tokens::parse(path, content)?,
            _ => Tokens::default(),
        };
        let jwts = match (rules.jwt(), &contents.keys) {
            (Some(settings), Some((path, content))) => {
                let settings = jwt::Settings { keys: path.clone(), ..settings.clone() };
                let kept = before.and_then(|before| before.jwts.clone());
                match kept.filter(|kept| kept.are_of(&settings, content)) {
                    Some(kept) => Some(kept),
                    None => Some(Jwts::new(&settings, content)?.into()),
                }
            }
            _ => None,
        };
        let parts = Parts::new(text, contents.keys.as_ref().map(|(_, content)| content));
        Ok(Self { parts, rules, tokens, jwts })
    }

    fn caller(
        self: Arc<Self>,
        of_connection: &Arc<[Identity]>,
        credential: Option<Credential>,
        usages: &Arc<Usages>,
    ) -> Result<Caller, Refused> {
        let (mut own, mut expires) = (Vec::new(), None);
        match &credential {
            None => {}
            Some(Credential::Token(hash)) => {
                let entry = self.tokens.get(hash).ok_or(Refused::Unknown)?;
                if entry.revoked.is_some() {
                    return Err(Refused::Revoked);
                }
                own.push(Identity::Token(entry.name.clone()));
                own.extend(entry.roles.iter().cloned().map(Identity::Role));
                expires = entry.expires.map(jiff::Timestamp::as_second);
            }
            Some(Credential::Jwt(text)) => {
                let verified = self.jwts.as_ref().ok_or(Refused::Unknown)?.verify(text)?;
                own.extend(verified.identities.iter().cloned());
                expires = Some(verified.expires);
            }
        }
        if is_over(expires) {
            return Err(Refused::Expired);
        }
        let first = own.first().or_else(|| of_connection.first());
        let name = first.map_or_else(|| "a caller without credentials".into(), shown);
        let all = || own.iter().chain(of_connection.iter());
        let (rights, limits) = (self.rules.rights(all()), self.rules.limits(&own, of_connection));
        let quotas = usages.of(first, of_connection, &limits);
        Ok(Caller(Arc::new(Inner {
            name,
            is_known: first.is_some(),
            of_connection: of_connection.clone(),
            credential,
            expires,
            rights: rights.into(),
            quotas,
            policy: self,
        })))
    }
}

/// Whether a credential has expired.
fn is_over(expires: Option<i64>) -> bool {
    expires.is_some_and(|expires| pem::now() >= expires)
}

/// Who may do what on a server.
#[derive(Debug)]
pub struct Access {
    files: Files,
    /// The directory of the files of accounts.
    etc: PathBuf,
    /// The names of the roots that are served.
    roots: Vec<String>,
    current: watch::Sender<Arc<Policy>>,
    /// Of the one task that follows the files, also after a panic.
    watched: Mutex<Watched>,
    usages: Arc<Usages>,
    metrics: Metrics,
}

impl Access {
    /// Reads the files. `roots` are the names of the roots that are served.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn open(files: Files, roots: Vec<String>, registry: &mut Registry) -> Result<Arc<Self>, Error> {
        Self::open_with(files, identity::ETC.into(), roots, registry)
    }

    fn open_with(
        files: Files,
        etc: PathBuf,
        roots: Vec<String>,
        registry: &mut Registry,
    ) -> Result<Arc<Self>, Error> {
        let contents = Contents::read(&files, &etc);
        let watched = Watched::new(mark(&contents)).with_second_reading(SECOND_READING).into();
        let policy = Policy::new(&files, &contents?, &roots, None)?;
        let metrics = Metrics::new(registry);
        metrics.in_use(&policy);
        let (current, usages) = (watch::Sender::new(policy.into()), Arc::default());
        Ok(Arc::new(Self { files, etc, roots, current, watched, usages, metrics }))
    }

    /// Who makes a call, by the identities of its connection and the values of its header `authorization`.
    ///
    /// # Errors
    /// A credential that was shown is not accepted. It does not count then what the connection has.
    pub fn caller<'a>(
        &self,
        of_connection: &Arc<[Identity]>,
        headers: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Caller, Refused> {
        let credential = credential(headers);
        let caller = credential.and_then(|credential| {
            self.current.borrow().clone().caller(of_connection, credential, &self.usages)
        });
        caller.inspect_err(|refused| self.metrics.refused(*refused))
    }

    /// The same caller by the rules and tokens that are in use now.
    ///
    /// # Errors
    /// Its credential is no longer accepted.
    pub fn again(&self, caller: &Caller) -> Result<Caller, Refused> {
        let Inner { of_connection, credential, expires, policy, .. } = &*caller.0;
        let current = self.current.borrow().clone();
        if !Arc::ptr_eq(policy, &current) {
            return current.caller(of_connection, credential.clone(), &self.usages);
        }
        if is_over(*expires) { Err(Refused::Expired) } else { Ok(caller.clone()) }
    }

    /// Whether what the caller may do was decided by the rules and tokens that are in use now.
    pub fn is_decided_by_current(&self, caller: &Caller) -> bool {
        Arc::ptr_eq(&caller.0.policy, &self.current.borrow())
    }

    /// Counts a quota that is used up.
    pub fn exceed(&self, exceeded: quota::Exceeded) -> quota::Exceeded {
        self.metrics.exceeded(exceeded.quota);
        exceeded
    }

    /// Counts credentials that are refused.
    pub fn refuse(&self, refused: Refused) -> Refused {
        self.metrics.refused(refused);
        refused
    }

    /// Counts a denial.
    pub fn deny(&self, need: &Need<'_>) {
        self.metrics.denied(need.verb);
    }

    /// How much topics may take, by the rules that are in use now.
    pub fn topic_quotas(&self) -> Vec<TopicQuota> {
        self.current.borrow().rules.quotas().to_vec()
    }

    /// Reports new rules and tokens.
    pub fn changes(&self) -> watch::Receiver<Arc<Policy>> {
        self.current.subscribe()
    }
}

/// The token in the header of a call, if it has one.
fn credential<'a>(headers: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<Credential>, Refused> {
    let mut headers = headers.into_iter();
    let Some(header) = headers.next() else { return Ok(None) };
    let text = std::str::from_utf8(header).map_err(|_| Refused::Malformed)?;
    let (scheme, token) = text.split_once(' ').ok_or(Refused::Malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") || headers.next().is_some() {
        return Err(Refused::Malformed);
    }
    let token = token.trim();
    match Hash::of(token) {
        Some(hash) => Ok(Some(Credential::Token(hash))),
        None if token.split('.').count() == 3 => Ok(Some(Credential::Jwt(token.into()))),
        None => Err(Refused::Unknown),
    }
}

#[cfg(test)]
mod tests;
