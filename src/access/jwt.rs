//! JWTs: tokens that another server has signed. They are accepted if that server is the issuer in the rules, if they are
//! meant for this server, and if a key of the issuer, from a file, has signed them by an algorithm that the rules allow.
//!
//! Shared secrets (HS256) are not supported: a server that can check such a token can also make one.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Once},
};

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation,
    crypto::aws_lc,
    decode, decode_header,
    errors::{Error, ErrorKind},
    jwk::{AlgorithmParameters, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Identity, Refused};
use crate::pem;

/// The clocks of the issuer and of this machine may differ by this, in seconds.
const LEEWAY: u64 = 10;

/// The longest JWT. Headers of requests have up to 16 KiB.
const MAX_BYTES: usize = 12 * 1024;

/// Up to this many JWTs that were verified are remembered, because a signature costs as much as many calls.
const MAX_VERIFIED: usize = 10_000;

/// The algorithms that rules can allow.
pub const ALGORITHMS: [(&str, Algorithm); 9] = [
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
];

/// Which JWTs are accepted: the table `[jwt]` of the rules.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// The claim `iss`.
    pub issuer: String,
    /// One of the claim `aud`.
    pub audience: String,
    /// By which algorithms they may be signed; at least one.
    pub algorithms: Vec<Algorithm>,
    /// The file of the issuer's keys, a JWKS.
    pub keys: PathBuf,
    /// The claim that has the roles, if one has.
    pub roles: Option<String>,
}

/// The file of keys that rules name, if they name one: relative to the directory of the rules.
pub fn keys_file(rules: &Path, content: &[u8]) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Outer {
        jwt: Table,
    }
    #[derive(Deserialize)]
    struct Table {
        keys: String,
    }
    let outer = toml::from_str::<Outer>(std::str::from_utf8(content).ok()?).ok()?;
    Some(rules.parent().unwrap_or(Path::new("")).join(outer.jwt.keys))
}

/// A key of the issuer.
#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// The only algorithm, if the key names one.
    algorithm: Option<KeyAlgorithm>,
    decoding: DecodingKey,
    validation: Validation,
}

/// A JWT that was verified.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Its subject and its roles.
    pub identities: Vec<Identity>,
    /// When it is no longer accepted, in Unix seconds.
    pub expires: i64,
}

/// The keys of an issuer.
#[derive(Debug)]
pub struct Jwts {
    keys: Vec<Key>,
    verified: quick_cache::sync::Cache<[u8; 32], Arc<Verified>>,
    settings: Settings,
    /// Of the file of keys.
    hash: blake3::Hash,
}

impl Jwts {
    /// Reads the content of the file of keys.
    ///
    /// # Errors
    /// The file has no key that could be used.
    pub fn new(settings: &Settings, content: &[u8]) -> Result<Self, pem::Error> {
        install();
        let fault = |fault: String| pem::Error { path: settings.keys.clone(), fault };
        let set = serde_json::from_slice::<JwkSet>(content).map_err(|error| {
            fault(format!("it is no JWKS: {error}: write {{\"keys\": […]}}, as the issuer serves it"))
        })?;
        let mut keys = Vec::new();
        for (index, jwk) in set.keys.iter().enumerate() {
            keys.extend(key(settings, jwk).map_err(|error| fault(format!("keys[{index}]: {error}")))?);
        }
        if keys.is_empty() {
            let text = "it has no key for a signature by one of the allowed algorithms: get the keys of the issuer, or \
                        allow other algorithms";
            return Err(fault(text.into()));
        }
        let verified = quick_cache::sync::Cache::new(MAX_VERIFIED);
        let hash = blake3::hash(content);
        Ok(Self { keys, verified, settings: settings.clone(), hash })
    }

    /// Whether they would be the same with these settings and this content of the file of keys.
    pub fn are_of(&self, settings: &Settings, content: &[u8]) -> bool {
        self.settings == *settings && self.hash == blake3::hash(content)
    }

    /// Verifies a JWT.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn verify(&self, text: &str) -> Result<Arc<Verified>, Refused> {
        if text.len() > MAX_BYTES {
            return Err(Refused::Jwt("is larger than 12 KiB"));
        }
        let hash: [u8; 32] = blake3::hash(text.as_bytes()).into();
        let verified = if let Some(verified) = self.verified.get(&hash) {
            verified
        } else {
            let verified = Arc::new(self.verify_signature(text)?);
            self.verified.insert(hash, verified.clone());
            verified
        };
        if pem::now() >= verified.expires { Err(Refused::Expired) } else { Ok(verified) }
    }

    fn verify_signature(&self, text: &str) -> Result<Verified, Refused> {
        let header = decode_header(text).map_err(|error| refused(&error))?;
        let key = match &header.kid {
            Some(id) => self.keys.iter().find(|key| key.id.as_ref() == Some(id)),
            None => self.keys.first().filter(|_| self.keys.len() == 1),
        };
        let key = key.ok_or(Refused::Jwt("names a key (kid) that the server does not have"))?;
        if key.algorithm.is_some_and(|algorithm| algorithm != KeyAlgorithm::from(header.alg)) {
            return Err(Refused::Jwt(ALGORITHM));
        }
        let claims = decode::<Map<String, Value>>(text, &key.decoding, &key.validation);
        let claims = claims.map_err(|error| refused(&error))?.claims;
        let subject = claims.get("sub").and_then(Value::as_str).filter(|subject| !subject.is_empty());
        let subject = subject.ok_or(Refused::Jwt("has no subject (sub)"))?;
        let expires = claims.get("exp").and_then(|expires| match expires.as_f64() {
            #[expect(clippy::cast_possible_truncation, reason = "it saturates")]
            Some(expires) if expires.is_finite() => Some(expires as i64),
            _ => None,
        });
        let expires = expires.ok_or(Refused::Jwt("has no time of expiry (exp)"))?;
        let roles =
            self.settings.roles.as_ref().and_then(|claim| claims.get(claim)).map(roles).unwrap_or_default();
        let identities = std::iter::once(Identity::Jwt(subject.into()));
        let identities = identities.chain(roles.into_iter().map(Identity::Role)).collect();
        let leeway = i64::try_from(LEEWAY).unwrap_or_default();
        Ok(Verified { identities, expires: expires.saturating_add(leeway) })
    }
}

/// With none or two providers, the library panics when it first needs one.
fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // An error means that another part of the process has installed one.
        let _ = aws_lc::DEFAULT_PROVIDER.install_default();
    });
}

/// A key, if it is for signatures by an algorithm that is allowed.
fn key(settings: &Settings, jwk: &Jwk) -> Result<Option<Key>, Error> {
    let common = &jwk.common;
    let is_for_signatures = !matches!(common.public_key_use, Some(PublicKeyUse::Encryption));
    let family: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(_) => &[Algorithm::ES256, Algorithm::ES384],
        AlgorithmParameters::OctetKeyPair(_) => &[Algorithm::EdDSA],
        // A shared secret, or a kind that is not known.
        _ => &[],
    };
    let is_of_key = |algorithm: &&Algorithm| {
        common.key_algorithm.is_none_or(|own| own == KeyAlgorithm::from(**algorithm))
    };
    let allowed = settings.algorithms.iter().filter(|it| family.contains(it)).filter(is_of_key).copied();
    let algorithms = allowed.collect::<Vec<_>>();
    let Some(first) = algorithms.first().filter(|_| is_for_signatures) else { return Ok(None) };
    let mut validation = Validation::new(*first);
    validation.algorithms = algorithms;
    validation.leeway = LEEWAY;
    validation.validate_nbf = true;
    // The library checks the issuer and the audience only if they are there.
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.set_issuer(&[&settings.issuer]);
    validation.set_audience(&[&settings.audience]);
    let (id, algorithm) = (common.key_id.clone(), common.key_algorithm);
    Ok(Some(Key { id, algorithm, decoding: DecodingKey::from_jwk(jwk)?, validation }))
}

const ALGORITHM: &str = "is signed by an algorithm that is not allowed";

fn refused(error: &Error) -> Refused {
    match error.kind() {
        ErrorKind::ExpiredSignature => Refused::Expired,
        ErrorKind::InvalidSignature => Refused::Jwt("has a wrong signature"),
        ErrorKind::InvalidIssuer => Refused::Jwt("is of another issuer (iss)"),
        ErrorKind::InvalidAudience => Refused::Jwt("is meant for another audience (aud)"),
        ErrorKind::ImmatureSignature => Refused::Jwt("is not valid yet (nbf)"),
        ErrorKind::InvalidAlgorithm => Refused::Jwt(ALGORITHM),
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => {
            Refused::Jwt("lacks one of the claims exp, iss, aud and sub")
        }
        // Also one without a signature (`none`), which is no algorithm of the library.
        _ => Refused::Jwt("is malformed, or is signed by an algorithm that is not supported"),
    }
}

/// Roles are a list, or words in one text, as in the claim `scope`.
fn roles(claim: &Value) -> Vec<String> {
    match claim {
        Value::String(text) => text.split_ascii_whitespace().map(str::to_owned).collect(),
        Value::Array(values) => values.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
