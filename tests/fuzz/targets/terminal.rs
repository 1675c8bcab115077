//! Text on a terminal: no control character leaves the client, but tabs and the ends of its own lines.

#[path = "../../../src/bin/perennial/output/harmless.rs"]
mod harmless;
#[expect(dead_code, reason = "the client also quotes whole commands")]
#[path = "../../../src/bin/perennial/quote.rs"]
mod quote;

pub const WORDS: &[&str] =
    &["\u{1b}[2J", "\u{1b}]0;x\u{7}", "\u{9b}31m", "\u{85}", "\r\n", "\u{7f}", "\\x1b", "'"];

pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut out = Vec::new();
    harmless::escape(&mut out, bytes);
    check(&out, &['\t']);
    // Text without anything to escape stays as it is.
    let again = out.clone();
    out.clear();
    harmless::escape(&mut out, &again);
    assert_eq!(out, again, "escaped text is escaped again");
    check(harmless::harmless(&text).as_bytes(), &['\t', '\n']);
    check(quote::word(&text).as_bytes(), &[]);
    out.clear();
    let value = serde_json::json!({ "text": text, (&*text): [text] });
    harmless::escape_json(&mut out, &serde_json::to_string_pretty(&value).unwrap());
    check(&out, &['\n']);
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&out).unwrap(), value);
}

fn check(out: &[u8], allowed: &[char]) {
    let text = std::str::from_utf8(out).expect("a terminal gets UTF-8");
    let found = text.chars().find(|char| char.is_control() && !allowed.contains(char));
    assert_eq!(found, None, "{text:?}");
}
