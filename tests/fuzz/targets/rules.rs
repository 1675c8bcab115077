//! The file of rules: it is read as a whole or refused with faults that an operator finds, and it never allows more than
//! it says.

use perennial::access::{Identity, identity::Accounts, rules::Rules};

pub const WORDS: &[&str] = &[
    "[[rule]]\n",
    "[[limit]]\n",
    "[jwt]\n",
    "who = ",
    "may = ",
    "topics = ",
    "files = ",
    "countdowns = ",
    "consumers = ",
    "[\"anyone\"]",
    "[\"administer\"]",
    "\"token:a\"",
    "\"role:a\"",
    "\"uid:1\"",
    "\"read\"",
    "\"publish\"",
    "\">\"",
    "\"logs=**\"",
    "\"*\"",
    "streams = 1",
    "messages = 1",
    "issuer = \"a\"",
    "algorithms = [\"ES256\"]",
];

pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let roots = ["logs".to_owned(), "app".into()];
    match Rules::parse(text, &roots, &Accounts::default()) {
        Ok(rules) => {
            assert!(rules.count() > 0, "rules that deny everything");
            // Escapes in TOML can spell it otherwise.
            if !text.contains("anyone") && !text.contains('\\') {
                assert!(!rules.rights([]).are_any(), "a caller without an identity has a right");
            }
            let token = Identity::Token("a name that no rule has".into());
            assert_eq!(rules.rights([&token]).are_any(), rules.rights([]).are_any());
            let _ = (rules.limits(std::slice::from_ref(&token), &[]), rules.jwt());
        }
        Err(faults) => {
            assert!((1..=20).contains(&faults.len()), "{} faults", faults.len());
            let lines = 1 + text.matches('\n').count();
            for fault in faults {
                assert!((1..=lines).contains(&fault.line) && !fault.text.is_empty(), "{fault:?}");
            }
        }
    }
}
