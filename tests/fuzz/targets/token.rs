//! Tokens: the header of a call, and the file of hashes.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, LazyLock},
};

use perennial::access::{
    Access, Files,
    tokens::{self, Hash, Tokens},
};
use prometheus_client::registry::Registry;
use tempfile::TempDir;

pub const WORDS: &[&str] = &[
    "Bearer ",
    "perennial_",
    "0123456789abcdef",
    "[[token]]\n",
    "name = ",
    "hash = ",
    "\"blake3:",
    "roles = [",
    "created = ",
    "expires = ",
    "revoked = ",
    "\"2026-01-01T00:00:00Z\"",
];

const RULES: &str = "[[rule]]\nwho = [\"token:a\"]\nmay = [\"administer\"]\n";

/// A server's rules, and a token that they know.
static ACCESS: LazyLock<(TempDir, Arc<Access>, String)> = LazyLock::new(|| {
    let directory = TempDir::new().unwrap();
    let (rules, tokens) = (directory.path().join("rules.toml"), directory.path().join("tokens.toml"));
    fs::write(&rules, RULES).unwrap();
    fs::set_permissions(&rules, fs::Permissions::from_mode(0o600)).unwrap();
    let secret = tokens::add(&tokens, "a", Vec::new(), None).unwrap().expose().to_owned();
    let files = Files { rules, tokens: Some(tokens) };
    let access = Access::open(files, Vec::new(), &mut Registry::default()).unwrap();
    (directory, access, secret)
});

pub fn run(bytes: &[u8]) {
    header(bytes);
    file(bytes);
}

fn header(bytes: &[u8]) {
    let (_, access, secret) = &*ACCESS;
    let connection = Arc::from([]);
    // The bytes replace a part of a header that is accepted, or are a header.
    let known = format!("Bearer {secret}").into_bytes();
    assert!(access.caller(&connection, [&known[..]]).unwrap().is_known());
    let mut changed = known.clone();
    for (index, byte) in bytes.iter().enumerate().take(known.len()) {
        changed[index] ^= byte;
    }
    for header in [bytes, &changed] {
        let is_known = String::from_utf8_lossy(header).contains(secret.as_str());
        match access.caller(&connection, [header]) {
            Ok(_) => assert!(is_known, "{header:?} is taken for a token"),
            Err(refused) => assert!(!format!("{refused:?}").contains(secret.as_str())),
        }
    }
    assert!(access.caller(&connection, [bytes, &known]).is_err(), "one of two headers is chosen");
    let text = String::from_utf8_lossy(bytes);
    let digits = text.strip_prefix(tokens::PREFIX).unwrap_or_default();
    let is_token = digits.len() == 64 && digits.bytes().all(|it| b"0123456789abcdef".contains(&it));
    assert_eq!(Hash::of(&text).is_some(), is_token, "{text:?}");
}

fn file(bytes: &[u8]) {
    match Tokens::parse(Path::new("tokens.toml"), bytes) {
        Ok(tokens) => {
            let most = String::from_utf8_lossy(bytes).matches("blake3").count();
            // A text in TOML can be written with escapes.
            assert!(tokens.count() <= most || bytes.contains(&b'\\'), "{} tokens", tokens.count());
        }
        Err(error) => assert!(error.to_string().contains("tokens.toml"), "{error}"),
    }
}
