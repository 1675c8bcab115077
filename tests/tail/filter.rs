//! Lines that a filter of the server chooses.

use super::*;

#[test]
fn only_lines_that_match_are_printed() {
    let server = Server::start();
    append(&server.log_file("a.log"), "GET /a 200\nGET /b 500\nPOST /a 502\nget /a 503\nGET /health 500\n");
    let printed = |options: &[&str]| {
        let (code, out, said) = ran(&server, &[&["lines", "logs/a.log"], options].concat());
        assert_eq!((code, said.as_str()), (Some(0), ""), "{options:?}");
        out
    };
    assert_eq!(
        printed(&["--grep", " 5..$", "--exclude", "/health"]),
        "GET /b 500\nPOST /a 502\nget /a 503\n"
    );
    assert_eq!(printed(&["--grep", "^GET", "-i", "--tail", "2"]), "get /a 503\nGET /health 500\n");
    assert_eq!(printed(&["--grep", " 5", "-v"]), "GET /a 200\n");
    assert_eq!(printed(&["--grep", "5.", "--fixed-strings"]), "");
    assert_eq!(printed(&["--grep", "POST", "--grep", "get"]), "POST /a 502\nget /a 503\n");
}

#[test]
fn the_command_that_continues_has_the_filter() {
    let server = Server::start();
    append(&server.log_file("a.log"), "1 no\n2 yes\n");
    let mut run = Run::start(&server, &["lines", "logs/a.log", "-f", "--grep", "(yes|maybe)$"]);
    assert_eq!(run.line(), "2 yes");
    append(&server.log_file("a.log"), "3 no\n4 maybe\n");
    assert_eq!(run.line(), "4 maybe");
    let (code, rest, said) = run.end(Signal::INT);
    assert_eq!((code, rest.as_str()), (Some(130), ""));
    let command = said.lines().last().unwrap();
    assert!(command.contains(" -f '--grep=(yes|maybe)$' --cursor "), "{command}");
    append(&server.log_file("a.log"), "5 no\n6 yes\n");
    let cursor = command.rsplit(' ').next().unwrap();
    let continued = ["lines", "logs/a.log", "--grep=(yes|maybe)$", "--cursor", cursor];
    assert_eq!(ran(&server, &continued).1, "6 yes\n");
}

#[test]
fn a_pattern_that_cannot_be_used_is_an_error_that_names_it() {
    let server = Server::start();
    append(&server.log_file("a.log"), "1\n");
    for (pattern, fault) in
        [("a(b", "`a(b`, which is no regular expression: unclosed group"), (r"\w{1000}", "too large")]
    {
        let (code, out, said) = ran(&server, &["lines", "logs/a.log", "--grep", pattern]);
        assert!(code != Some(0) && out.is_empty(), "{code:?}");
        assert!(said.contains("include has ") && said.contains(fault), "{said}");
    }
}
