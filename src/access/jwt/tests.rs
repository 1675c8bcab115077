#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header, crypto::CryptoProvider, encode};
use proptest::prelude::*;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData as _, SigningKey as _};
use serde_json::json;

use super::*;

const ISSUER: &str = "https://id.example";

fn settings(algorithms: &[Algorithm]) -> Settings {
    Settings {
        issuer: ISSUER.into(),
        audience: "perennial".into(),
        algorithms: algorithms.to_vec(),
        keys: "jwks.json".into(),
        roles: Some("groups".into()),
    }
}

/// A key of the issuer, and its public part.
struct Issuer {
    key: KeyPair,
    jwk: Value,
}

impl Issuer {
    fn new(id: &str) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        // An uncompressed point: 4, x, y.
        let (x, y) = key.der_bytes().split_last_chunk::<64>().unwrap().1.split_at(32);
        let [x, y] = [x, y].map(|part| URL_SAFE_NO_PAD.encode(part));
        let jwk =
            json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": id, "use": "sig", "alg": "ES256"});
        Self { key, jwk }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let key = EncodingKey::from_ec_der(&self.key.serialize_der());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::ES256).unwrap();
        format!("{message}.{signature}")
    }
}

fn jwts(keys: &[&Value], algorithms: &[Algorithm]) -> Jwts {
    Jwts::new(&settings(algorithms), json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": ["other", "perennial"], "sub": "alice", "exp": pem::now() + 60, "groups": ["ops", "x"]})
}

fn header() -> Value {
    json!({"alg": "ES256", "typ": "JWT", "kid": "one"})
}

/// With a claim or a field of the header replaced; null removes it.
fn with(mut object: Value, name: &str, value: Value) -> Value {
    let map = object.as_object_mut().unwrap();
    map.remove(name);
    if !value.is_null() {
        map.insert(name.into(), value);
    }
    object
}

fn refused(jwts: &Jwts, token: &str) -> Refused {
    jwts.verify(token).map(|verified| panic!("{verified:?}")).unwrap_err()
}

#[test]
fn a_jwt_of_the_issuer_is_accepted_with_its_subject_its_roles_and_its_expiry() {
    let (one, two) = (Issuer::new("one"), Issuer::new("two"));
    let jwts = jwts(&[&two.jwk, &one.jwk], &[Algorithm::RS256, Algorithm::ES256]);
    // With no provider, or with two, the library would panic at its first use.
    assert!(CryptoProvider::try_get_default().is_some());
    for _ in 0..2 {
        let verified = jwts.verify(&one.sign(&header(), &claims())).unwrap();
        let names = verified.identities.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names, ["jwt:alice", "role:ops", "role:x"]);
        assert!((verified.expires - pem::now() - 60 - i64::try_from(LEEWAY).unwrap()).abs() < 30);
    }
    let scope = with(claims(), "groups", json!("reader writer"));
    let verified = jwts.verify(&one.sign(&header(), &scope)).unwrap();
    assert_eq!(verified.identities.len(), 3);
    assert!(jwts.verify(&one.sign(&header(), &with(claims(), "groups", json!(7)))).is_ok());
}

#[test]
fn a_jwt_that_is_not_for_this_server_is_refused_with_the_reason() {
    let issuer = Issuer::new("one");
    let jwts = jwts(&[&issuer.jwk], &[Algorithm::ES256]);
    for (name, value, reason) in [
        ("iss", json!("https://other.example"), "another issuer"),
        ("iss", Value::Null, "lacks one of the claims"),
        ("aud", json!("other"), "another audience"),
        ("aud", Value::Null, "lacks one of the claims"),
        ("sub", Value::Null, "lacks one of the claims"),
        ("sub", json!(""), "no subject"),
        ("exp", Value::Null, "lacks one of the claims"),
        ("exp", json!("soon"), "lacks one of the claims"),
        ("nbf", json!(pem::now() + 3600), "not valid yet"),
    ] {
        let Refused::Jwt(text) = refused(&jwts, &issuer.sign(&header(), &with(claims(), name, value))) else {
            panic!()
        };
        assert!(text.contains(reason), "{name}: {text}");
    }
    let expired = issuer.sign(&header(), &with(claims(), "exp", json!(pem::now() - 60)));
    assert_eq!(refused(&jwts, &expired), Refused::Expired);
}

#[test]
fn a_forged_jwt_is_refused() {
    let (issuer, other) = (Issuer::new("one"), Issuer::new("one"));
    let jwts = jwts(&[&issuer.jwk], &[Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256]);
    let good = issuer.sign(&header(), &claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let public = issuer.key.der_bytes();
    for (token, reason) in [
        // Of another key with the same id.
        (other.sign(&header(), &claims()), "wrong signature"),
        (issuer.sign(&with(header(), "kid", json!("two")), &claims()), "key (kid)"),
        (format!("{message}."), "wrong signature"),
        (
            format!("{}.{}.{signature}", part(&header()), part(&with(claims(), "sub", json!("root")))),
            "wrong signature",
        ),
        // `alg: none`, with and without a signature.
        (format!("{}.{}.", part(&with(header(), "alg", json!("none"))), part(&claims())), "not supported"),
        (
            format!("{}.{}.{signature}", part(&with(header(), "alg", json!("None"))), part(&claims())),
            "not supported",
        ),
        // Another algorithm than that of the key.
        (
            format!("{}.{}.{signature}", part(&with(header(), "alg", json!("RS256"))), part(&claims())),
            "not allowed",
        ),
        ("a.b.c".into(), "malformed"),
        ("..".into(), "malformed"),
        (format!("{good}.x"), "malformed"),
        ("x".repeat(1024 * 1024), "12 KiB"),
        (format!("{}.{}", "x".repeat(6 * 1024), "y".repeat(6 * 1024)), "12 KiB"),
    ] {
        let Refused::Jwt(text) = refused(&jwts, &token) else { panic!() };
        assert!(text.contains(reason), "{token:.80}: {text}");
    }
    // HS256 with the public key as the secret.
    for secret in [public, issuer.key.public_key_pem().as_bytes()] {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("one".into());
        let token = encode(&header, &claims(), &EncodingKey::from_secret(secret).unwrap()).unwrap();
        assert_eq!(refused(&jwts, &token), Refused::Jwt(ALGORITHM));
    }
}

#[test]
fn a_jwt_by_eddsa_is_accepted_and_without_an_id_only_if_there_is_one_key() {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let x = URL_SAFE_NO_PAD.encode(key.der_bytes().split_last_chunk::<32>().unwrap().1);
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&json!({"alg": "EdDSA"})), part(&claims()));
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes()).unwrap()));
    assert!(jwts(&[&jwk], &[Algorithm::EdDSA]).verify(&token).is_ok());
    let other = Issuer::new("one");
    let two = jwts(&[&jwk, &other.jwk], &[Algorithm::EdDSA, Algorithm::ES256]);
    assert!(matches!(refused(&two, &token), Refused::Jwt(text) if text.contains("kid")));
}

#[test]
fn a_file_without_a_usable_key_is_refused_with_what_to_do() {
    let issuer = Issuer::new("one");
    let secret = json!({"kty": "oct", "k": "c2VjcmV0", "kid": "s", "alg": "HS256"});
    for (content, algorithms, fault) in [
        ("", &[Algorithm::ES256][..], "no JWKS"),
        ("{}", &[Algorithm::ES256], "no JWKS"),
        (r#"{"keys": []}"#, &[Algorithm::ES256], "no key"),
        (&json!({ "keys": [issuer.jwk] }).to_string(), &[Algorithm::RS256], "no key"),
        (
            &json!({ "keys": [with(issuer.jwk.clone(), "use", json!("enc"))] }).to_string(),
            &[Algorithm::ES256],
            "no key",
        ),
        // A shared secret is never a key, whatever is allowed.
        (&json!({ "keys": [secret] }).to_string(), &[Algorithm::HS256], "no key"),
    ] {
        let error = Jwts::new(&settings(algorithms), content.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("jwks.json: ") && error.contains(fault), "{content}: {error}");
    }
}

proptest! {
    #[test]
    fn a_jwt_of_any_parts_is_refused(
        parts in proptest::collection::vec("[A-Za-z0-9_-]{0,40}|eyJhbGciOiJub25lIn0|eyJhbGciOiJFUzI1NiJ9|e30", 3),
    ) {
        thread_local! {
            static JWTS: Jwts = jwts(&[&Issuer::new("one").jwk], &[Algorithm::ES256]);
        }
        let is_refused = JWTS.with(|jwts| jwts.verify(&parts.join(".")).is_err());
        prop_assert!(is_refused);
    }

    #[test]
    fn a_changed_jwt_is_refused(at in 0..10_000_usize, to in any::<u8>()) {
        thread_local! {
            static SIGNED: (Jwts, String) = {
                let issuer = Issuer::new("one");
                (jwts(&[&issuer.jwk], &[Algorithm::ES256]), issuer.sign(&header(), &claims()))
            };
        }
        let result = SIGNED.with(|(jwts, token)| {
            let mut bytes = token.clone().into_bytes();
            let at = at % bytes.len();
            let before = std::mem::replace(&mut bytes[at], to & 0x7f);
            let changed = String::from_utf8(bytes).unwrap();
            // The last digit of base64 has bits that do not count.
            let is_same = before == to & 0x7f || at + 1 == token.len();
            is_same || jwts.verify(&changed).is_err()
        });
        prop_assert!(result);
    }
}
