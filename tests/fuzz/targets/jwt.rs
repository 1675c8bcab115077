//! JWTs and the file of keys: an input is a JWKS, and after the last line break a JWT.

use std::sync::LazyLock;

use jsonwebtoken::Algorithm;
use perennial::access::jwt::{Jwts, Settings};

pub const WORDS: &[&str] = &[
    "{\"keys\":[",
    "\"kty\":\"EC\"",
    "\"kty\":\"RSA\"",
    "\"kty\":\"oct\"",
    "\"crv\":\"P-256\"",
    "\"alg\":\"ES256\"",
    "\"use\":\"enc\"",
    "\"kid\":\"one\"",
    "eyJhbGciOiJub25lIn0",
    "eyJhbGciOiJIUzI1NiJ9",
    ".",
    "\n",
];

/// Keys of an issuer whose private parts were thrown away, and a JWT of each that does not expire in this century.
const KEYS: &[u8] = include_bytes!("../corpus/jwt/keys-of-the-issuer");

/// The header and the claims of each of these JWTs.
static SIGNED: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let tokens = std::str::from_utf8(KEYS).unwrap().lines().skip(1);
    let signed = tokens.map(|token| token.rsplit_once('.').unwrap().0).collect::<Vec<_>>();
    assert_eq!(signed.len(), 3);
    signed
});

static JWTS: LazyLock<Jwts> = LazyLock::new(|| {
    let jwts = Jwts::new(&settings(), KEYS.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    for token in std::str::from_utf8(KEYS).unwrap().lines().skip(1) {
        assert_eq!(jwts.verify(token).unwrap().identities.len(), 2, "{token}");
    }
    jwts
});

fn settings() -> Settings {
    Settings {
        issuer: "https://id.example".into(),
        audience: "perennial".into(),
        algorithms: vec![Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256],
        keys: "jwks.json".into(),
        roles: Some("groups".into()),
    }
}

pub fn run(bytes: &[u8]) {
    let split = bytes.iter().rposition(|byte| *byte == b'\n');
    let (keys, token) = split.map_or((&[][..], bytes), |at| (&bytes[..at], &bytes[at + 1..]));
    let token = String::from_utf8_lossy(token);
    if JWTS.verify(&token).is_ok() {
        // A signature of another form that holds for the same text is no forgery.
        let signed = token.rsplit_once('.').map_or("", |(signed, _)| signed);
        assert!(SIGNED.contains(&signed), "{token} was not signed by the issuer");
    }
    match Jwts::new(&settings(), keys) {
        Ok(jwts) => {
            let _ = jwts.verify(&token);
        }
        Err(error) => assert!(error.to_string().contains("jwks.json"), "{error}"),
    }
}
